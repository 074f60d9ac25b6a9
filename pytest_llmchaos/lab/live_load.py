"""A load at work, as the gates of a trial need to see it: what came back lately, and whether that is good. It judges no claim."""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import EvidenceLost, LoadNotHeld, TooFewSamples
from pytest_llmchaos.evidence.trial_result import LoadResult
from pytest_llmchaos.loadgen.process import LoadPlan, LoadProcess, LoadStatus, LoadSummary
from pytest_llmchaos.model import Sample
from pytest_llmchaos.stats.recovery import clients_from
from pytest_llmchaos.stats.windows import Window, windows

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_llmchaos.loads import Arrival, Load
    from pytest_llmchaos.model import Runtime
    from pytest_llmchaos.subject.lab import Subject

MAX_LATENESS_P99_S = 0.050
MIN_ACHIEVED = 0.98
MAX_GENERATOR_CPU = 0.90
START_DEADLINE_S = 20.0


class RunningLoad:
    """The clients of one trial. Samples arrive as they end; each is kept once."""

    def __init__(
        self, load: Load, arrivals: Sequence[Arrival], *, runtime: Runtime, subject: Subject, directory: Path
    ) -> None:
        self._load = load
        self._directory = directory
        self.limits = load.latency_targets
        push = runtime.url(subject.pushgateway) if subject.pushgateway else None
        self._process = LoadProcess(
            LoadPlan(
                url=runtime.url(subject.api),
                model=subject.model,
                arrivals=tuple(arrivals),
                # Unique in a Prometheus that outlives the run, too.
                name=f"{directory.name}-{time.time():.3f}",
                check=subject.check,
                replica_header=subject.replica_header,
                ready_path=subject.ready_path,
                timeout_s=load.timeout_s,
                first_token=load.first_token,
                impatience=load.impatience,
                good_ttft_s=self.limits.ttft_s,
                good_e2e_s=self.limits.e2e_s,
                push_url=push,
            ),
            self._directory,
        )
        self.summary: LoadSummary | None = None
        self._ended_s: float | None = None
        self._due_s = [arrival.due_s for arrival in arrivals]

    def __repr__(self) -> str:
        return f"<load {self._load}: {self.status().done} answered>"

    def launch(self) -> None:
        """Let the generator get ready; it sends nothing before `start`."""
        self._process.launch()

    def start(self) -> None:
        self._process.start(START_DEADLINE_S)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def t0_unix_s(self) -> float:
        return self._process.t0_unix_s

    @property
    def t0_monotonic_s(self) -> float:
        return self._process.t0_monotonic_s

    def now_s(self) -> float:
        """Seconds since the start of the load; of one that is over, to its end."""
        if self._ended_s is not None:
            return self._ended_s
        return max(0.0, self._process.now_s())  # second 0 lies a moment ahead when the load has just started

    def status(self) -> LoadStatus:
        return self._process.status()

    def check_alive(self) -> None:
        """Raises LoadNotHeld if the generator died or came to the end of its schedule: silence is not a good service."""
        if self.summary is None and not self._process.alive:
            self._require_room()
            raise LoadNotHeld("the load generator ended before the trial did; see load.log in the trial's folder")

    def recent(self, since_s: float) -> list[Sample]:
        """The samples so far of requests due at or after `since_s`."""
        return self._process.recent(since_s)

    def live_window(self, seconds: float) -> Window:
        """The last `seconds` as their clients saw them, by due time; of a load that is over, the last of it.

        A request that is still open and older than its own limits is `unfinished`, and failed: of a service that hangs
        there is no other. While the load runs, younger ones are left out, and no number of requests is asked for.
        """
        return self._last(seconds, is_live=self.summary is None)

    def _last(self, seconds: float, *, is_live: bool) -> Window:
        now = self.now_s()
        first = max(0.0, now - seconds)
        status = self.status()  # before the samples: a request that ends in between has one
        seen = self.recent(first)
        ended = {sample.request_id for sample in seen}
        seen += [
            Sample(due_s, due_s, None, status.at_s, 0.0, 0, "unfinished", "", request_id)
            for request_id, due_s in status.overdue.items()
            if due_s >= first and request_id not in ended
        ]
        part = (f"in the last {now - first:.3g} s", first, now)
        (window,) = windows(seen, [part], limits=self.limits, is_live=is_live)
        return window

    def not_steady(self, steady_s: float) -> str | None:
        """Why the last `steady_s` seconds were not good; None if they were.

        Half of the requests that were due must have been answered, and none may wait for longer than a good one does:
        silence is not steady.
        """
        now = self.now_s()
        if now < steady_s:
            return f"only {now:.1f} s of load so far"
        window = self._last(steady_s, is_live=True)
        least = max(2, (self.due_between(now - steady_s, now) - int(window.left)) // 2)
        if window.offered < least:
            return f"{window.offered} answers in {steady_s:g} s, at least {least} expected"
        bad = window.offered - int(window.good)
        if bad:
            return f"{bad} of {window.offered} requests of the last {steady_s:g} s were bad ({dict(window.outcomes)})"
        return self._overdue()

    def _overdue(self) -> str | None:
        """What the oldest request under way has waited for too long to be good any more; None if it has not."""
        status, limits = self.status(), self.limits
        for what, since_s, limit_s in (
            ("its first token", status.begun_s, limits.ttft_s),
            ("the end of its answer", status.settled_s, limits.e2e_s),
        ):
            if status.at_s - since_s > limit_s:
                return f"a request has waited {status.at_s - since_s:.1f} s for {what}, at most {limit_s:g} s are good"
        return None

    def recovery_s(self, from_s: float, stable_s: float) -> float | None:
        """Second at which the service became good and has stayed so for `stable_s`; None if it is not so now.

        Nothing later than the oldest unanswered request is known to be good.
        """
        samples = self.recent(from_s)
        return clients_from(samples, from_s, stable_s, self.limits, self.status().settled_s).good_s

    def replicas_answering(self, since_s: float) -> set[str]:
        """The replicas that gave a whole answer to a request due at or after `since_s`."""
        return {sample.replica for sample in self.recent(since_s) if sample.outcome == "ok"}

    def due_between(self, from_s: float, to_s: float) -> int:
        """Arrivals that the schedule has there."""
        return bisect_left(self._due_s, to_s) - bisect_left(self._due_s, from_s)

    def stop(self, *, drain: bool = True) -> LoadSummary:
        """End the load. `drain`: wait until it is known what became of open requests, which only a judge needs."""
        if self.summary is None:
            with suppress(LoadNotHeld):  # of one that was never started
                self._ended_s = self.now_s()
            self.summary = self._process.stop(drain=drain)
        return self.summary

    def require_held(self) -> LoadResult:
        """The generator's own health. Raises LoadNotHeld if it ran late, sent too little or had no core to itself."""
        summary = self.stop()
        if not self._process.has_all_summaries:
            self._require_room()
            raise LoadNotHeld("the load generator left no summary, so it died; see load.log in the trial's folder")
        about = LoadResult(
            offered_rps=summary.offered_rps,
            achieved_ratio=summary.achieved_ratio,
            lateness_p99_s=summary.lateness_p99_s,
            generator_cpu=summary.generator_cpu,
            reconnected=summary.reconnected,
        )
        if summary.shed:
            # They left no sample, and it is in an outage that too many wait at once: what remains would look better.
            raise LoadNotHeld(
                f"{summary.shed} requests were not sent, because too many were under way at once: lower rate_rps or timeout_s"
            )
        if summary.achieved_ratio < MIN_ACHIEVED:
            raise LoadNotHeld(
                f"the load sent {summary.achieved_ratio:.1%} of its schedule, at least {MIN_ACHIEVED:.0%} needed: lower rate_rps"
            )
        if summary.lateness_p99_s > MAX_LATENESS_P99_S:
            raise LoadNotHeld(
                f"the load ran late: p99 {summary.lateness_p99_s:.3g} s, at most {MAX_LATENESS_P99_S:g} s allowed: "
                "lower rate_rps or free a core"
            )
        if summary.generator_cpu > MAX_GENERATOR_CPU:
            raise LoadNotHeld(
                f"the load generator used {summary.generator_cpu:.0%} of its core, at most {MAX_GENERATOR_CPU:.0%} allowed"
            )
        return about

    def _require_room(self) -> None:
        """Raises EvidenceLost if the samples' disk is full: a generator that cannot write says so nowhere else."""
        if not os.statvfs(self._directory).f_bavail:
            raise EvidenceLost(f"the clients' samples cannot be written to {self._directory}: its disk is full")

    def offered_rps(self) -> float:
        """Arrivals a second that the schedule asks for around now."""
        now = self.now_s()
        span_s = min(5.0, max(0.1, now))
        return self.due_between(now - span_s, now) / span_s

    def recent_p95_s(self, live: Window) -> float | None:
        """p95 of the live window's whole answers; None where too few came back to say."""
        try:
            return float(live.e2e_s.p95)
        except TooFewSamples:
            return None
