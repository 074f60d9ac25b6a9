"""What faults of the simulated engine share: started by its admin port, proven by the engine and by a second witness.

Only an engine that says it is simulated has such a port, so nothing here is more than `simulated`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.faults.base import OnTarget, check_target, event_proof, first_event
from pytest_llmchaos.faults.compositions import RandomFaults, Together
from pytest_llmchaos.model import Fidelity, Lifetime, Primitive, Proof, Undo

if TYPE_CHECKING:
    from pytest_llmchaos.model import Fault

# Shorter than anybody's patience: the engine ends a fault by itself if nobody else does. An experiment whose phases are longer
# asks for more.
LEASE_S = 300.0
LONGEST_LEASE_S = 3600.0  # stack/services/lab_engine/faults/base.py grants no more
Option = str | int | float


@dataclass(frozen=True, kw_only=True)
class EngineFaultState:
    """One fault as the engine tells it. `counters` is the engine's own count of what the fault has done so far."""

    id: str
    kind: str
    active: bool
    started_unix_s: float
    counters: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class EngineReport:
    """All faults that an engine knows of, at one moment."""

    at_unix_s: float
    faults: tuple[EngineFaultState, ...]

    def in_force(self, kind: str) -> EngineFaultState | None:
        return next((one for one in self.faults if one.kind == kind and one.active), None)


@dataclass(frozen=True, kw_only=True)
class EngineFault:
    """A fault that is in force until it is ended.

    `counter` is what the engine itself must have counted, where the fault does something that can be counted. `witness`
    is a query that has a sample only while Prometheus sees the fault show; `{victim}` in it is the service.
    """

    kind: str
    lifetime: Lifetime
    expects: str
    witness: str
    options: tuple[tuple[str, Option], ...] = ()
    counter: str | None = None
    lease_s: float = LEASE_S
    needs: frozenset[str] = frozenset({"engine", "start"})
    fidelity: Fidelity = "simulated"

    def inject(self, runtime: Any, victim: str) -> None:
        runtime.engine_start(victim, self.kind, lease_s=self.lease_s, **dict(self.options))

    def undo(self, victim: str) -> Undo:
        return Undo(op="engine_end", service=victim, args={"kind": self.kind})

    def observed(self, runtime: Any, victim: str, since_unix_s: float) -> Proof | None:
        report: EngineReport | None = runtime.engine_faults(victim)
        fault = report.in_force(self.kind) if report else None
        if fault is None or fault.started_unix_s < since_unix_s:
            return None
        count = fault.counters.get(self.counter, 0) if self.counter else None
        if count == 0:
            return None
        query = self.witness.replace("{victim}", victim)
        seen = runtime.engine_signal(query)
        if seen is None:
            return None
        counted = f", {self.counter}={count:g}" if count else ""
        witness = f"the engine says {self.kind} {fault.id} is in force{counted}; Prometheus: {query} is {seen:g}"
        return Proof(step="injected", witness=witness, at_unix_s=fault.started_unix_s)

    def healed(self, runtime: Any, victim: str, since_unix_s: float) -> Proof | None:  # noqa: ARG002 - the protocol's
        state = runtime.state(victim)
        if not state.running or state.paused:
            return None
        report: EngineReport | None = runtime.engine_faults(victim)
        if report is None or report.in_force(self.kind):
            return None
        return Proof(step="healed", witness=f"the engine lists no {self.kind} in force", at_unix_s=report.at_unix_s)


@dataclass(frozen=True, kw_only=True)
class EngineDeath(EngineFault):
    """A fault of which the process dies by itself, with exit status 1: the runtime is the witness."""

    lifetime: Lifetime = "lasting"
    witness: str = ""
    needs: frozenset[str] = frozenset({"engine", "start", "events"})

    def observed(self, runtime: Any, victim: str, since_unix_s: float) -> Proof | None:
        events = runtime.events(since_unix_s, float("inf"))
        return event_proof("injected", first_event(events, victim, frozenset({"die"}), exitCode="1"))


def on_engine(primitive: Primitive, target: object) -> Fault:
    return OnTarget(primitive=primitive, target=check_target(primitive.kind, target))


def leased(fault: Fault, for_s: float) -> Fault:
    """The fault, if need be with longer leases: none of its parts may end by itself within `for_s`, unless that is its way."""
    if isinstance(fault, Together):
        return replace(fault, parts=tuple((after_s, leased(part, for_s)) for after_s, part in fault.parts))
    if isinstance(fault, RandomFaults):
        return replace(fault, among=tuple(leased(part, for_s) for part in fault.among))
    if not isinstance(fault, OnTarget) or not isinstance(fault.primitive, EngineFault):
        return fault
    primitive = fault.primitive
    if isinstance(primitive, EngineDeath) or for_s <= primitive.lease_s:
        return fault
    if for_s > LONGEST_LEASE_S:
        raise BadScenario(
            f"experiment(...) may need {str(fault)!r} for {for_s:g} s, margins included; the engine ends every fault after "
            f"{LONGEST_LEASE_S:g} s: shorten fault_s, the deadline, or the time from the first fault to the last"
        )
    return replace(fault, primitive=replace(primitive, lease_s=for_s))


def check_number(where: str, value: object, *, above: float, at_most: float) -> float:
    """The value, if it is a number above one bound and at most the other."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not above < float(value) <= at_most:
        raise BadScenario(f"faults.{where} must be a number above {above:g} and at most {at_most:g}, got {value!r}")
    return float(value)


def check_whole(where: str, value: object, *, at_least: int, at_most: int) -> int:
    if type(value) is not int or not at_least <= value <= at_most:
        raise BadScenario(f"faults.{where} must be a whole number from {at_least} to {at_most}, got {value!r}")
    return value


def check_choice(where: str, value: object, choices: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in choices:
        raise BadScenario(f"faults.{where} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return value
