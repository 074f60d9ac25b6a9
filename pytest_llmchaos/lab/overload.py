"""A flood: clients on top of a trial's own, in a process of their own."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import Inconclusive, InvalidExperiment
from pytest_llmchaos.host import identity
from pytest_llmchaos.loadgen.process import LoadPlan, LoadProcess
from pytest_llmchaos.loads.arrivals import Arrival
from pytest_llmchaos.model import Proof

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_llmchaos.evidence.trial_record import Record
    from pytest_llmchaos.prometheus.queries import Prometheus
    from pytest_llmchaos.subject.lab import Subject

LONGEST_S = 600.0
# The flood is proven by the gateway's own count of requests, as Prometheus scraped it: not by the word of who sent them.
SEEN_SHARE = 0.5


class ProcessFlood:
    """One flood at a time of the subject's gateway. Its process is named in the trial's record."""

    def __init__(self, subject: Subject, url: str, record: Record, prometheus: Callable[[], Prometheus]) -> None:
        self._subject, self._url, self._record, self._prometheus = subject, url, record, prometheus
        self._process: LoadProcess | None = None
        self._rate_rps: float

    def start(self, service: str, times: float, max_tokens: int) -> None:
        """Its rate makes `times` the most that the backend serves, in answers of `max_tokens`."""
        subject = self._subject
        if service != subject.api:
            raise InvalidExperiment(f"only {subject.api} can be flooded, got {service!r}")
        if subject.requests_query is None:
            raise InvalidExperiment(
                f"a flood of {service} could not be proven: of the requests that arrive there, only the lab's are known"
            )
        self._rate_rps = times * (subject.peak_tokens_per_s or subject.capacity_tokens_per_s) / max_tokens
        count = math.ceil(self._rate_rps * LONGEST_S)
        words = "Count slowly from one to a hundred, one number after the other."
        arrivals = tuple(Arrival(i / self._rate_rps, f"{words} ({i})", max_tokens) for i in range(count))
        plan = LoadPlan(url=self._url, model=subject.model, arrivals=arrivals, timeout_s=10.0, drain_s=0.0)
        self._process = LoadProcess(plan, self._record.directory / "overload")
        self._process.start()
        pid = self._process.pid
        self._record.process(pid, identity.process_started(pid))

    def seen(self, service: str, since_unix_s: float) -> Proof | None:
        """Proof that requests arrive at the gateway at the flood's rate; None if Prometheus has not seen that yet."""
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
        return Proof(step="injected", witness=witness, at_unix_s=self._process.t0_unix_s)

    def gone(self) -> Proof | None:
        if self._process is not None and self._process.alive:
            return None
        return Proof(step="healed", witness="the flood's process has ended", at_unix_s=time.time())

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
