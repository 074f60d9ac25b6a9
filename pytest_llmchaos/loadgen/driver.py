"""The arrival process: each request leaves on schedule in its own greenlet."""

from __future__ import annotations

import gc
import math
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import gevent
from gevent.event import Event
from prometheus_client import CollectorRegistry, start_http_server

from pytest_llmchaos.evidence import task_records
from pytest_llmchaos.host.ports import loopback
from pytest_llmchaos.loadgen.client import Client
from pytest_llmchaos.loadgen.load_plan import HURRY, LoadPlan, own
from pytest_llmchaos.loadgen.metrics import Counts
from pytest_llmchaos.loadgen.pushgateway import TIMEOUT_S as PUSH_TIMEOUT_S
from pytest_llmchaos.loadgen.pushgateway import Gateway
from pytest_llmchaos.loadgen.readiness import Readiness
from pytest_llmchaos.loadgen.recorder import Cpu, Lateness, Recorder, write_json
from pytest_llmchaos.loadgen.task_client import TaskClient
from pytest_llmchaos.loads.arrivals import Arrival
from pytest_llmchaos.model import Sample

BEAT_S = 0.25
NICE = -10
# An arrival that was due this recently at the stop does not count as unsent.
UNSENT_GRACE_S = 0.05
# After this many late arrivals in a row, read answers before sending the next request.
MOST_AT_ONCE = 16

OnRequest = Callable[[Sample, int], None]


def _hurry() -> None:
    """Raise priority, so that a busy service on this machine cannot delay arrivals.

    Needs root.
    """
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
        # Linux shares a core among sessions first, then among their processes.
        Path("/proc/self/autogroup").write_text(str(NICE), encoding="ascii")


