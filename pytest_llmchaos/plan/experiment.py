"""What an experiment is: a checked value. Pure; pytest's mark around it is made elsewhere."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.faults.compositions import check_fault
from pytest_llmchaos.faults.fault_names import with_unique_names
from pytest_llmchaos.loads.arrivals import Load
from pytest_llmchaos.model import FIDELITIES, Fidelity, Injection

if TYPE_CHECKING:
    from pytest_llmchaos.model import Fault
    from pytest_llmchaos.stats.windows import Window

STEADY_DEADLINE_FACTOR = 3.0
STEADY_DEADLINE_MARGIN_S = 20.0
SETTLE_S = 30.0
WITHIN_S = 40.0  # default of repair_within_s and settle_within_s
LEASE_MARGIN_S = 60.0  # to prove and to undo the acts of one trial


@dataclass(frozen=True, kw_only=True, eq=False)
class Experiment:
    """Load, faults and phases of a scenario. Made by `experiment(...)`, which checks every argument.

    `light_load` takes the place of `load` on a backend that is declared for less.

    `repair_within_s` and `settle_within_s` are None where they were not given.

    Each mark makes its own: equal only to itself, so that it can be a key.
    """

    load: Load
    faults: tuple[Fault, ...]
    steady_s: float
    fault_s: float | None
    repair_within_s: float | None
    settle_within_s: float | None
    stable_s: float
    remediator: bool
    fidelity: Fidelity | None
    blast_radius: int
    abort_if: Callable[[Window], bool] | None
    light_load: Load | None = None
    simulated_engine: bool = False

    def load_for(self, capacity_tokens_per_s: float) -> Load:
        """What clients do on a backend that is declared for so many tokens a second."""
        heavy = self.load.tokens_per_s > capacity_tokens_per_s
        return self.light_load if self.light_load is not None and heavy else self.load

    def deadline_s(self, fault: Fault) -> float:
        """Seconds that the system has to repair a lasting fault, or to settle after a passing one.

        A control arm has the deadline of the fault that it is compared with.
        """
        applying = {"lasting": [self.repair_within_s], "passing": [self.settle_within_s]}
        given = applying.get(fault.lifetime, [self.repair_within_s, self.settle_within_s])
        return max((within_s for within_s in given if within_s is not None), default=WITHIN_S)

    def longest_fault_s(self, fault: Fault) -> float:
        """The most seconds from the first act until the fault is over: repaired or reverted."""
        return fault.last_act_s + self.held_s(fault)

    def held_s(self, fault: Fault) -> float:
        """The most seconds from the last act until then. A control arm is held as long as a passing fault, or as a settle."""
        if fault.lifetime == "none":
            return max(self.stable_s, self.fault_s or 0.0)
        return self.deadline_s(fault) if fault.lifetime == "lasting" else self.fault_s or 0.0

    def longest_settle_s(self, fault: Fault) -> float:
        """The most seconds from then to the trial's end."""
        return self.deadline_s(fault) if fault.lifetime == "passing" else SETTLE_S

    def longest_s(self, fault: Fault) -> float:
        """The most seconds that a trial can need load for: the deadlines of all its phases."""
        steady_s = self.steady_s * STEADY_DEADLINE_FACTOR + STEADY_DEADLINE_MARGIN_S
        deadline_s, acts_s = self.deadline_s(fault), fault.last_act_s
        if acts_s:
            acts_s += deadline_s  # the longest that acts wait for earlier victims to be back
        return math.ceil(steady_s + (self.fault_s or 0.0) + deadline_s + SETTLE_S + self.stable_s + acts_s + 15.0)


@dataclass(frozen=True, kw_only=True)
class TrialPlan:
    """One trial, decided before anything starts. `load` is the one of its experiment's that the backend can serve."""

    scenario: str
    hypothesis: str
    experiment: Experiment
    load: Load
    fault: Fault
    injections: tuple[Injection, ...]
    repeat: int
    seed: int

    @property
    def needs(self) -> frozenset[str]:
        """Abilities without which the trial is skipped: those of its fault, and the simulated engine where it asks for it."""
        return self.fault.needs | (frozenset({"engine"}) if self.experiment.simulated_engine else frozenset())

    @property
    def is_lasting(self) -> bool:
        """Whether the system has to repair the fault."""
        return self.fault.lifetime == "lasting"

    @property
    def is_passing(self) -> bool:
        """Whether the instrument ends the fault, and the system has to settle after it."""
        return self.fault.lifetime == "passing"

    @property
    def is_control(self) -> bool:
        """Whether this is the arm without a fault."""
        return self.fault.lifetime == "none"

    @property
    def key(self) -> tuple[str, str, int, Experiment]:
        """What the claims of one trial share."""
        return self.scenario, str(self.fault), self.repeat, self.experiment


