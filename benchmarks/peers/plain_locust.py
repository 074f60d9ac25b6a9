"""Plain Locust as its documentation shows it, for `benchmarks/load.py`.

Closed-loop users with a constant throughput. FastHttpUser for whole answers. HttpUser
for streams, because FastHttpUser waits for 1,024 bytes before it yields a line.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from locust import FastHttpUser, HttpUser, constant_throughput, events, task

RATE_PER_USER = 4.0
BODY = {"model": "null", "max_tokens": 32, "messages": [{"role": "user", "content": "hello"}]}
hooks: Any = events
first_s: list[float] = []


class Plain(FastHttpUser):
    """Whole answers."""

    wait_time = constant_throughput(RATE_PER_USER)

    @task
    def call(self) -> None:
        self.client.post("/v1/chat/completions", json={**BODY, "stream": False})


class Streams(HttpUser):
    """Streamed answers, read line by line."""

    wait_time = constant_throughput(RATE_PER_USER)

    @task
    def call(self) -> None:
        sent_s, seen, asked = time.monotonic(), False, {**BODY, "stream": True}
        with self.client.post("/v1/chat/completions", json=asked, stream=True, catch_response=True) as answer:
            for line in answer.iter_lines():
                if not seen and line.startswith(b"data:"):
                    seen = True
                    first_s.append(time.monotonic() - sent_s)
                if line == b"data: [DONE]":
                    answer.success()


def told(environment: Any, **_: Any) -> None:
    total = environment.stats.total
    about = {
        "done": total.num_requests - total.num_failures,
        "seconds": total.last_request_timestamp - total.start_time,
        "cpu_s": time.process_time(),
        "first_s": sorted(first_s),
    }
    Path(os.environ["PEER_FILE"]).write_text(json.dumps(about), encoding="utf-8")


hooks.quitting.add_listener(told)
