"""The overload fault's flood of requests, sent by a second load generator."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import Inconclusive, InvalidExperiment
from pytest_llmchaos.host import identity
from pytest_llmchaos.loadgen.process import LoadPlan, LoadProcess
from pytest_llmchaos.loads.arrivals import Arrival
from pytest_llmchaos.model import Proof
from pytest_llmchaos.servers.canonical import BY_KEY

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_llmchaos.evidence.trial_record import Record
    from pytest_llmchaos.prometheus.queries import Prometheus
    from pytest_llmchaos.subject.lab import Subject

LONGEST_S = 600.0
# The proof is the gateway's own request count in Prometheus, not the sender's count.
SEEN_SHARE = 0.5
# What the engines serve by their own counters, over the first seconds of the flood.
_OF_ENGINES = (
    (f"sum(rate({BY_KEY['tokens_out'].name}[3s]))", "{:.0f} output tokens/s"),
    (f"sum({BY_KEY['waiting'].name})", "{:.0f} requests wait"),
)


class ProcessFlood:
    """One flood of the subject's gateway at a time. The record lists its process."""

    def __init__(self, subject: Subject, url: str, record: Record, prometheus: Callable[[], Prometheus]) -> None:
        self._subject, self._url, self._record, self._prometheus = subject, url, record, prometheus
        self._process: LoadProcess | None = None
        self._rate_rps: float

    def start(self, service: str, times: float, max_tokens: int) -> None:
        """Offer `times` the backend's peak throughput, `max_tokens` per request."""
        subject = self._subject
        if service != subject.api:
            raise InvalidExperiment(f"only {subject.api} can be flooded, got {service!r}")
        if subject.requests_query is None:
            raise InvalidExperiment(
                f"a flood of {service} cannot be proven: this stack has no query for the requests that arrive there"
            )
        self._rate_rps = times * (subject.peak_tokens_per_s or subject.capacity_tokens_per_s) / max_tokens
        count = math.ceil(self._rate_rps * LONGEST_S)
        words = "Count slowly from one to a hundred, one number after the other."
        arrivals = tuple(Arrival(i / self._rate_rps, f"{words} ({i})", max_tokens) for i in range(count))
        plan = LoadPlan(
            url=subject.requests.address(self._url),
            model=subject.model,
            requests=subject.requests,
            arrivals=arrivals,
            timeout_s=10.0,
            drain_s=0.0,
        )
        self._process = LoadProcess(plan, self._record.directory / "overload")
        self._process.start()
        pid = self._process.pid
        self._record.process(pid, identity.process_started(pid))

    def seen(self, service: str, since_unix_s: float) -> Proof | None:
        """Proof in Prometheus that requests arrive at the flood's rate, else None."""
        now = time.time()
        if self._process is None or now - since_unix_s < 3:
            return None
        try:
            seen = self._prometheus().value(str(self._subject.requests_query), now)
        except Inconclusive:
            return None
        if seen < SEEN_SHARE * self._rate_rps:
            return None
        witness = f"Prometheus: {service} sees {seen:.0f} requests/s or waiting, {self._rate_rps:.0f}/s are sent"
        return Proof(step="injected", witness=witness + self._engines_report(now), at_unix_s=self._process.t0_unix_s)

    def _engines_report(self, now_unix_s: float) -> str:
        """Return what the engines generate and whether requests wait there.

        Empty without these metrics. The flood is proven without them, since no request
        waits at an engine behind a gateway with a queue of its own.
        """
        reports = []
        for query, text in _OF_ENGINES:
            with suppress(Inconclusive):
                reports.append(text.format(self._prometheus().value(query, now_unix_s)))
        return f"; the engines: {', '.join(reports)}" if reports else ""

    def gone(self) -> Proof | None:
        """Proof that the flood has ended, or None."""
        if self._process is not None and self._process.alive:
            return None
        return Proof(step="healed", witness="the flood's process has ended", at_unix_s=time.time())

    def stop(self) -> None:
        """End the flood."""
        if self._process is not None:
            self._process.stop()
