"""The running load: its recent samples and whether they meet the limits."""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import EvidenceLost, LoadNotHeld
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
DRAIN_S = 30.0


class RunningLoad:
    """The clients of one load, as `lab.load(...)` yields them.

    Attributes:
        limits: the latency limits of a good request, in seconds.
        summary: figures of the whole load, None while it runs.
    """

    def __init__(
        self, load: Load, arrivals: Sequence[Arrival], *, runtime: Runtime, subject: Subject, directory: Path
    ) -> None:
        """Created by `Lab.load`.

        `directory` keeps the samples and the generator's log.
        """
        self._load = load
        self._directory = directory
        self.limits = load.latency_targets
        push = runtime.url(subject.pushgateway) if subject.pushgateway else None
        self._process = LoadProcess(
            LoadPlan(
                url=subject.requests.address(runtime.url(subject.api)),
                model=subject.model,
                requests=subject.requests.with_headers(load.headers),
                arrivals=tuple(arrivals),
                # Unique even in a Prometheus that outlives the run.
                name=f"{directory.name}-{time.time():.3f}",
                check=subject.check,
                replica_header=subject.replica_header,
                ready_path=subject.ready_path,
                timeout_s=load.timeout_s,
                idle_timeout_s=load.idle_timeout_s,
                first_token=load.first_token,
                impatience=load.impatience,
                tasks=load.tasks,
                good_ttft_s=self.limits.ttft_s,
                good_e2e_s=self.limits.e2e_s,
                push_url=push,
                drain_s=max(DRAIN_S, load.tasks.task_s) if load.tasks is not None else DRAIN_S,
            ),
            self._directory,
        )
        self.summary: LoadSummary | None = None
        self._ended_s: float | None = None
        self._due_s = [arrival.due_s for arrival in arrivals]

    def __repr__(self) -> str:
        return f"<load {self._load}: {self.status().done} answered>"

    def launch(self) -> None:
        """Start the generator's process. It waits for `start` before it sends."""
        self._process.launch()

    def start(self) -> None:
        """Begin sending requests."""
        self._process.start(START_DEADLINE_S)

    @property
    def pid(self) -> int:
        """Process id of the load generator."""
        return self._process.pid

    @property
    def t0_unix_s(self) -> float:
        """Unix time of second 0 of the load."""
        return self._process.t0_unix_s

    @property
    def t0_monotonic_s(self) -> float:
        """Monotonic time of second 0 of the load, in seconds."""
        return self._process.t0_monotonic_s

    def now_s(self) -> float:
        """Seconds since the start of the load, up to its end."""
        if self._ended_s is not None:
            return self._ended_s
        return max(0.0, self._process.now_s())  # second 0 is a moment ahead when the load has just started

    def status(self) -> LoadStatus:
        """Counts of sent and answered requests, and the oldest open ones."""
        return self._process.status()

    def check_alive(self) -> None:
        """Check that the generator still runs.

        Raises:
            LoadNotHeld: it died, or its schedule ended before the block did.
            EvidenceLost: the samples' disk is full.
        """
        if self.summary is None and not self._process.alive:
            self._require_room()
            raise LoadNotHeld("the load generator ended before the trial did; see load.log in the trial's folder")

    def recent(self, since_s: float) -> list[Sample]:
        """Return the finished requests of a part of the load, so far.

        Args:
            since_s: earliest due time, in seconds since the start of the load.
        """
        return self._process.recent(since_s)

    def ended(self, since_s: float) -> list[Sample]:
        """Return the requests that ended in a part of the load, so far.

        Args:
            since_s: earliest end, in seconds since the start of the load.
        """
        return self._process.ended(since_s)

    def live_window(self, seconds: float) -> Window:
        """Return the last seconds of the load as its clients saw them, by due time.

        An open request that is older than its limits counts as failed, with the outcome
        `unfinished`: a service that hangs shows in nothing else. While the load runs,
        younger open requests are left out, and no minimum number of requests is
        required.

        Args:
            seconds: length of the window, in seconds.

        Returns:
            The window. It ends now, or at the end of a load that is over.
        """
        return self._last(seconds, is_live=self.summary is None)

    def _last(self, seconds: float, *, is_live: bool) -> Window:
        now = self.now_s()
        first = max(0.0, now - seconds)
        seen = self._with_overdue(lambda: self.recent(first))
        part = (f"in the last {now - first:.3g} s", first, now)
        (window,) = windows(seen, [part], limits=self.limits, is_live=is_live)
        return window

    def _with_overdue(self, ended: Callable[[], list[Sample]]) -> list[Sample]:
        """Return ended requests, and the open ones that are older than their limits."""
        status = self.status()  # before the samples, so that a request that ends in between has one
        seen = ended()
        known = {sample.request_id for sample in seen}
        return seen + [
            Sample(due_s, due_s, None, status.at_s, 0.0, 0, "unfinished", "", request_id)
            for request_id, due_s in status.overdue.items()
            if request_id not in known
        ]

    def not_steady(self, steady_s: float) -> str | None:
        """Return why the service is not steady, or None if it is.

        At least half as many requests must end as are due, each with a good answer,
        and no open request may be older than its limits. So silence is not steady. When
        an answer began does not count: it may take longer than the window.

        Args:
            steady_s: length of the window, in seconds up to now.
        """
        now = self.now_s()
        if now < steady_s:
            return f"only {now:.1f} s of load so far"
        seen = self._with_overdue(lambda: self.ended(now - steady_s))
        (window,) = windows(seen, [("steady", 0.0, now)], limits=self.limits, is_live=True)
        least = max(2, (self.due_between(now - steady_s, now) - int(window.left)) // 2)
        if window.offered < least:
            still_open = self.status().inflight
            still = f" ({still_open} requests are open)" if still_open else ""
            return f"{window.offered} answers in {steady_s:g} s, at least {least} expected{still}"
        bad = window.offered - int(window.good)
        if bad:
            return f"{bad} of {window.offered} requests of the last {steady_s:g} s were bad ({dict(window.outcomes)})"
        return self._overdue()

    def _overdue(self) -> str | None:
        """Describe the oldest open request if it is older than a limit, else None."""
        status, limits = self.status(), self.limits
        for what, since_s, limit_s in (
            ("its first token", status.begun_s, limits.ttft_s),
            ("the end of its answer", status.settled_s, limits.e2e_s),
        ):
            if status.at_s - since_s > limit_s:
                return f"a request has waited {status.at_s - since_s:.1f} s for {what}, at most {limit_s:g} s are good"
        return None

    def recovery_s(self, from_s: float, stable_s: float) -> float | None:
        """Return the second at which the service became good, or None if it is not.

        Answers after the oldest open request do not count as good yet.

        Args:
            from_s: second from which to look.
            stable_s: seconds for which the service must have stayed good.
        """
        samples = self.recent(from_s)
        return clients_from(samples, from_s, stable_s, self.limits, self.status().settled_s).good_s

    def replicas_answering(self, since_s: float) -> set[str]:
        """Return the names of the replicas that completed a request.

        Args:
            since_s: earliest due time, in seconds since the start of the load.
        """
        return {sample.replica for sample in self.recent(since_s) if sample.outcome == "ok"}

    def due_between(self, from_s: float, to_s: float) -> int:
        """Return the number of scheduled requests in a part of the load.

        Args:
            from_s: first second, included.
            to_s: last second, excluded.
        """
        return bisect_left(self._due_s, to_s) - bisect_left(self._due_s, from_s)

    def stop(self, *, drain: bool = True) -> LoadSummary:
        """End the load.

        Args:
            drain: wait for open requests first, which a load that is judged needs.

        Returns:
            Figures of the whole load.
        """
        if self.summary is None:
            with suppress(LoadNotHeld):  # of one that was never started
                self._ended_s = self.now_s()
            self.summary = self._process.stop(drain=drain)
        return self.summary

    def require_held(self) -> LoadResult:
        """End the load and check the load generator itself.

        Raises:
            LoadNotHeld: it ran late, sent too few requests, or lacked CPU.
            EvidenceLost: the samples' disk is full.
        """
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
            # They leave no sample, mostly in an outage, so the rest looks too good.
            raise LoadNotHeld(
                f"{summary.shed} requests were not sent, because too many were open at once: lower rate_rps or timeout_s"
            )
        if summary.achieved_ratio < MIN_ACHIEVED:
            raise LoadNotHeld(
                f"the load sent {summary.achieved_ratio:.1%} of its schedule, expected at least {MIN_ACHIEVED:.0%}: "
                "lower rate_rps"
            )
        if summary.lateness_p99_s > MAX_LATENESS_P99_S:
            raise LoadNotHeld(
                f"the load ran late: p99 {summary.lateness_p99_s:.3g} s, expected at most {MAX_LATENESS_P99_S:g} s: "
                "lower rate_rps or free a core"
            )
        if summary.generator_cpu > MAX_GENERATOR_CPU:
            raise LoadNotHeld(
                f"the load generator used {summary.generator_cpu:.0%} of its core, expected at most "
                f"{MAX_GENERATOR_CPU:.0%}: lower rate_rps or free a core"
            )
        return about

    def _require_room(self) -> None:
        """Raises EvidenceLost if the samples' disk is full.

        The generator cannot report it.
        """
        if not os.statvfs(self._directory).f_bavail:
            raise EvidenceLost(f"the clients' samples cannot be written to {self._directory}: its disk is full")

    def offered_rps(self) -> float:
        """Requests a second that the schedule had in the last 5 s."""
        now = self.now_s()
        span_s = min(5.0, max(0.1, now))
        return self.due_between(now - span_s, now) / span_s
