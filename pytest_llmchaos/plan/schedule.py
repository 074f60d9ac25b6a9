"""A run's trials in order, decided from the seed alone."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET, UnsetType, structs

from pytest_llmchaos.errors import BadScenario, NoVictim
from pytest_llmchaos.faults.base import options_of, plain, plain_strength
from pytest_llmchaos.model import BeginsAtMoment, replica_name
from pytest_llmchaos.plan.arms import NO_VARIABLES, with_fewest_changes
from pytest_llmchaos.plan.experiment import STEADY_DEADLINE_FACTOR, STEADY_DEADLINE_MARGIN_S, Experiment, TrialPlan
from pytest_llmchaos.plan.seeds import rng_for
from pytest_llmchaos.subject.environment import check_environment

if TYPE_CHECKING:
    from pytest_llmchaos.loads import Arrival
    from pytest_llmchaos.model import Environment, Fault, Injection


class ScheduledAct(msgspec.Struct, frozen=True, kw_only=True):
    """One planned act and how strong it is."""

    after_s: int | float
    """Seconds after the fault phase began."""
    fault: str
    victim: str
    options: dict[str, object]


class ScheduledPhases(msgspec.Struct, frozen=True, kw_only=True):
    """Lengths and deadlines of a trial's phases, in seconds."""

    steady_s: int | float
    fault_s: int | float | None
    recovery_s: int | float
    stable_s: int | float


class ScheduleEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One trial in a run's schedule."""

    scenario: str
    fault: str
    repeat: int
    injections: tuple[ScheduledAct, ...]
    load: str
    phases: ScheduledPhases
    remediator: bool
    arrivals: int
    arrivals_sha256: str
    arm: str | UnsetType = UNSET
    """Name of the arm. Absent without arms, so that their bytes stay the same."""
    environment: dict[str, dict[str, str]] | UnsetType = UNSET
    """Further environment variables by service. Absent without any."""
    autoscaler: str | UnsetType = UNSET
    """Policy of the autoscaler. Absent without one."""


@dataclass(frozen=True, kw_only=True)
class ScheduledTrial:
    """A plan and its entry in the schedule."""

    plan: TrialPlan
    entry: ScheduleEntry


def plan_trial(
    *,
    scenario: str,
    hypothesis: str,
    experiment: Experiment,
    fault: Fault,
    repeat: int,
    seed: int,
    services: Sequence[str],
    capacity_tokens_per_s: float = math.inf,
    arm: str = "",
) -> TrialPlan:
    """Return one trial with its acts, drawn from its own random generator.

    `capacity_tokens_per_s` of the backend selects the load. The arm changes no draw, so
    all arms have the same acts.

    Raises:
        NoVictim: The stack lacks the target.
        BadScenario: The plan exceeds the blast radius, or the arm gives variables to a
            service that may not be hit.
    """
    try:
        injections = fault.plan(rng_for(seed, scenario, str(fault), repeat), services)
    except NoVictim as error:
        raise NoVictim(f"scenario {scenario!r}, {fault}: {error}") from None
    numbers_of(f"scenario {scenario!r}", injections)
    require_blast_radius(f"scenario {scenario!r}", str(fault), injections, experiment.blast_radius)
    plan = TrialPlan(
        scenario=scenario,
        hypothesis=hypothesis,
        experiment=experiment,
        load=experiment.load_for(capacity_tokens_per_s),
        fault=fault,
        injections=injections,
        repeat=repeat,
        seed=seed,
        arm=arm,
    )
    check_environment(f"scenario {scenario!r}, arm {arm!r}: arm(environment=...)", plan.environment, services)
    return plan


def numbers_of(where: str, injections: Sequence[Injection]) -> dict[str, int]:
    """Return the containers that acts name, by service.

    Raises:
        BadScenario: They name two of one service. Events, states and reverts of a trial
            are about one container of a service.
    """
    found: dict[str, int] = {}
    for act in injections:
        if act.replica is not None and found.setdefault(act.victim, act.replica) != act.replica:
            one, other = (replica_name(act.victim, number) for number in (found[act.victim], act.replica))
            raise BadScenario(f"{where} hits {one} and {other}: a trial hits one container of a service, so name one")
    return found


