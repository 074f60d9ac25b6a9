"""A lab on a fake runtime, with fakes for Prometheus and the load."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from support.clock import Clock
from support.fake_runtime import FakeRuntime

from pytest_llmchaos.evidence.journal import Journal
from pytest_llmchaos.lab.lab import Lab
from pytest_llmchaos.prometheus.queries import Target
from pytest_llmchaos.subject.lab import lab_subject


class ClockedRuntime(FakeRuntime):
    """The fake on a test's clock, with Prometheus and a remediator to stop."""

    def __init__(self, clock: Any, **settings: Any) -> None:
        super().__init__(("api", "model-1", "model-2", "remediator", "prometheus"), **settings)
        self._time = clock

    def now(self) -> float:
        return float(self._time.time())

    def start_remediator(self) -> None:
        self.start("remediator")

    def stop_remediator(self) -> None:
        self.kill("remediator")


class Scraped:
    """Prometheus with a scrape of every job just now, and with a test's alerts."""

    def __init__(self, clock: Clock, jobs: Sequence[str]) -> None:
        self._clock, self.jobs = clock, list(jobs)
        self.is_ready = True
        self.alerts: list[str] = []

    def ready(self) -> bool:
        return self.is_ready

    def targets(self) -> tuple[Target, ...]:
        return tuple(scraped(job, at_unix_s=self._clock.time()) for job in self.jobs)

    def vector(self, query: str, at_unix_s: float, *, may_be_empty: bool = False) -> dict[Any, float]:
        assert self.alerts or may_be_empty
        return {(("alertname", name),): 1.0 for name in self.alerts}

    def clock_offset_s(self) -> float | None:
        return 0.0


def scraped(job: str, *, at_unix_s: float, up: bool = True) -> Target:
    return Target(job=job, service=job, url="http://it", up=up, last_error="", last_scrape_unix_s=at_unix_s)


@contextlib.contextmanager
def fake_lab(directory: Path, clock: Clock, runtime: FakeRuntime | None = None, **settings: Any) -> Iterator[Lab]:
    """A lab. Its progress is in `said`, with the seconds left."""
    with contextlib.closing(Journal(directory / "journal.jsonl")) as journal:
        made = Lab(
            runtime=runtime or ClockedRuntime(clock),
            subject=replace(lab_subject("sim"), pushgateway=None),
            journal=journal,
            directory=directory,
            **{"seed": 42, "say": lambda *_: None, "judge": lambda *_: None, **settings},
        )
        prometheus: Any = Scraped(clock, made.subject.scrape_jobs)
        made._prometheus = prometheus
        yield made


def load_of(**more: Any) -> Any:
    """A running load that is alive, and steady if its test wants."""
    about: dict[str, Any] = {"check_alive": lambda: None, "not_steady": lambda _: None, "t0_unix_s": 1_700_000_000.0}
    return SimpleNamespace(**{**about, **more})
