"""The arrival process: each request leaves at its second, in a greenlet of its own, whatever became of the others."""

from __future__ import annotations

import gc
import json
import os
import secrets
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import gevent
from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from pytest_llmchaos.loadgen import answers
from pytest_llmchaos.loadgen.counts import Counts
from pytest_llmchaos.loadgen.plan import LoadPlan, own
from pytest_llmchaos.loadgen.recorder import Cpu, Lateness, Recorder, write_json
from pytest_llmchaos.loadgen.wire import Answer, Wire
from pytest_llmchaos.model import Outcome, Sample
from pytest_llmchaos.schedules import Arrival

BEAT_S = 0.25
FLUSH_S = 0.1
PUSH_TIMEOUT_S = 1.0
NICE = -10
# An arrival that was due this recently when the load was stopped is not held against the generator.
UNSENT_GRACE_S = 0.05
# After so many late arrivals in a row, let answers be read before the next one leaves.
MOST_AT_ONCE = 16

Ended = Literal["stopped", "schedule_end"]
OnRequest = Callable[[Sample, int], None]


def _hurry() -> None:
    """Where both share a machine, the experiment's clock must not wait behind the service under test. Needs root."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
        # Linux shares a core between sessions first, and only then among the processes of one.
        Path("/proc/self/autogroup").write_text(str(NICE), encoding="ascii")


class PushFailed(Exception):
    """The push gateway does not answer."""


class Driver:
    """One process' share of a load. `numbered` holds its arrivals with their place in the whole schedule."""

    def __init__(
        self,
        plan: LoadPlan,
        numbered: Sequence[tuple[int, Arrival]],
        directory: Path,
        on_request: OnRequest,
        worker: int | None = None,
    ) -> None:
        self._plan, self._numbered, self._directory, self._worker = plan, numbered, directory, worker
        self._on_request = on_request
        self._wire = Wire(plan.url)
        self._push = Wire(plan.push_url) if plan.push_url else None
        self._name = secrets.token_hex(4)
        head = {"Content-Type": "application/json", "Accept": "text/event-stream, application/json", **plan.headers}
        self._head = self._wire.head("POST", plan.path, head)
        # Temperature 0: what a model answers must not depend on anything that we do not record.
        settings = {"model": plan.model, "stream": plan.stream, "temperature": 0}
        self._body = json.dumps(settings, separators=(",", ":"))[:-1].encode()
        self._inflight: dict[int, tuple[float, Any]] = {}
        self._counts = Counts(lambda: len(self._inflight))
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self._counts)
        self._lateness = Lateness()
        self._recorder = Recorder(directory / own("samples.jsonl", worker), directory / own("status.jsonl", worker))
        self._cpu = Cpu()
        self._greenlets: list[Any] = []
        self._sent = self._shed = self._push_failures = 0
        self._t0_s = 0.0

    def prepare(self) -> None:
        """Everything that must be there before the first arrival. Raises PushFailed."""
        if self._plan.serve_port is not None:
            start_http_server(self._plan.serve_port, addr="127.0.0.1", registry=self._registry)
        if self._push is not None and not self._pushed(attempts=3):
            raise PushFailed(f"the push gateway at {self._plan.push_url} does not take the callers' counters")
        _hurry()
        self._wire.warm_up()
        # The schedule stays; without it, a collection takes microseconds instead of milliseconds.
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 50, 100)

    def begin(self, t0_monotonic_s: float) -> None:
        """Arrivals count from `t0_monotonic_s`, which lies a little ahead."""
        self._t0_s = t0_monotonic_s
        t0_unix_s = time.time() + (t0_monotonic_s - time.monotonic())
        self._cpu = Cpu()
        self._greenlets = [gevent.spawn(self._arrive), gevent.spawn(self._beat)]
        if self._push is not None:
            self._greenlets.append(gevent.spawn(self._push_often))
        started = {"t0_monotonic_s": t0_monotonic_s, "t0_unix_s": t0_unix_s, "pid": os.getpid()}
        write_json(self._directory / own("started.json", self._worker), started)

    def wait(self) -> None:
        """Until the last arrival has left."""
        self._greenlets[0].join()

    def finish(self) -> None:
        """No more arrivals; wait for answers for `drain_s`, then give the rest up. Leaves the summary."""
        if not self._greenlets:
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        ended: Ended = "schedule_end" if self._greenlets[0].dead else "stopped"
        stopped_s = time.monotonic() - self._t0_s
        self._greenlets[0].kill()
        gevent.joinall([greenlet for _, greenlet in self._inflight.values()], timeout=self._plan.drain_s)
        gevent.killall([greenlet for _, greenlet in self._inflight.values()], timeout=1.0)
        gevent.killall(self._greenlets, timeout=PUSH_TIMEOUT_S + 1.0)
        dispatched = self._sent + self._shed
        missed = sum(1 for _, arrival in self._numbered[dispatched:] if arrival.due_s <= stopped_s - UNSENT_GRACE_S)
        self._counts.offered += missed
        if self._push is not None:
            self._pushed(attempts=3)
        self._recorder.status(self._status())
        self._recorder.close()
        self._wire.close()
        summary = {
            "offered": self._counts.offered,
            "sent": self._sent,
            "shed": self._shed,
            "ended": ended,
            "done": sum(self._counts.outcomes.values()),
            "seconds": stopped_s,
            "push_failures": self._push_failures,
            "lateness_p99_s": self._lateness.p99_s(),
            "generator_cpu": self._cpu.on_the_whole(),
        }
        write_json(self._directory / own("summary.json", self._worker), summary)
        self._greenlets = []

    def _arrive(self) -> None:
        clock, t0_s, inflight, most = time.monotonic, self._t0_s, self._inflight, self._plan.max_inflight
        in_a_row = 0
        for index, arrival in self._numbered:
            wait_s = t0_s + arrival.due_s - clock()
            if wait_s > 0 or in_a_row == MOST_AT_ONCE:
                in_a_row = 0
                gevent.sleep(max(0.0, wait_s))
            in_a_row += 1
            self._counts.offered += 1
            if len(inflight) >= most:
                self._shed += 1
                continue
            self._sent += 1
            inflight[index] = (arrival.due_s, gevent.spawn(self._call, index, arrival))

    def _call(self, index: int, arrival: Arrival) -> None:
        due_s, t0_s = arrival.due_s, self._t0_s
        sent_s = time.monotonic() - t0_s
        self._lateness.add(max(0.0, sent_s - due_s))
        request_id = f"{self._name}-{index}"
        try:
            answer = self._wire.exchange(
                self._request(arrival, request_id),
                timeout_s=self._plan.timeout_s - (sent_s - due_s),
                stream=self._plan.stream,
            )
        except gevent.GreenletExit:
            end_s = time.monotonic() - t0_s
            self._ended(index, Sample(due_s, sent_s, None, end_s, 0.0, 0, "cancelled", "", request_id), 0)
            return
        outcome, tokens = self._verdict(answer, arrival)
        end_s = answer.end_s - t0_s
        first_s = None if answer.first_s is None else answer.first_s - t0_s
        if first_s is None and outcome == "ok":
            first_s = end_s
        gap_s = answer.max_gap_s
        if first_s is not None and outcome == "stalled":
            gap_s = max(gap_s, answer.end_s - answer.last_s)
        sample = Sample(due_s, sent_s, first_s, end_s, gap_s, tokens, outcome, answer.replica, request_id)
        self._ended(index, sample, len(answer.body))

    def _request(self, arrival: Arrival, request_id: str) -> bytes:
        prompt = json.dumps(arrival.prompt).encode()
        body = b'%b,"max_tokens":%d,"messages":[{"role":"user","content":%b}]}' % (
            self._body,
            arrival.max_tokens,
            prompt,
        )
        return b"%bX-Request-Id: %b\r\nContent-Length: %d\r\n\r\n%b" % (
            self._head,
            request_id.encode(),
            len(body),
            body,
        )

    def _verdict(self, answer: Answer, arrival: Arrival) -> answers.Verdict:
        at_once = answers.of_status(answer.status) if answer.status else None
        if answer.ended in ("refused", "garbled"):
            at_once = "refused" if answer.ended == "refused" else "corrupted"
        if at_once is not None:
            return answers.Verdict(at_once, 0)
        expected = answers.expected_text(self._plan.check, arrival.prompt, arrival.max_tokens)
        judge = answers.of_stream if self._plan.stream else answers.of_whole
        verdict = judge(bytes(answer.body), expected)
        if answer.ended == "complete" or verdict.outcome == "inband_error":
            return verdict
        if answer.ended == "cut":
            return answers.Verdict("cut", verdict.tokens)
        silent = answer.first_s is not None and answer.end_s - answer.last_s >= self._plan.stall_s
        return answers.Verdict("stalled" if silent else "timeout", verdict.tokens)

    def _ended(self, index: int, sample: Sample, size: int) -> None:
        self._inflight.pop(index, None)
        e2e_s = sample.e2e_s
        ttft_s = e2e_s if sample.first_s is None else sample.first_s - sample.due_s
        outcome: Outcome = sample.outcome
        is_good = outcome == "ok" and ttft_s <= self._plan.good_ttft_s and e2e_s <= self._plan.good_e2e_s
        self._counts.ended(outcome, ttft_s, e2e_s, is_good)
        self._recorder.add(sample)
        self._on_request(sample, size)

    def _beat(self) -> None:
        parent = os.getppid()
        while True:
            for _ in range(2):
                gevent.sleep(BEAT_S / 2)
                self._recorder.flush()
            self._recorder.status(self._status())
            if os.getppid() != parent:
                os.kill(os.getpid(), signal.SIGINT)

    def _status(self) -> dict[str, Any]:
        oldest = next(iter(self._inflight.values()), None)
        return {
            "at_s": round(time.monotonic() - self._t0_s, 6),
            "offered": self._counts.offered,
            "sent": self._sent,
            "done": sum(self._counts.outcomes.values()),
            "shed": self._shed,
            "inflight": len(self._inflight),
            "oldest_due_s": None if oldest is None else oldest[0],
            "outcomes": {name: count for name, count in self._counts.outcomes.items() if count},
            "lateness_p99_s": round(self._lateness.p99_s(), 6),
            "cpu": round(self._cpu.lately(), 4),
            "push_failures": self._push_failures,
        }

    def _push_often(self) -> None:
        while True:
            gevent.sleep(BEAT_S)
            self._pushed(attempts=1)

    def _pushed(self, attempts: int) -> bool:
        """Whether the gateway has the counters now. A missed push costs nothing: the next one carries all of it."""
        assert self._push is not None  # noqa: S101 - for the type checker: callers have looked
        group = "" if self._worker is None else f"/worker/{self._worker}"
        head = self._push.head("PUT", f"/metrics/job/load{group}", {"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})
        for _ in range(attempts):
            body = generate_latest(self._registry)
            request = b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body)
            if self._push.exchange(request, timeout_s=PUSH_TIMEOUT_S, stream=False).status in (200, 202):
                return True
            self._push_failures += 1
        return False