def require_blast_radius(where: str, fault: str, injections: Sequence[Injection], limit: int) -> None:
    """Check that acts hit at most `limit` services at once.

    Raises:
        BadScenario: They are certain to hit more.
    """
    hit = most_at_once(injections)
    if hit > limit:
        raise BadScenario(f"{where}: {fault} would hit {hit} services at once, blast_radius allows {limit}")


def most_at_once(injections: Sequence[Injection]) -> int:
    """Return the most services that a plan is certain to hit at once.

    A passing act stays until all are reverted. A lasting one is the system's to repair,
    and a later act waits for that.
    """
    return max(
        (
            len(
                {
                    a.victim
                    for a in injections
                    if a.after_s == now_s or (a.after_s < now_s and a.fault.lifetime == "passing")
                }
            )
            for now_s in {act.after_s for act in injections}
        ),
        default=0,
    )


def arrivals_of(plan: TrialPlan) -> tuple[Arrival, ...]:
    """Return the trial's requests.

    They have their own random generator, so that a control arm gets the same load.
    """
    rng = rng_for(plan.seed, plan.scenario, "load", plan.repeat)
    return plan.load.schedule(rng, plan.experiment.longest_s(plan.fault))


def require_density(plan: TrialPlan, arrivals: Sequence[Arrival]) -> None:
    """Check that the schedule has enough requests to show steadiness and recovery.

    Two requests are needed within `steady_s` before the steady phase's deadline, and
    within the time in which the service must have recovered, whenever the fault
    strikes.

    Raises:
        BadScenario: A perfect service could not pass.
    """
    experiment, due_s = plan.experiment, [arrival.due_s for arrival in arrivals]
    steady_s = experiment.steady_s
    latest_s = steady_s * STEADY_DEADLINE_FACTOR + STEADY_DEADLINE_MARGIN_S
    offers = f"scenario {plan.scenario!r}: {plan.load} offers {len(due_s)} requests in {experiment.longest_s(plan.fault):g} s"
    if not any(b - a < steady_s and b <= latest_s for a, b in pairwise(due_s)):
        raise BadScenario(
            f"{offers}, never two within steady_s={steady_s:g} of its first {latest_s:g} s, so nothing shows that the "
            "service is steady: raise rate_rps or steady_s"
        )
    within_s = experiment.deadline_s(plan.fault)
    longest_s = max((c - a for a, c in zip(due_s, due_s[2:], strict=False)), default=math.inf)
    if longest_s > within_s:
        raise BadScenario(
            f"{offers}, and none or one in {longest_s:.3g} s, so a service that recovers within {within_s:g} s could not be seen "
            f"to stay good for stable_s={experiment.stable_s:g}: raise rate_rps, repair_within_s or settle_within_s"
        )


def entry_of(plan: TrialPlan) -> ScheduleEntry:
    """Return the trial's entry in the schedule: acts in full, arrivals by their digest.

    Raises:
        BadScenario: The load is too thin to judge by.
    """
    arrivals = arrivals_of(plan)
    require_density(plan, arrivals)
    text = "\n".join([f"{due_s:.6f}\t{tokens}\t{prompt}" for due_s, prompt, tokens in arrivals])
    experiment = plan.experiment
    return ScheduleEntry(
        scenario=plan.scenario,
        fault=str(plan.fault),
        repeat=plan.repeat,
        injections=tuple(
            ScheduledAct(
                after_s=act.after_s,
                fault=act.fault.kind,
                victim=replica_name(act.victim, act.replica),
                options=_options(act),
            )
            for act in plan.injections
        ),
        load=str(plan.load),
        phases=ScheduledPhases(
            steady_s=experiment.steady_s,
            fault_s=experiment.fault_s,
            recovery_s=experiment.deadline_s(plan.fault),
            stable_s=experiment.stable_s,
        ),
        remediator=plan.remediator,
        arrivals=len(arrivals),
        arrivals_sha256=hashlib.sha256(text.encode()).hexdigest(),
        arm=plan.arm or UNSET,
        environment={service: dict(of) for service, of in plan.environment.items()} or UNSET,
        autoscaler=plan.autoscaler or UNSET,
    )


