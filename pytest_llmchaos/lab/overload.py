"""The ability to flood a service with requests, added to whatever runtime there is. Everything else is handed through."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from pytest_llmchaos.errors import Inconclusive, InvalidExperiment
from pytest_llmchaos.host import identity
from pytest_llmchaos.loadgen.process import LoadPlan, LoadProcess
from pytest_llmchaos.loads.arrivals import Arrival
from pytest_llmchaos.model import Proof, Undo

if TYPE_CHECKING:
    from pytest_llmchaos.lab.lab import Lab

OWN_ABILITIES = frozenset({"overload"})
LONGEST_S = 600.0
# The flood is proven by the gateway's own count of requests, as Prometheus scraped it: not by the word of who sent them.
SEEN_SHARE = 0.5


class Floodable:
    """A runtime with the ability `overload`."""

    def __init__(self, runtime: Any, lab: Lab) -> None:
        self._runtime = runtime
        self._lab = lab
        self._flood: LoadProcess | None = None
        self._rate_rps = 0.0

    def __repr__(self) -> str:
        return repr(self._runtime)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runtime, name)

    @property
    def abilities(self) -> frozenset[str]:
        can: frozenset[str] = self._runtime.abilities
        return can | OWN_ABILITIES

    def overload(self, victim: str, times: float, max_tokens: int) -> None:
        """Start the flood. Its rate makes `times` the most that the backend serves, in answers of `max_tokens`."""
        lab, record = self._lab, self._lab.record
        if victim != lab.subject.api or record is None:
            raise InvalidExperiment(f"only {lab.subject.api} can be flooded, and only under a load; got {victim!r}")
        self._rate_rps = times * (lab.subject.peak_tokens_per_s or lab.subject.capacity_tokens_per_s) / max_tokens
        count = math.ceil(self._rate_rps * LONGEST_S)
        words = "Count slowly from one to a hundred, one number after the other."
        arrivals = tuple(Arrival(i / self._rate_rps, f"{words} ({i})", max_tokens) for i in range(count))
        plan = LoadPlan(
            url=lab.runtime.url(victim), model=lab.subject.model, arrivals=arrivals, timeout_s=10.0, drain_s=0.0
        )
        self._flood = LoadProcess(plan, record.directory / "overload")
        self._flood.start()
        pid = self._flood.pid
        record.process(pid, identity.process_started(pid))

    def overload_seen(self, victim: str, since_unix_s: float) -> Proof | None:
        """Proof that requests arrive at the gateway at the flood's rate; None if Prometheus has not seen that yet."""
        now = time.time()
        if self._flood is None or now - since_unix_s < 3:
            return None
        query = "sum(rate(llmlab_requests_total[3s])) + max_over_time(sum(llmlab_queue_depth)[3s:1s])"
        try:
            seen = self._lab.prometheus.value(query, now)
        except Inconclusive:
            return None
        if seen < SEEN_SHARE * self._rate_rps:
            return None
        witness = f"Prometheus: {victim} sees {seen:.0f} requests/s or waiting, {self._rate_rps:.0f}/s are sent"
        return Proof(step="injected", witness=witness, at_unix_s=self._flood.t0_unix_s)

    def overload_gone(self, victim: str) -> Proof | None:  # noqa: ARG002 - there is one flood at a time
        if self._flood is not None and self._flood.alive:
            return None
        return Proof(step="healed", witness="the flood's process has ended", at_unix_s=time.time())

    def undo(self, undo: Undo) -> None:
        """The flood's own undo here, all others by the runtime."""
        if undo.op != "stop_overload":
            self._runtime.undo(undo)
        elif self._flood is not None:
            self._flood.stop()
