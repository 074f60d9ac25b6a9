"""What an experiment is: a checked value. Pure; pytest's mark around it is made elsewhere."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.faults.compositions import check_fault
from pytest_llmchaos.faults.engine_faults import leased
from pytest_llmchaos.faults.fault_names import told_apart
from pytest_llmchaos.model import FIDELITIES, Fidelity, Injection

if TYPE_CHECKING:
    from pytest_llmchaos.loads import Load
    from pytest_llmchaos.model import Fault

STEADY_DEADLINE_FACTOR = 3.0
STEADY_DEADLINE_MARGIN_S = 20.0
SETTLE_S = 30.0
LEASE_MARGIN_S = 60.0  # to prove and to undo the acts of one trial


@dataclass(frozen=True, kw_only=True, eq=False)
class Experiment:
    """Load, faults and phases of a scenario. Made by `experiment(...)`, which checks every argument.

    Each mark makes its own: equal only to itself, so that it can be a key.

    `steady_s`: seconds in a row that the service must be good before the fault.
    `fault_s`: how long a passing fault lasts; None for a lasting one.
    `recovery_s`: deadline; for a lasting fault from its start until the system has repaired itself, for a passing one from
    its end until the service has settled. `stable_s`: seconds in a row without a bad request that count as recovered.
    """

    load: Load
    faults: tuple[Fault, ...]
    steady_s: float
    fault_s: float | None
    recovery_s: float
    stable_s: float
    remediator: bool
    fidelity: Fidelity | None
    blast_radius: int
    abort_if: Callable[[Any], bool] | None

    def longest_s(self, fault: Fault) -> float:
        """The most seconds that a trial can need load for: the deadlines of all its phases."""
        steady_s = self.steady_s * STEADY_DEADLINE_FACTOR + STEADY_DEADLINE_MARGIN_S
        acts_s = last_act_s(fault)
        if acts_s:
            acts_s += self.recovery_s  # the longest that acts wait for earlier victims to be back
        return math.ceil(steady_s + (self.fault_s or 0.0) + self.recovery_s + SETTLE_S + self.stable_s + acts_s + 15.0)


@dataclass(frozen=True, kw_only=True)
class TrialPlan:
    """One trial, decided before anything starts."""

    scenario: str
    hypothesis: str
    experiment: Experiment
    fault: Fault
    injections: tuple[Injection, ...]
    repeat: int
    seed: int

    @property
    def key(self) -> tuple[str, str, int, Experiment]:
        """What the claims of one trial share."""
        return self.scenario, str(self.fault), self.repeat, self.experiment


def last_act_s(fault: Fault) -> float:
    """An upper bound for the offset of a fault's last act."""
    within_s = getattr(fault, "within_s", None)
    if within_s is not None:
        return float(within_s)
    parts = getattr(fault, "parts", ())
    return max((after_s + last_act_s(part) for after_s, part in parts), default=0.0)


def make(
    *,
    load: Load,
    fault: Fault | Sequence[Fault],
    steady_s: float = 8,
    fault_s: float | None = None,
    recovery_s: float = 40,
    stable_s: float = 4,
    remediator: bool = True,
    fidelity: Fidelity | None = None,
    blast_radius: int | None = None,
    abort_if: Callable[[Any], bool] | None = None,
) -> Experiment:
    """A checked experiment. Raises BadScenario with the value, what was expected and what to do."""
    if not callable(getattr(load, "schedule", None)):
        raise BadScenario(f"experiment(load=...) must be a load such as loads.open_loop(rate_rps=8), got {load!r}")
    faults = tuple(fault) if isinstance(fault, list | tuple) else (fault,)
    if not faults:
        raise BadScenario(
            "experiment(fault=[]) is empty: give a fault, a list of faults, or faults.none() for a control arm"
        )
    for one in faults:
        check_fault("experiment(fault=...)", one)
    faults = told_apart(faults)
    _seconds("steady_s", steady_s, 1, 3600)
    _seconds("recovery_s", recovery_s, 1, 3600)
    _seconds("stable_s", stable_s, 0.5, 600)
    _check_fault_s(faults, fault_s)
    if not isinstance(remediator, bool):
        raise BadScenario(f"experiment(remediator=...) must be True or False, got {remediator!r}")
    if abort_if is not None and not callable(abort_if):
        raise BadScenario(f"experiment(abort_if=...) must be a function of the live window, got {abort_if!r}")
    widest = max(one.blast_radius for one in faults)
    limit: object = widest if blast_radius is None else blast_radius
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
        raise BadScenario(f"experiment(blast_radius=...) must be a whole number of services, got {blast_radius!r}")
    if widest > limit:
        wide = next(str(one) for one in faults if one.blast_radius == widest)
        raise BadScenario(
            f"experiment(blast_radius={limit}) is smaller than what {wide!r} may hit ({widest} services): "
            "raise it or choose a smaller fault"
        )
    _check_fidelity(faults, fidelity)
    return Experiment(
        load=load,
        faults=tuple(leased(one, _in_force_s(one, fault_s, recovery_s)) for one in faults),
        steady_s=float(steady_s),
        fault_s=None if fault_s is None else float(fault_s),
        recovery_s=float(recovery_s),
        stable_s=float(stable_s),
        remediator=remediator,
        fidelity=fidelity,
        blast_radius=limit,
        abort_if=abort_if,
    )


def _seconds(name: str, value: object, least: float, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= float(value) <= most:
        raise BadScenario(
            f"experiment({name}=...) must be a number of seconds from {least:g} to {most:g}, got {value!r}"
        )


def _check_fault_s(faults: tuple[Fault, ...], fault_s: float | None) -> None:
    passing = [str(one) for one in faults if one.lifetime == "passing"]
    if fault_s is not None:
        _seconds("fault_s", fault_s, 0.5, 3600)
    elif passing:
        raise BadScenario(
            f"experiment(fault_s=...) is missing: {passing[0]!r} passes, so say for how many seconds it lasts"
        )


def _in_force_s(fault: Fault, fault_s: float | None, recovery_s: float) -> float:
    """The most seconds from a trial's first act to the undo of its last."""
    acts_s = last_act_s(fault)
    waits_s = recovery_s if acts_s else 0.0  # the longest that acts wait for earlier victims to be back
    held_s = recovery_s if fault.lifetime == "lasting" or fault_s is None else fault_s
    return float(acts_s + waits_s + held_s + LEASE_MARGIN_S)


def _check_fidelity(faults: tuple[Fault, ...], fidelity: object) -> None:
    if fidelity is None:
        return
    if fidelity not in FIDELITIES:
        raise BadScenario(f"experiment(fidelity=...) must be one of {', '.join(FIDELITIES)}, got {fidelity!r}")
    for one in faults:
        if FIDELITIES.index(one.fidelity) > FIDELITIES.index(fidelity):
            raise BadScenario(
                f"experiment(fidelity={fidelity!r}) asks for more than {str(one)!r} is ({one.fidelity}): "
                "a claim may not exceed its fault"
            )


def hypothesis_of(docstring: str | None) -> str:
    """The first paragraph of a scenario's docstring, on one line."""
    first = (docstring or "").strip().split("\n\n")[0]
    return re.sub(r"\s+", " ", first)