def experiment(
    *,
    load: Load,
    fault: Fault | Sequence[Fault],
    steady_s: float = 8,
    fault_s: float | None = None,
    repair_within_s: float | None = None,
    settle_within_s: float | None = None,
    stable_s: float = 4,
    remediator: bool = True,
    fidelity: Fidelity | None = None,
    blast_radius: int | None = None,
    abort_if: Callable[[Window], bool] | None = None,
    light_load: Load | None = None,
    simulated_engine: bool = False,
) -> Experiment:
    """An experiment: what clients do, what breaks, and what the system has to do about it.

    Args:
      load: what clients do, such as `loads.open_loop(rate_rps=8)`.
      fault: what breaks, such as `faults.kill("api")`; a list makes one trial each.
      steady_s: seconds in a row that the service must be good before the fault.
      fault_s: seconds that a passing fault lasts; required for one, such as `faults.pause`,
        and refused where all faults last.
      repair_within_s: seconds from a lasting fault's start until the system must have
        repaired itself (40).
      settle_within_s: seconds from a passing fault's end until the service must be good
        again (40).
      stable_s: seconds in a row without a bad request that count as recovered.
      remediator: False performs the control arm without the remediator.
      fidelity: the least that the claims need: real, kernel or simulated.
      blast_radius: the most services that may be hit at once (the fault's own).
      abort_if: a function of the live window; True ends the trial at once and reverts.
      light_load: what clients do in place of `load` on a backend that is declared for
        fewer tokens a second than `load` asks for, such as a real model on two cores.
      simulated_engine: True for a trial that makes sense with the simulated engine only,
        such as the control arm of its faults; with another backend it is skipped.

    Raises BadScenario for a wrong value, before anything starts.
    """
    given: object = load
    if not isinstance(given, Load):
        raise BadScenario(f"experiment(load=...) must be a load such as loads.open_loop(rate_rps=8), got {load!r}")
    if light_load is not None:
        _check_light_load(load, light_load)
    faults = tuple(fault) if isinstance(fault, list | tuple) else (fault,)
    if not faults:
        raise BadScenario(
            "experiment(fault=[]) is empty: give a fault, a list of faults, or faults.none() for a control arm"
        )
    for one in faults:
        check_fault("experiment(fault=...)", one)
    faults = with_unique_names(faults)
    check_seconds("experiment", "steady_s", steady_s, 1, 3600)
    check_seconds("experiment", "stable_s", stable_s, 0.5, 600)
    _check_fault_s(faults, fault_s)
    _check_within(faults, repair_within_s, settle_within_s)
    if not isinstance(remediator, bool):
        raise BadScenario(f"experiment(remediator=...) must be True or False, got {remediator!r}")
    if not isinstance(simulated_engine, bool):
        raise BadScenario(f"experiment(simulated_engine=...) must be True or False, got {simulated_engine!r}")
    if abort_if is not None:
        check_abort_if("experiment", abort_if)
    _check_fidelity(faults, fidelity)
    made = Experiment(
        load=load,
        faults=faults,
        steady_s=float(steady_s),
        fault_s=None if fault_s is None else float(fault_s),
        repair_within_s=None if repair_within_s is None else float(repair_within_s),
        settle_within_s=None if settle_within_s is None else float(settle_within_s),
        stable_s=float(stable_s),
        remediator=remediator,
        fidelity=fidelity,
        blast_radius=check_blast_radius("experiment", {str(one): one.blast_radius for one in faults}, blast_radius),
        abort_if=abort_if,
        light_load=light_load,
        simulated_engine=simulated_engine,
    )
    return replace(made, faults=tuple(one.with_lease(_in_force_s(made, one)) for one in faults))


def _check_light_load(load: Load, light: object) -> None:
    if not isinstance(light, Load):
        raise BadScenario(
            f"experiment(light_load=...) must be a load such as loads.open_loop(rate_rps=2, max_tokens=8), got {light!r}"
        )
    if not light.tokens_per_s < load.tokens_per_s:
        raise BadScenario(
            f"experiment(light_load=...) must ask for fewer tokens a second than load ({load.tokens_per_s:g}), "
            f"got {light.tokens_per_s:g}: lower its rate_rps or max_tokens"
        )


