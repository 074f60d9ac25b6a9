"""Experiments: checked values without pytest's mark."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.faults.compositions import check_fault
from pytest_llmchaos.faults.fault_names import with_unique_names
from pytest_llmchaos.loads.arrivals import Load
from pytest_llmchaos.model import FIDELITIES, Fidelity, Injection
from pytest_llmchaos.plan.arms import NO_ARM, Arm, check_arms, check_policy
from pytest_llmchaos.subject.lab import AUTOSCALER

if TYPE_CHECKING:
    from pytest_llmchaos.model import Environment, Fault
    from pytest_llmchaos.stats.windows import Window

STEADY_DEADLINE_FACTOR = 3.0
STEADY_DEADLINE_MARGIN_S = 20.0
SETTLE_S = 30.0
WITHIN_S = 40.0  # default of repair_within_s and settle_within_s
POLICY = "LAB_POLICY"  # variable of the autoscaler
LEASE_MARGIN_S = 60.0  # to prove and to revert the acts of one trial


@dataclass(frozen=True, kw_only=True, eq=False)
class Experiment:
    """Load, faults and phases of a scenario, as `experiment(...)` returns them.

    Each mark makes its own. It is equal only to itself, so that it can be a key.

    Attributes:
        load: Load of the clients.
        faults: The faults. Each makes a trial.
        steady_s: Consecutive seconds in which the service must be good before the
            fault.
        fault_s: Seconds that a passing fault lasts, None if all last.
        repair_within_s: Seconds from a lasting fault's start to the repair, None if not
            given.
        settle_within_s: Seconds from a passing fault's end until the service is good,
            None if not given.
        stable_s: Consecutive seconds without a bad request that count as recovered.
        remediator: False if the remediator does not run.
        fidelity: Least fidelity that the claims need, None for any.
        blast_radius: The most services hit at once.
        abort_if: Function of the live window. True ends the trial.
        light_load: Load in place of `load` on a backend that is declared for less.
        simulated_engine: True if the trial needs the simulated engine.
        arms: Settings of the system by name. Each makes a trial. Empty for one trial
            of the system as it is.
        autoscaler: Policy of the autoscaler, None if it changes nothing.
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
    arms: Mapping[str, Arm] = field(default_factory=dict)
    autoscaler: str | None = None

    @property
    def is_scaled(self) -> bool:
        """True if the autoscaler runs in one of its arms at least."""
        own = [arm.autoscaler for arm in self.arms.values()]
        return self.autoscaler is not None or any(policy is not None for policy in own)

    @property
    def arm_count(self) -> int:
        """Number of arms, 1 without any."""
        return len(self.arms) or 1

    def load_for(self, capacity_tokens_per_s: float) -> Load:
        """Return the load for a backend of this capacity, in tokens per second."""
        heavy = self.load.tokens_per_s > capacity_tokens_per_s
        return self.light_load if self.light_load is not None and heavy else self.load

    def deadline_s(self, fault: Fault) -> float:
        """Return the seconds to repair a lasting fault or settle after a passing one.

        A control arm has the deadline of the fault that it is compared with.
        """
        applying = {"lasting": [self.repair_within_s], "passing": [self.settle_within_s]}
        given = applying.get(fault.lifetime, [self.repair_within_s, self.settle_within_s])
        return max((within_s for within_s in given if within_s is not None), default=WITHIN_S)

    def longest_fault_s(self, fault: Fault) -> float:
        """Return the most seconds from the first act until repair or revert."""
        return fault.last_act_s + self.held_s(fault)

    def held_s(self, fault: Fault) -> float:
        """Return the most seconds from the last act until repair or revert.

        A control arm is held as long as a passing fault, or for `stable_s`.
        """
        if fault.lifetime == "none":
            return max(self.stable_s, self.fault_s or 0.0)
        return self.deadline_s(fault) if fault.lifetime == "lasting" else self.fault_s or 0.0

    def longest_settle_s(self, fault: Fault) -> float:
        """Return the most seconds from repair or revert to the trial's end."""
        return self.deadline_s(fault) if fault.lifetime == "passing" else SETTLE_S

    def longest_s(self, fault: Fault) -> float:
        """Return the most seconds of load: the deadlines of all phases."""
        steady_s = self.steady_s * STEADY_DEADLINE_FACTOR + STEADY_DEADLINE_MARGIN_S
        deadline_s, acts_s = self.deadline_s(fault), fault.last_act_s
        if acts_s:
            acts_s += deadline_s  # the longest wait of an act for earlier victims
        return math.ceil(steady_s + (self.fault_s or 0.0) + deadline_s + SETTLE_S + self.stable_s + acts_s + 15.0)


