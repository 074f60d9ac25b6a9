"""A performed trial before its judgement: samples, Prometheus and fake runtime.

The Prometheus is real and holds the same requests as the samples. The api died at
`KILLED_S` on the trial's clock.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from support.fake_runtime import FakeRuntime
from support.prometheus_server import history

from pytest_llmchaos import experiment, faults, loads
from pytest_llmchaos.evidence import samples_file
from pytest_llmchaos.evidence.journal import Journal
from pytest_llmchaos.evidence.trial_record import ClockReading, PhaseBounds
from pytest_llmchaos.lab.injector import Injected
from pytest_llmchaos.lab.lab import Lab
from pytest_llmchaos.lab.live_load import RunningLoad
from pytest_llmchaos.loadgen.metrics import Counts
from pytest_llmchaos.loadgen.status import LoadSummary
from pytest_llmchaos.loads.arrivals import Arrival
from pytest_llmchaos.model import Injection, Outcome, RuntimeEvent, Sample
from pytest_llmchaos.plan.schedule import plan_trial
from pytest_llmchaos.subject.lab import lab_subject
from pytest_llmchaos.trial.own_load import judge_own_load

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_llmchaos.prometheus.queries import Prometheus

RATE_RPS = 20
KILLED_S, BACK_S, GOOD_S, REVERTED_S, END_S = 8.0, 8.4, 8.6, 14.0, 16.0
# Long enough for Prometheus to have the last counts on a slow machine.
AFTERWARDS_S = 240


ARRIVALS = [Arrival(due_s=i / RATE_RPS, prompt="hi", max_tokens=8) for i in range(round(END_S * RATE_RPS))]


def answered(wrong: Outcome = "refused") -> list[Sample]:
    """Return the clients' samples: refused while the api was dead, else 50 ms."""
    made = []
    for i, arrival in enumerate(ARRIVALS):
        due = arrival.due_s
        bad = KILLED_S <= due < GOOD_S
        first, end = (None, due + 0.001) if bad else (due + 0.03, due + 0.05)
        made.append(Sample(due, due, first, end, 0.0, 8, wrong if bad else "ok", f"model-{1 + i % 2}", f"r-{i}"))
    return made


@dataclass
class Gateway:
    """The api's own counters, which miss refused requests and restart at 0 with it."""

    counts_failures: bool = True
    times_failures: bool = True
    counts_each: int = 1  # number of times that it counts a request
    ok: int = 0
    failed: int = 0

    def count(self, outcome: Outcome) -> None:
        if outcome == "refused":
            self.ok = 0
        elif outcome == "ok":
            self.ok += 1
        else:
            self.failed += 1

    def series(self) -> dict[str, float]:
        target = 'job="api",instance="api:8000",service="api"'
        failed = self.failed * self.counts_failures
        found = {
            f'llmlab_requests_total{{outcome="ok",{target}}}': float(self.ok * self.counts_each),
            f'llmlab_requests_total{{outcome="upstream_5xx",{target}}}': float(failed * self.counts_each),
        }
        for what in ("request_duration", "time_to_first_token"):
            name = f"gen_ai_server_{what}_seconds"
            for le in ("2.0", "2.56", "5.12", "+Inf"):
                found[f'{name}_bucket{{error_type="",le="{le}",{target}}}'] = float(self.ok)
            found[f'{name}_count{{error_type="",{target}}}'] = float(self.ok)
            if self.failed and self.times_failures:  # the series starts with the first failure
                found[f'{name}_count{{error_type="upstream_5xx",{target}}}'] = float(self.failed)
        return found


def told(t0_unix_s: float, wrong: Outcome = "refused", gateway: Gateway | None = None) -> dict[str, dict[float, float]]:
    """Return the series that Prometheus scraped, with an alert and several jobs."""
    seen, counts, api = answered(wrong), Counts(lambda: 0), gateway or Gateway()
    series: dict[str, dict[float, float]] = {}
    for second in range(-2, round(END_S) + AFTERWARDS_S):
        at = t0_unix_s + second + 0.3
        while seen and t0_unix_s + seen[0].end_s <= at:
            one = seen.pop(0)
            counts.count_end(one.outcome, one.ttft_s or one.e2e_s, one.e2e_s, one.outcome == "ok")
            api.count(one.outcome)
        for name, value in api.series().items():
            series.setdefault(name, {})[at] = value
        for metric in counts.collect():
            for sample in metric.samples:
                shown = ",".join(f'{name}="{value}"' for name, value in sample.labels.items())
                series.setdefault(f"{sample.name}{{{shown}}}", {})[at] = sample.value
        for job in ("api", "model"):
            up = not (job == "api" and KILLED_S <= second < KILLED_S + 3)
            series.setdefault(f'up{{job="{job}",service="{job}"}}', {})[at] = float(up)
        if not KILLED_S <= second < KILLED_S + 4:
            series.setdefault('up{job="gap",service="gap"}', {})[at] = 1.0
        if KILLED_S + 1 <= second < KILLED_S + 4:
            firing = 'alertname="ServiceDown",alertstate="firing",service="api",severity="page"'
            series.setdefault(f"ALERTS{{{firing}}}", {})[at] = 1.0
    return series


