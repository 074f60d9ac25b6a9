"""The load generator's process: start, status, samples, stop and cleanup."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pytest_llmchaos.errors import LoadNotHeld, NotReady
from pytest_llmchaos.evidence import readiness_file, task_records
from pytest_llmchaos.evidence.redaction import redact_file
from pytest_llmchaos.host.import_root import import_root
from pytest_llmchaos.host.ports import loopback
from pytest_llmchaos.loadgen.load_plan import (
    DIRECTORY_VARIABLE,
    GO,
    HEADERS_VARIABLE,
    HURRY,
    LoadPlan,
    header_variable,
    own,
)
from pytest_llmchaos.loadgen.status import LoadStatus, LoadSummary, status_of, summary_of
from pytest_llmchaos.loadgen.tail import SamplesTail, Tail, merge
from pytest_llmchaos.loads.arrivals import Arrival
from pytest_llmchaos.model import Sample

__all__ = ["Arrival", "LoadPlan", "LoadProcess", "LoadStatus", "LoadSummary"]

LOCUSTFILE = Path(__file__).with_name("locustfile.py")
LOG = "load.log"
POLL_S = 0.005


class LoadProcess:
    """One load. As a context manager it starts at once and always ends with the block.

    Attributes:
        plan: the load.
        directory: the folder of the plan, the samples and the log.
    """

    def __init__(self, plan: LoadPlan, directory: Path) -> None:
        self.plan, self.directory = plan, directory.absolute()
        self._workers: list[int | None] = [None] if plan.processes == 1 else list(range(plan.processes))
        self._process: subprocess.Popen[bytes] | None = None
        self._ending: Any = None
        self._started: dict[str, float] = {}
        self._stopped_s: float | None = None
        self._summary: LoadSummary | None = None
        self._samples = SamplesTail([directory / own("samples.jsonl", w) for w in self._workers])
        self._status = [Tail(directory / own("status.jsonl", w)) for w in self._workers]
        self._latest: list[dict[str, Any]] = [{} for _ in self._workers]
        self._settled_s = 0.0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(drain=kind is None)

    def launch(self) -> None:
        """Start the program without waiting for it.

        It sends no request before `start`.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        for word in (GO, HURRY):
            (self.directory / word).unlink(missing_ok=True)
        for worker in self._workers:
            for name in ("started.json", "summary.json", "samples.jsonl", "status.jsonl", task_records.NAME):
                (self.directory / own(name, worker)).unlink(missing_ok=True)
        (self.directory / readiness_file.NAME).unlink(missing_ok=True)
        self.plan.write(self.directory, os.getpid())
        with (self.directory / LOG).open("wb") as log:
            self._process = subprocess.Popen(
                self._command(),
                cwd=self.directory,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._ending = weakref.finalize(self, _kill_group, self._process.pid)

    def start(self, deadline_s: float = 20.0) -> None:
        """Start the requests and wait until second 0 is set.

        Raises NotReady with the end of the log if that takes longer than `deadline_s`.
        """
        if self._process is None:
            self.launch()
        process = self._running()
        (self.directory / GO).touch()
        deadline = time.monotonic() + deadline_s
        files = [self.directory / own("started.json", worker) for worker in self._workers]
        while not all(file.exists() for file in files):
            code = process.poll()
            if code is not None or time.monotonic() > deadline:
                why = f"within {deadline_s:g} s" if code is None else f"and ended with status {code}"
                self._end()
                raise NotReady(f"the load generator did not start {why}; the end of its log:\n{self._end_of_log()}")
            time.sleep(POLL_S)
        self._started = json.loads(files[0].read_text())

    @property
    def pid(self) -> int:
        """Process id of the generator. Raises LoadNotHeld before `launch`."""
        return self._running().pid

    @property
    def t0_monotonic_s(self) -> float:
        """Second 0 of the load on the monotonic clock."""
        return self._clock()["t0_monotonic_s"]

    @property
    def t0_unix_s(self) -> float:
        """Second 0 of the load as Unix time."""
        return self._clock()["t0_unix_s"]

    def _clock(self) -> dict[str, float]:
        if not self._started:
            raise LoadNotHeld("the load has not started: call start() first")
        return self._started

    def now_s(self) -> float:
        """Seconds since the start of the load, on the samples' clock."""
        return time.monotonic() - self.t0_monotonic_s

    @property
    def alive(self) -> bool:
        """True while the process runs."""
        return self._process is not None and self._process.poll() is None

    def status(self) -> LoadStatus:
        """The newest status of all workers."""
        self._look()
        lines = [line for line in self._latest if line]
        return status_of(lines, self._settled_s) if lines else LoadStatus(outcomes={})

    def recent(self, since_s: float) -> list[Sample]:
        """Samples so far of requests that were due at or after `since_s`."""
        with self._settling():
            return self._samples.recent(since_s)

    def ended(self, since_s: float) -> list[Sample]:
        """Samples so far of requests that ended at or after `since_s`."""
        with self._settling():
            return self._samples.ended(since_s)

    @contextmanager
    def _settling(self) -> Iterator[None]:
        """Note what was settled before the samples are read in the block."""
        self._look()
        settled_s = self._summary_settled_s()
        yield
        self._settled_s = settled_s

    def stop(self, *, drain: bool = True) -> LoadSummary:
        """End the load and its processes. Later calls return the same summary.

        `drain` waits for open requests to end or to exceed their limits.
        """
        if self._summary is None:
            process = self._running()
            if not drain:
                (self.directory / HURRY).touch()
            self._stopped_s = self.now_s() if self._started else 0.0
            patience_s = self.plan.drain_s + 5.0 + (3.0 if self.plan.processes > 1 else 0.0)
            for number, wait_s in ((signal.SIGINT, patience_s), (signal.SIGTERM, 2.0)):
                if process.poll() is None and self._started:
                    process.send_signal(number)
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(wait_s)
            self._end()
            if self.plan.processes > 1:
                merge(self._samples.paths, self.directory / "samples.jsonl")
                if self.plan.tasks is not None:
                    files = [self.directory / own(task_records.NAME, worker) for worker in self._workers]
                    task_records.merge(files, self.directory / task_records.NAME)
            self._summary = summary_of(
                [self._read_summary(worker, place) for place, worker in enumerate(self._workers)]
            )
        return self._summary

    @property
    def has_all_summaries(self) -> bool:
        """False if a worker wrote no summary, because it died or its disk was full."""
        return all((self.directory / own("summary.json", worker)).exists() for worker in self._workers)

    def _read_summary(self, worker: int | None, place: int) -> dict[str, Any]:
        """A worker's summary.

        For a dead worker, due requests that it did not send count.
        """
        file = self.directory / own("summary.json", worker)
        if file.exists():
            return dict(json.loads(file.read_text()))
        self._look()
        line = self._latest[place]
        stopped_s = self._stopped_s or 0.0
        share = self.plan.arrivals[place :: self.plan.processes] if self._started else ()
        return {
            "offered": sum(1 for arrival in share if arrival.due_s <= stopped_s),
            "seconds": stopped_s,
            "ended": "stopped",
            "generator_cpu": line.get("cpu", 0.0),
            **{
                name: line.get(name, 0)
                for name in ("sent", "done", "shed", "reconnected", "push_failures", "lateness_p99_s")
            },
        }

    def _summary_settled_s(self) -> float:
        return min(float(line.get("settled_s", 0.0)) for line in self._latest)

    def _look(self) -> None:
        for place, tail in enumerate(self._status):
            *_, last = [b"", *tail.lines().splitlines()]
            if last:
                self._latest[place] = json.loads(last)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise LoadNotHeld("the load has not started: call start() first")
        return self._process

    def _end(self) -> None:
        if self._process is not None:
            self._ending()
            self._process.wait()
            redact_file(self.directory / LOG)

    def _end_of_log(self) -> str:
        lines = (self.directory / LOG).read_text(errors="replace").strip().splitlines()
        return "\n".join(lines[-15:]) or "(none)"

    def _command(self) -> list[str]:
        plan = self.plan
        command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--only-summary"]
        command += ["--users", str(plan.processes), "--spawn-rate", str(plan.processes), "--exit-code-on-error", "0"]
        if plan.processes > 1:
            host = loopback()
            port = str(_free_port(host))
            command += ["--processes", str(plan.processes), "--master-bind-host", host]
            command += ["--master-bind-port", port, "--master-host", host, "--master-port", port]
        return command

    def _environment(self) -> dict[str, str]:
        # Locust also reads options from these variables of the user.
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("LOCUST_") and name != HEADERS_VARIABLE
        }
        package = str(import_root())
        paths = [package, *filter(None, [kept.get("PYTHONPATH")])]
        return {
            **kept,
            "PYTHONPATH": os.pathsep.join(paths),
            DIRECTORY_VARIABLE: str(self.directory),
            **header_variable(self.plan.requests.headers),
        }


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