def check_seconds(where: str, name: str, value: object, least: float, most: float) -> None:
    """Raises BadScenario unless it is a number of seconds within these bounds."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise BadScenario(f"{where}({name}=...) must be a number of seconds from {least:g} to {most:g}, got {value!r}")


def _check_fault_s(faults: tuple[Fault, ...], fault_s: float | None) -> None:
    passing = [str(one) for one in faults if one.lifetime == "passing"]
    if fault_s is not None:
        check_seconds("experiment", "fault_s", fault_s, 0.5, 3600)
        if all(one.lifetime == "lasting" for one in faults):  # a control arm beside them is held for as long
            raise BadScenario(
                f"experiment(fault_s=...) is for passing faults, and {str(faults[0])!r} lasts: "
                "give repair_within_s, the seconds from its start until its repair"
            )
    elif passing:
        raise BadScenario(
            f"experiment(fault_s=...) is missing: {passing[0]!r} passes, so say for how many seconds it lasts"
        )


def _check_within(faults: tuple[Fault, ...], repair_within_s: object, settle_within_s: object) -> None:
    """Each deadline must be a number of seconds, and one of the faults must have it: a control arm alone may have either."""
    lifetimes = {one.lifetime for one in faults}
    for name, value, lifetime, other in (
        ("repair_within_s", repair_within_s, "lasting", "settle_within_s, the seconds from its end until all is well"),
        ("settle_within_s", settle_within_s, "passing", "repair_within_s, the seconds from its start until its repair"),
    ):
        if value is None:
            continue
        check_seconds("experiment", name, value, 1, 3600)
        if lifetimes != {"none"} and lifetime not in lifetimes:
            what = "passes" if lifetime == "lasting" else "lasts"
            wrong = next(str(one) for one in faults if one.lifetime != "none")
            raise BadScenario(f"experiment({name}=...) is for {lifetime} faults, and {wrong!r} {what}: give {other}")


def check_blast_radius(where: str, hits: Mapping[str, int], blast_radius: object) -> int:
    """The limit, by default the widest of `hits`: the most services that each fault may hit. Raises BadScenario."""
    widest = max(hits.values())
    limit: object = widest if blast_radius is None else blast_radius
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
        raise BadScenario(f"{where}(blast_radius=...) must be a whole number of services, got {blast_radius!r}")
    if widest > limit:
        wide = next(name for name, hit in hits.items() if hit == widest)
        raise BadScenario(
            f"{where}(blast_radius={limit}) is smaller than what {wide!r} may hit ({widest} services): "
            "raise it or choose a smaller fault"
        )
    return limit


def _in_force_s(experiment: Experiment, fault: Fault) -> float:
    """The most seconds from a trial's first act to the revert of its last."""
    deadline_s, fault_s, acts_s = experiment.deadline_s(fault), experiment.fault_s, fault.last_act_s
    waits_s = deadline_s if acts_s else 0.0  # the longest that acts wait for earlier victims to be back
    held_s = deadline_s if fault.lifetime == "lasting" or fault_s is None else fault_s
    return float(acts_s + waits_s + held_s + LEASE_MARGIN_S)


def check_abort_if(where: str, abort_if: object) -> None:
    """It must be callable with one window: what is not would fail in mid-trial."""
    expected = f"{where}(abort_if=...) must be a function of the live window, such as lambda w: w.availability < 0.5"
    if not callable(abort_if):
        raise BadScenario(f"{expected}, got {abort_if!r}")
    try:
        parameters = inspect.signature(abort_if)
    except ValueError:  # some functions written in C have no signature
        return
    try:
        parameters.bind(None)
    except TypeError:
        raise BadScenario(f"{expected}, got {abort_if!r} with the parameters {parameters}") from None


def _check_fidelity(faults: tuple[Fault, ...], fidelity: object) -> None:
    if fidelity is None:
        return
    if fidelity not in FIDELITIES:
        raise BadScenario(f"experiment(fidelity=...) must be one of {', '.join(FIDELITIES)}, got {fidelity!r}")
    for one in faults:
        if FIDELITIES.index(one.fidelity) > FIDELITIES.index(fidelity):
            raise BadScenario(
                f"experiment(fidelity={fidelity!r}) asks for more than {str(one)!r} is ({one.fidelity}): "
                f"drop the argument or choose a fault that is {' or '.join(FIDELITIES[: FIDELITIES.index(fidelity) + 1])}"
            )


def hypothesis_of(docstring: str | None) -> str:
    """The first paragraph of a scenario's docstring, on one line."""
    first = (docstring or "").strip().split("\n\n")[0]
    return re.sub(r"\s+", " ", first)