@contextlib.contextmanager
def judge(
    directory: Path, wrong: Outcome = "refused", gateway: Gateway | None = None
) -> Iterator[tuple[Prometheus, float]]:
    """Return Prometheus with the trial's history, and its load's start."""
    t0_unix_s = time.time() - END_S - 5
    with history(directory, told(t0_unix_s, wrong, gateway)) as server:
        yield server, t0_unix_s


class Served(FakeRuntime):
    """A fake runtime in which only Prometheus answers."""

    def __init__(self, url: str, **more: Any) -> None:
        super().__init__(**more)
        self._url = url

    def url(self, service: str) -> str:
        return self._url if service == "prometheus" else "http://127.0.0.1:9"  # the discard port, which does not answer


class Performed:
    """The lab after a trial, complete for the judge. A test breaks one part of it."""

    def __init__(self, directory: Path, prometheus: Prometheus, t0_unix_s: float) -> None:
        self.runtime = Served(prometheus.url)
        subject = replace(lab_subject("sim"), remediator=None, scrape_jobs=("api", "model"))
        journal = Journal(directory / "journal.jsonl")
        self.lab = Lab(
            runtime=self.runtime,
            subject=subject,
            journal=journal,
            directory=directory,
            seed=42,
            say=lambda *_: None,
            judge=judge_own_load,
        )
        self.plan = plan_trial(
            scenario="gates",
            hypothesis="",
            experiment=experiment(load=loads.open_loop(rate_rps=RATE_RPS), fault=faults.kill("api")).kwargs[
                "experiment"
            ],
            fault=faults.kill("api"),
            repeat=0,
            seed=42,
            services=subject.targets,
        )
        self.seen = answered()
        self.clocks: list[tuple[str, float, float]] = []
        self.t0_unix_s = t0_unix_s
        self.injected = Injected()
        self.injected.acts = [Injection(after_s=0.0, fault=faults.kill("api").primitive, victim="api")]
        self.injected.start_unix_s = self.injected.last_unix_s = t0_unix_s + KILLED_S
        self.injected.reverted_unix_s = t0_unix_s + REVERTED_S
        self.runtime._events = [
            RuntimeEvent(at_unix_s=t0_unix_s + at_s, service="api", action=action)
            for at_s, action in ((KILLED_S, "die"), (BACK_S, "start"))
        ]
        self.summary = LoadSummary(
            offered=len(self.seen),
            sent=len(self.seen),
            done=len(self.seen),
            shed=0,
            offered_rps=RATE_RPS,
            achieved_ratio=1.0,
            lateness_p99_s=0.004,
            generator_cpu=0.2,
            push_failures=0,
            ended="stopped",
        )

    @contextlib.contextmanager
    def load(self) -> Iterator[tuple[Any, RunningLoad]]:
        """Yield the record and the load of this trial, both ended."""
        with self.lab.recording() as record:
            record.anchor(self.t0_unix_s, time.monotonic() - (time.time() - self.t0_unix_s))
            record.clocks = [ClockReading(clock=c, at_s=at_s, offset_s=off_s) for c, at_s, off_s in self.clocks]
            bounds = (("steady", 0.0, KILLED_S), ("fault", KILLED_S, REVERTED_S), ("recovery", REVERTED_S, END_S))
            record.phases = [PhaseBounds(name=name, from_s=a, to_s=b) for name, a, b in bounds]
            lines = [samples_file.HEADER + "\n", *map(samples_file.line, self.seen)]
            (record.directory / "samples.jsonl").write_text("".join(lines))
            running = RunningLoad(
                self.plan.experiment.load,
                ARRIVALS,
                runtime=self.runtime,
                subject=self.lab.subject,
                directory=record.directory,
            )
            running.summary = self.summary
            (record.directory / "summary.json").touch()  # written by every generator that was not killed
            yield record, running
