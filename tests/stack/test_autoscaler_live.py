"""The lab's autoscaler next to its remediator, on each runtime.

The engine is simulated, the load is real.
"""

from __future__ import annotations

import asyncio
import json
import os
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from support.runtimes import RUNTIMES, require_runtime
from support.waiting import until_async

from pytest_llmchaos.host import identity
from pytest_llmchaos.runtime.docker import docker_cli
from pytest_llmchaos.subject.lab import lab_subject

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.stack,
    pytest.mark.timeout(300),
    pytest.mark.nightly("tests/processes/test_lab_autoscaler_loop.py, against made-up programs"),
]

POLICY = (
    "queue(maximum=3, scale_up_window_s=0, scale_up_period_s=1, scale_up_pods=1, scale_down_window_s=8, "
    "scale_down_period_s=1, scale_down_pods=1)"
)
CALLERS = 24


@pytest.fixture(params=sorted(RUNTIMES))
def up(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    require_runtime(request.param)
    runtime = RUNTIMES[request.param](
        lab_subject("sim", scales=True),
        project=f"llmchaos-autoscaler-{os.getpid()}-{request.param}",
        run="autoscaler",
        owner=identity.owner_label(),
        directory=tmp_path,
    )
    runtime.prepare()
    try:
        runtime.up()
        yield runtime
    finally:
        runtime.down()


def value(runtime: Any, query: str) -> float | None:
    url = f"{runtime.url('prometheus')}/api/v1/query"
    with urllib.request.urlopen(url, data=f"query={query}".encode(), timeout=5) as answer:
        result = json.load(answer)["data"]["result"]
    return float(result[0]["value"][1]) if result else None


def replicas(runtime: Any, state: str) -> float | None:
    return value(runtime, f'lab_autoscaler_replicas{{state="{state}"}}')


def audit_of_autoscaler(runtime: Any, project: str) -> list[dict[str, Any]]:
    if runtime.name == "local":
        text = Path(runtime._programs["autoscaler"].environment["LAB_AUDIT_FILE"]).read_text()
    else:
        read = ["docker", "exec", f"{project}-autoscaler-1", "cat", "/audit/autoscaler.jsonl"]
        text = docker_cli.run(read, env=docker_cli.environment(), timeout_s=20)
    return [json.loads(line) for line in text.splitlines()]


def acts_of(entries: list[dict[str, Any]]) -> list[tuple[str, float, float]]:
    """Service, begin and end of each act."""
    found, begun = [], {}
    for entry in entries:
        if entry["event"] == "intent":
            begun[entry["service"]] = entry["at"]
        elif entry["event"] in ("done", "failed"):
            found.append((entry["service"], begun.pop(entry["service"]), entry["at"]))
    return found


class Callers:
    """Clients that stream one answer after the other while `busy`."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/v1/chat/completions"
        self.busy = True
        self.whole = 0
        self.broken: list[str] = []

    async def one(self, http: aiohttp.ClientSession) -> None:
        body = {
            "model": "smollm2:135m",
            "stream": True,
            "max_tokens": 300,
            "messages": [{"role": "user", "content": "x"}],
        }
        while self.busy:
            try:
                async with http.post(self._url, json=body) as response:
                    text = await response.read()
            except aiohttp.ClientError as error:
                self.broken.append(repr(error))
                continue
            if response.status == 503 and b"queue" in text:
                continue  # refused, not cut
            if response.status == 200 and text.endswith(b"data: [DONE]\n\n") and b'"error"' not in text:
                self.whole += 1
            else:
                self.broken.append(f"{response.status} {text[-300:]!r}")


def test_queue_law_follows_a_load_and_no_request_is_cut_next_to_a_remediator(up: Any) -> None:
    up.configure({"autoscaler": {"LAB_POLICY": POLICY, "LAB_SYNC_S": "1", "LAB_DRAIN_S": "20"}})
    up.start("autoscaler")
    up.wait_healthy(["autoscaler"], 20)

    async def live() -> Callers:
        callers = Callers(up.url("api"))
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as http:
            await until_async(lambda: replicas(up, "stopped") == 3, "one replica without load", 60, every_s=0.5)
            work = [asyncio.create_task(callers.one(http)) for _ in range(CALLERS)]
            await until_async(lambda: replicas(up, "ready") == 3, "three replicas under load", 60, every_s=0.5)
            assert callers.broken == [], "before the kill"
            up.kill("model-2")  # its streams break
            await until_async(
                lambda: replicas(up, "ready") == 3 and up.state("model-2").running, "a repair", 20, every_s=0.5
            )
            callers.busy = False
            await asyncio.gather(*work)
            callers.broken.clear()
            callers.busy = True
            work = [asyncio.create_task(callers.one(http)) for _ in range(2)]  # too few for three replicas
            await until_async(lambda: replicas(up, "stopped") == 3, "one replica after the load", 90, every_s=0.5)
            callers.busy = False
            await asyncio.gather(*work)
        return callers

    callers = asyncio.run(live())
    ours, theirs = acts_of(audit_of_autoscaler(up, up.project)), acts_of(list(up.audit()))

    assert callers.broken == [], "during the drains"
    assert callers.whole > 50
    assert value(up, "lab_autoscaler_cut_requests_total") == 0
    assert len(ours) >= 4
    assert [name for name, _, _ in theirs] == ["model-2"]
    assert [(a, b) for a in ours for b in theirs if a[0] == b[0] and a[1] <= b[2] and b[1] <= a[2]] == []
    assert value(up, 'count(ALERTS{alertname="ServiceDown",service=~"model-[34]"})') is None
    states = {name: state.running for name, state in up.states().items() if name.startswith("model-")}
    assert sum(states.values()) == 1, states
