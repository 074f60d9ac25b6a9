"""Bases of the simulated engine's faults.

The engine's admin port starts them. The engine and a second witness prove them. Only
a simulated engine has that port, so the fidelity is at most `simulated`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Protocol, Self

from pytest_llmchaos.faults.base import event_proof, first_event
from pytest_llmchaos.faults.leases import LEASE_S, longer_lease_s
from pytest_llmchaos.model import CanReachEngine, EngineOption, FaultCounts, Fidelity, Lifetime, Proof, Runtime, Undo

if TYPE_CHECKING:
    from pytest_llmchaos.model import HasEvents, LeasedFaultState


class EngineRuntime(Runtime, CanReachEngine, Protocol):
    """A runtime that reaches a simulated engine."""


@dataclass(frozen=True, kw_only=True)
class OnEngine:
    """Base of faults that a simulated engine's admin port starts.

    Attributes:
        options: Options of the fault as the engine takes them.
        lease_s: Seconds after which the engine ends the fault by itself.
    """

    kind: ClassVar[str]
    lifetime: ClassVar[Lifetime]
    expects: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset({"engine", "start"})
    fidelity: ClassVar[Fidelity] = "simulated"
    options: tuple[tuple[str, EngineOption], ...] = ()
    lease_s: float = LEASE_S

    @property
    def strength(self) -> Mapping[str, object]:
        return dict(self.options)

    def with_lease(self, for_s: float, name: str) -> Self:  # noqa: ARG002 - for subclasses
        return self

    def start(self, runtime: CanReachEngine, victim: str) -> None:
        runtime.engine_start(victim, self.kind, lease_s=self.lease_s, **dict(self.options))

    def undo(self, victim: str) -> Undo:
        return Undo(op="engine_end", service=victim, args={"kind": self.kind})

    def healed(self, runtime: EngineRuntime, victim: str, since_unix_s: float) -> Proof | None:  # noqa: ARG002 - the protocol's
        state = runtime.state(victim)
        if not state.running or state.paused:
            return None
        report = runtime.engine_faults(victim)
        if report is None or report.in_force(self.kind):
            return None
        return Proof(
            step="healed",
            witness=f"the engine lists no {self.kind} in force",
            at_unix_s=report.at_unix_s,
            counts=_counts_of(report.newest(self.kind)),
        )


class EngineFault(OnEngine):
    """Base of faults in force until reverted. The engine and Prometheus are witnesses.

    Attributes:
        counter: The engine's count that must be above 0 as a proof, "" for none.
    """

    counter: ClassVar[str] = ""

    def inject(self, runtime: CanReachEngine, victim: str) -> None:
        self.start(runtime, victim)

    def witness(self, victim: str) -> str | None:  # noqa: ARG002 - for subclasses
        """Return a query with a sample only while Prometheus sees the fault.

        None if the subject has the query.
        """
        return None

    def number(self, option: str) -> float:
        return float(dict(self.options)[option])

    def with_lease(self, for_s: float, name: str) -> Self:
        return replace(self, lease_s=longer_lease_s(self.lease_s, for_s, name, "the engine"))

    def ended_early(self, runtime: CanReachEngine, victim: str) -> bool:
        """True if the fault is over and the engine was not restarted since it began."""
        report = runtime.engine_faults(victim)
        return report is not None and report.in_force(self.kind) is None and report.newest(self.kind) is not None

    def observed(self, runtime: CanReachEngine, victim: str, since_unix_s: float) -> Proof | None:
        report = runtime.engine_faults(victim)
        fault = report.in_force(self.kind) if report else None
        if fault is None or fault.started_unix_s < since_unix_s:
            return None
        count = fault.counters.get(self.counter, 0) if self.counter else None
        if count == 0:
            return None
        query = self.witness(victim) or runtime.engine_witness(self.kind, victim)
        seen = runtime.engine_signal(query)
        if seen is None:
            return None
        counted = f", {self.counter}={count:g}" if count else ""
        witness = f"the engine reports {self.kind} {fault.id} in force{counted}; Prometheus: {query} is {seen:g}"
        return Proof(step="injected", witness=witness, at_unix_s=fault.started_unix_s, counts=_counts_of(fault))


def _counts_of(fault: LeasedFaultState | None) -> FaultCounts | None:
    """Return what the engine counted, None if it lost or never had the counts."""
    return FaultCounts(counters=fault.counters) if fault is not None and fault.counters else None


class DeathByFault(OnEngine):
    """Base of faults of which the process dies with exit status 1.

    The runtime is the witness. The lease does not matter.
    """

    lifetime: ClassVar[Lifetime] = "lasting"
    expects: ClassVar[str] = "requests in flight fail, the process exits with 1; ServiceDown fires"
    needs: ClassVar[frozenset[str]] = frozenset({"engine", "start", "events"})

    def observed(self, runtime: HasEvents, victim: str, since_unix_s: float) -> Proof | None:
        events = runtime.events(since_unix_s, float("inf"))
        return event_proof("injected", first_event(events, victim, frozenset({"die"}), exitCode="1"))


class EngineDeath(DeathByFault):
    """A fault that kills the engine at once."""

    def inject(self, runtime: CanReachEngine, victim: str) -> None:
        self.start(runtime, victim)