@dataclass(frozen=True, kw_only=True)
class TrialPlan:
    """One trial, decided before anything starts.

    Attributes:
        scenario: Name of the scenario.
        hypothesis: First paragraph of its docstring.
        experiment: The experiment.
        load: The one of its loads that the backend can serve.
        fault: The fault.
        injections: The planned acts.
        repeat: Number of the repeat, from 0.
        seed: The run's seed.
        arm: Name of its arm, empty for an experiment without arms.
    """

    scenario: str
    hypothesis: str
    experiment: Experiment
    load: Load
    fault: Fault
    injections: tuple[Injection, ...]
    repeat: int
    seed: int
    arm: str = ""

    @property
    def needs(self) -> frozenset[str]:
        """Abilities without which the trial is skipped."""
        is_configured = bool(self.environment) or self.autoscaler is not None
        wanted = {"engine": self.experiment.simulated_engine, "configure": is_configured}
        return self.fault.needs | {ability for ability, is_needed in wanted.items() if is_needed}

    @property
    def environment(self) -> Environment:
        """Further environment variables of services, by service."""
        return self._settings.environment

    @property
    def variables(self) -> Environment:
        """Variables of services, with the policy that the autoscaler gets."""
        return with_policy(self.environment, self.autoscaler)

    @property
    def remediator(self) -> bool:
        """False if the remediator does not run."""
        own = self._settings.remediator
        return self.experiment.remediator if own is None else own

    @property
    def autoscaler(self) -> str | None:
        """Policy of the autoscaler, None if it changes nothing."""
        own = self._settings.autoscaler
        return self.experiment.autoscaler if own is None else own

    @property
    def _settings(self) -> Arm:
        return self.experiment.arms[self.arm] if self.arm else NO_ARM

    @property
    def is_lasting(self) -> bool:
        """True if the system has to repair the fault."""
        return self.fault.lifetime == "lasting"

    @property
    def is_passing(self) -> bool:
        """True if the instrument reverts the fault and the system settles after it."""
        return self.fault.lifetime == "passing"

    @property
    def is_control(self) -> bool:
        """True for the arm without a fault."""
        return self.fault.lifetime == "none"

    @property
    def key(self) -> tuple[str, str, int, Experiment, str]:
        """Key that the claims of one trial share."""
        return self.scenario, str(self.fault), self.repeat, self.experiment, self.arm