def described(act: Injection) -> str:
    """Return an act with its options, as `flaky(status=503, share=0.3) api at +0 s`."""
    worded = {"at", "on"} if isinstance(act.fault, BeginsAtMoment) else set()
    options = ", ".join(f"{name}={value}" for name, value in plain_strength(act.fault).items() if name not in worded)
    return f"{act.fault.kind}({options}){str(act).removeprefix(act.fault.kind)}" if options else str(act)


def _options(act: Injection) -> dict[str, object]:
    """Return how strong the act is."""
    return {name: plain(value) for name, value in options_of(act.fault).items()}


def schedule(plans: Iterable[TrialPlan]) -> list[ScheduledTrial]:
    """Return the trials of a run in an order independent of the tests' order.

    The arms of one fault and repeat follow each other. The first of them is the one
    whose settings the stack already has, so of two arms with different variables every
    second pair runs in reverse.
    """
    trials = {plan.key: plan for plan in plans}
    found = {
        schedule_bytes([entry]): ScheduledTrial(plan=plan, entry=entry)
        for plan in trials.values()
        for entry in [entry_of(plan)]
    }
    pairs: dict[tuple[str, str, int, bytes], list[ScheduledTrial]] = {}
    for _, trial in sorted(found.items()):
        pairs.setdefault(_pair_of(trial.entry), []).append(trial)
    ordered: list[ScheduledTrial] = []
    present: Environment = NO_VARIABLES
    for _, pair in sorted(pairs.items()):
        in_order = sorted(pair, key=lambda trial: [*trial.plan.experiment.arms, ""].index(trial.plan.arm))
        ordered += with_fewest_changes(in_order, [trial.plan.variables for trial in in_order], present)
        present = ordered[-1].plan.variables
    return ordered


def _pair_of(entry: ScheduleEntry) -> tuple[str, str, int, bytes]:
    """Return what all arms of one fault and repeat share."""
    same = structs.replace(entry, arm=UNSET, environment=UNSET, remediator=True, autoscaler=UNSET)
    return entry.scenario, entry.fault, entry.repeat, schedule_bytes([same])


def schedule_bytes(entries: Sequence[object]) -> bytes:
    """Return entries, or their JSON values, as bytes that can be compared."""
    return json.dumps(msgspec.to_builtins(list(entries)), sort_keys=True, separators=(",", ":")).encode()


def require_capacity(plan: TrialPlan, capacity_tokens_per_s: float, backend: str) -> None:
    """Check that the healthy backend can serve the load.

    A load beyond the capacity measures the machine, not the service.

    Raises:
        BadScenario: It cannot, and the load lacks `beyond_capacity=True`.
    """
    load = plan.load
    if getattr(load, "beyond_capacity", False):
        return
    if load.tokens_per_s > capacity_tokens_per_s:
        if backend == "own":
            limit = f"llmchaos_tokens_per_s is {capacity_tokens_per_s:g}"
            way = f"set llmchaos_tokens_per_s = {math.ceil(load.tokens_per_s)} in the ini file if your healthy stack can serve that"
        else:
            limit = f"the {backend} backend is declared for {capacity_tokens_per_s:g} on 2 cores"
            way = "use --chaos-backend=sim"
        raise BadScenario(
            f"scenario {plan.scenario!r} offers {load.tokens_per_s:g} tokens/s, but {limit}: lower rate_rps or "
            f"max_tokens, {way}, or give a load that is meant to saturate beyond_capacity=True"
        )