class Driver:
    """One process' share of a load.

    `numbered` holds its arrivals with their places in the whole schedule.
    """

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
        self._client = (
            Client(plan)
            if plan.tasks is None
            else TaskClient(plan, plan.tasks, directory / own(task_records.NAME, worker))
        )
        self._inflight: dict[int, tuple[Arrival, Any]] = {}
        self._counts = Counts(lambda: len(self._inflight), load=plan.name)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self._counts)
        self._gateway = Gateway(plan.push_url, self._registry, worker) if plan.push_url else None
        self._lateness = Lateness()
        self._recorder = Recorder(directory / own("samples.jsonl", worker), directory / own("status.jsonl", worker))
        self._cpu = Cpu()
        self._greenlets: list[Any] = []
        self._pushing: list[Any] = []
        self._readiness: Readiness | None = None
        self._no_more_pushes = Event()
        self._sent = self._shed = 0
        self._stopped_s: float | None = None
        self._ended: Literal["stopped", "schedule_end"] = "stopped"
        # Read before the load reports its start, or a parent could die unnoticed.
        self.parent_pid = os.getppid()

    def prepare(self) -> None:
        """Set up everything that the first arrival needs. Raises PushFailed."""
        if self._plan.serve_port is not None:
            start_http_server(self._plan.serve_port, addr=loopback(), registry=self._registry)
        if self._gateway is not None:
            self._gateway.require()
        if self._plan.ready_path is not None and not self._worker:
            self._readiness = Readiness(self._plan, self._plan.ready_path, self._directory, self._now_s)
        _hurry()
        self._client.wire.warm_up()
        # The schedule stays. Without it a collection takes microseconds instead of ms.
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 50, 100)

    def begin(self, t0_monotonic_s: float) -> None:
        """Start the arrivals. Second 0 is `t0_monotonic_s`, a moment ahead."""
        self._client.t0_s = t0_monotonic_s
        t0_unix_s = time.time() + (t0_monotonic_s - time.monotonic())
        self._cpu = Cpu()
        self._greenlets = [gevent.spawn(self._arrive), gevent.spawn(self._beat)]
        if self._readiness is not None:
            self._greenlets.append(gevent.spawn(self._readiness.look_often))
        if self._gateway is not None:
            self._pushing = [gevent.spawn(self._push_often, self._gateway)]
        started = {"t0_monotonic_s": t0_monotonic_s, "t0_unix_s": t0_unix_s, "pid": os.getpid()}
        write_json(self._directory / own("started.json", self._worker), started)

    def wait(self) -> None:
        """Wait until the last request was sent, or `stop`."""
        self._greenlets[0].join()

    @property
    def is_stopped(self) -> bool:
        """True after `stop`."""
        return self._stopped_s is not None

    def stop(self) -> None:
        """Send no further request. Later calls do nothing."""
        if self._stopped_s is None and self._greenlets:
            self._stopped_s = self._now_s()
            self._ended = "schedule_end" if self._greenlets[0].dead else "stopped"
            self._greenlets[0].kill()

    def finish(self) -> None:
        """Stop arrivals, wait for open requests and write the summary."""
        if not self._greenlets:
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        self.stop()
        stopped_s = self._stopped_s or 0.0
        self._drain()
        gevent.killall([greenlet for _, greenlet in self._inflight.values()], timeout=1.0)
        # An aborted push could arrive after the last one, with older counts.
        self._no_more_pushes.set()
        gevent.joinall(self._pushing, timeout=2 * PUSH_TIMEOUT_S)
        gevent.killall([*self._greenlets, *self._pushing], timeout=2.0)
        for index, (arrival, _) in list(self._inflight.items()):
            # A greenlet that was killed before it started recorded no sample itself.
            self._end(index, self._client.given_up(index, arrival, self._now_s()), 0)
        unsent = self._numbered[self._sent + self._shed :]
        self._counts.offered += sum(1 for _, arrival in unsent if arrival.due_s <= stopped_s - UNSENT_GRACE_S)
        if self._gateway is not None:
            self._gateway.push(attempts=3)
        status = self._status()
        self._recorder.status(status)
        self._recorder.close()
        self._client.close()
        kept = ("offered", "sent", "done", "shed", "reconnected", "lateness_p99_s", "push_failures")
        summary = {
            **{name: status[name] for name in kept},
            "uncancelled": self._client.uncancelled,
            "seconds": stopped_s,
            "ended": self._ended,
            "generator_cpu": self._cpu.on_the_whole(),
        }
        write_json(self._directory / own("summary.json", self._worker), summary)
        self._greenlets = []

    def _drain(self) -> None:
        """Wait at most `drain_s` for open requests to end or exceed their limits.

        A younger request could still become good, so its outcome would be unknown.
        """
        deadline = time.monotonic() + self._plan.drain_s
        while (left_s := deadline - time.monotonic()) > 0 and not (self._directory / HURRY).exists():
            waiting = [
                greenlet
                for index, (arrival, greenlet) in self._inflight.items()
                if self._client.is_awaited(index, arrival)
            ]
            if not waiting:
                return
            gevent.joinall(waiting, timeout=min(BEAT_S / 2, left_s))

    def _now_s(self) -> float:
        return time.monotonic() - self._client.t0_s

    def _arrive(self) -> None:
        inflight, most = self._inflight, self._plan.max_inflight
        in_a_row = 0
        for index, arrival in self._numbered:
            wait_s = arrival.due_s - self._now_s()
            if wait_s > 0 or in_a_row == MOST_AT_ONCE:
                in_a_row = 0
                gevent.sleep(max(0.0, wait_s))
            in_a_row += 1
            self._counts.offered += 1
            if len(inflight) >= most:
                self._shed += 1
                continue
            self._sent += 1
            inflight[index] = (arrival, gevent.spawn(self._call, index, arrival))

    def _call(self, index: int, arrival: Arrival) -> None:
        sample, size = self._client.call(index, arrival)
        self._lateness.add(max(0.0, sample.sent_s - sample.due_s))
        self._end(index, sample, size)

    def _end(self, index: int, sample: Sample, size: int) -> None:
        del self._inflight[index]
        e2e_s = sample.e2e_s
        ttft_s = e2e_s if sample.first_s is None else sample.first_s - sample.due_s
        is_good = sample.outcome == "ok" and ttft_s <= self._plan.good_ttft_s and e2e_s <= self._plan.good_e2e_s
        self._counts.count_end(sample.outcome, ttft_s, e2e_s, is_good, sample.replica)
        self._recorder.add(sample)
        self._on_request(sample, size)

    def _beat(self) -> None:
        while True:
            # A full disk does not end this loop. The rest is written later.
            for _ in range(2):
                gevent.sleep(BEAT_S / 2)
                with suppress(OSError):
                    self._recorder.flush()
            with suppress(OSError):
                self._recorder.status(self._status())
            if os.getppid() != self.parent_pid:
                os.kill(os.getpid(), signal.SIGINT)

    def _push_often(self, gateway: Gateway) -> None:
        while not self._no_more_pushes.wait(BEAT_S):
            gateway.push()

    def _status(self) -> dict[str, Any]:
        at_s = self._now_s()
        dispatched = self._sent + self._shed
        # An open request is not settled, nor is one that is due and not sent yet.
        unsent_s = [round(at_s, 6), *(arrival.due_s for _, arrival in self._numbered[dispatched : dispatched + 1])]
        open_s = {index: arrival.due_s for index, (arrival, _) in self._inflight.items()}
        oldest_s = next(iter(open_s.values()), math.inf)
        overdue = {
            self._client.request_id(index): arrival.due_s
            for index, (arrival, _) in self._inflight.items()
            if self._client.overdue_s(index, arrival) > 0
        }
        mute_s = next((due_s for index, due_s in open_s.items() if not self._client.has_begun(index)), math.inf)
        return {
            "at_s": round(at_s, 6),
            "offered": self._counts.offered,
            "sent": self._sent,
            "done": sum(self._counts.outcomes.values()),
            "shed": self._shed,
            "reconnected": self._client.wire.reconnected,
            "inflight": len(self._inflight),
            "settled_s": min(oldest_s, *unsent_s),
            "begun_s": min(mute_s, *unsent_s),
            "overdue": overdue,
            "outcomes": {name: count for name, count in self._counts.outcomes.items() if count},
            "lateness_p99_s": round(self._lateness.p99_s(), 6),
            "cpu": round(self._cpu.lately(), 4),
            "push_failures": 0 if self._gateway is None else self._gateway.failures,
        }