def with_policy(environment: Environment, policy: str | None) -> Environment:
    """Return variables of services with the autoscaler's policy, if it has one."""
    if policy is None:
        return environment
    return {**environment, AUTOSCALER: {**environment.get(AUTOSCALER, {}), POLICY: policy}}


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
    arms: Mapping[str, Arm] | None = None,
    autoscaler: str | None = None,
) -> Experiment:
    """Return a mark with an experiment: a load, a fault and what the system must do.

    `pytestmark = experiment(...)` marks a file, `@experiment(...)` one test. Each fault
    makes a trial, and each claim of it is a test.

    Args:
        load: Load of the clients, such as `loads.open_loop(rate_rps=8)`.
        fault: The fault, such as `faults.kill("api")`. A list makes one trial each.
        steady_s: Consecutive seconds in which the service must be good before the
            fault, 1 to 3600.
        fault_s: Seconds that a passing fault lasts, 0.5 to 3600. Required for faults
            such as `faults.pause`, and refused if the system has to repair all of them.
        repair_within_s: Seconds from a lasting fault's start until the system must have
            repaired itself, 1 to 3600. None is 40.
        settle_within_s: Seconds from a passing fault's end until the service must be
            good again, 1 to 3600. None is 40.
        stable_s: Consecutive seconds without a bad request that count as recovered, 0.5
            to 600.
        remediator: False runs the trial without the remediator.
        fidelity: Least fidelity that the claims need: `real`, `kernel`, `proxy` or
            `simulated`. None accepts any.
        blast_radius: The most services that may be hit at once. None is the fault's
            own.
        abort_if: Function of the live `Window`, such as `lambda w: w.availability <
            0.5`. True reverts the fault at once and ends the trial as invalid.
        light_load: Load in place of `load` on a backend that is declared for fewer
            tokens per second than `load` offers, such as a real model on two cores.
        simulated_engine: True for a trial that needs the simulated engine, such as the
            control arm of its faults. With another backend it is skipped.
        arms: Two or more settings of the system by name, such as `{"on": arm(), "off":
            arm(environment={"api": {"LAB_BREAKER": "off"}})}`. The trial of each has
            the same load and the same acts. Claims with `arms` compare them.
        autoscaler: Policy by which the lab's autoscaler starts and stops replicas, such
            as `slo`, `hpa(target=0.7)` or `fixed(2)`. None keeps the lab's first two
            replicas. A stack of one's own is refused, and an attached one skips the
            trial.

    Returns:
        A mark for `pytestmark` or a test.

    Raises:
        BadScenario: An argument is wrong. Raised when the file is collected, before
            anything starts.
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
        arms=check_arms(arms),
        autoscaler=check_policy("experiment", autoscaler),
    )
    return replace(made, faults=tuple(one.with_lease(_in_force_s(made, one)) for one in faults))


def _check_light_load(load: Load, light: object) -> None:
    if not isinstance(light, Load):
        raise BadScenario(
            f"experiment(light_load=...) must be a load such as loads.open_loop(rate_rps=2, max_tokens=8), got {light!r}"
        )
    if not light.tokens_per_s < load.tokens_per_s:
        raise BadScenario(
            f"experiment(light_load=...) must offer fewer tokens a second than load ({load.tokens_per_s:g}), "
            f"got {light.tokens_per_s:g}: lower its rate_rps or max_tokens"
        )


def check_seconds(where: str, name: str, value: object, least: float, most: float) -> None:
    """Check that a value is a number of seconds within the bounds.

    Raises:
        BadScenario: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise BadScenario(f"{where}({name}=...) must be a number of seconds from {least:g} to {most:g}, got {value!r}")


def _check_fault_s(faults: tuple[Fault, ...], fault_s: float | None) -> None:
    passing = [str(one) for one in faults if one.lifetime == "passing"]
    if fault_s is not None:
        check_seconds("experiment", "fault_s", fault_s, 0.5, 3600)
        if all(one.lifetime == "lasting" for one in faults):  # a control arm alongside is held for as long
            raise BadScenario(
                f"experiment(fault_s=...) is for passing faults, and {str(faults[0])!r} lasts: "
                "give repair_within_s, the seconds from its start until its repair"
            )
    elif passing:
        raise BadScenario(
            f"experiment(fault_s=...) is missing: {passing[0]!r} passes, so give the seconds that it lasts"
        )


def _check_within(faults: tuple[Fault, ...], repair_within_s: object, settle_within_s: object) -> None:
    """Check both deadlines: seconds, and for a lifetime that one of the faults has.

    A control arm alone may have either.
    """
    lifetimes = {one.lifetime for one in faults}
    for name, value, lifetime, other in (
        (
            "repair_within_s",
            repair_within_s,
            "lasting",
            "settle_within_s, the seconds from its end until the service is good",
        ),
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
    """Return the limit, by default the widest of `hits` (services per fault).

    Raises:
        BadScenario: A fault may hit more services than the limit.
    """
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
    """Return the most seconds from a trial's first act to the revert of its last."""
    deadline_s, fault_s, acts_s = experiment.deadline_s(fault), experiment.fault_s, fault.last_act_s
    waits_s = deadline_s if acts_s else 0.0  # the longest wait of an act for earlier victims
    held_s = deadline_s if fault.lifetime == "lasting" or fault_s is None else fault_s
    return float(acts_s + waits_s + held_s + LEASE_MARGIN_S)


def check_abort_if(where: str, abort_if: object) -> None:
    """Check that `abort_if` can be called with one window.

    Raises:
        BadScenario: It cannot, and would fail in mid-trial.
    """
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
                f"experiment(fidelity={fidelity!r}) needs more than {str(one)!r} has ({one.fidelity}): "
                f"drop the argument or choose a fault that is {' or '.join(FIDELITIES[: FIDELITIES.index(fidelity) + 1])}"
            )


def hypothesis_of(docstring: str | None) -> str:
    """Return the first paragraph of a scenario's docstring, on one line."""
    first = (docstring or "").strip().split("\n\n")[0]
    return re.sub(r"\s+", " ", first)
