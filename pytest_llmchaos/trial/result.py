"""Conversion of a trial to its value in the journal and `run.json`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from msgspec import structs

from pytest_llmchaos.errors import NoData, ProvesNothing, TooFewSamples, Verdict
from pytest_llmchaos.evidence.trial_result import (
    SOURCES,
    ArmEffect,
    LoadResult,
    PhaseResult,
    Planned,
    PlanNote,
    ReplicaResult,
    ScaleNote,
    ScalingResult,
    ShareInterval,
    SloVerdict,
    TrialResult,
)
from pytest_llmchaos.model import replica_name
from pytest_llmchaos.trial.tasks_result import tasks_note, whole
from pytest_llmchaos.trial.trial import FAULT_WINDOWS
from pytest_llmchaos.trial.truths import measure_of

if TYPE_CHECKING:
    from pytest_llmchaos.evidence.trial_record import Record
    from pytest_llmchaos.model import Injection
    from pytest_llmchaos.plan.experiment import TrialPlan
    from pytest_llmchaos.stats.effects import Effect
    from pytest_llmchaos.stats.quantiles import Quantiles
    from pytest_llmchaos.stats.windows import Window
    from pytest_llmchaos.trial.replicas import Replica
    from pytest_llmchaos.trial.scaling import Scaling
    from pytest_llmchaos.trial.slo_result import SloResult
    from pytest_llmchaos.trial.trial import Trial

NOT_PHASES = (*FAULT_WINDOWS, "whole")


def plan_note(plan: TrialPlan) -> Planned:
    """Return the part of the value that is known before the trial begins."""
    experiment = plan.experiment
    return Planned(
        scenario=plan.scenario,
        hypothesis=plan.hypothesis,
        fault=str(plan.fault),
        target=plan.fault.target,
        lifetime=plan.fault.lifetime,
        fidelity=plan.fault.fidelity,
        remediator=plan.remediator,
        repeat=plan.repeat,
        arm=plan.arm or None,
        environment={service: dict(variables) for service, variables in plan.environment.items()},
        autoscaler=plan.autoscaler,
        plan=PlanNote(
            load=str(plan.load),
            injections=tuple(str(act) for act in plan.injections),
            steady_s=experiment.steady_s,
            fault_s=experiment.fault_s,
            recovery_s=experiment.deadline_s(plan.fault),
            repair_within_s=experiment.repair_within_s,
            settle_within_s=experiment.settle_within_s,
            stable_s=experiment.stable_s,
        ),
    )


def result_of(plan: TrialPlan, record: Record, verdict: Verdict, reason: str | None = None) -> TrialResult:
    """Return the value of a trial that was not judged: its plan and its record."""
    return TrialResult(
        **structs.asdict(plan_note(plan)),
        trial=record.trial,
        verdict=verdict,
        reason=reason,
        judged=True,
        victim=", ".join(dict.fromkeys(_victim_of(act, record) for act in plan.injections)) or None,
        proof=tuple(record.proofs),
        load=LoadResult(),
        events=tuple(record.events),
        findings=tuple(record.findings),
        undo=record.undo,
        healed=record.healed,
    )


def _victim_of(act: Injection, record: Record) -> str:
    return replica_name(act.victim, record.replicas.get(act.victim, act.replica))


def judged_result(record: Record, trial: Trial) -> TrialResult:
    """Return the value of a judged trial, which holds until a claim fails."""
    return structs.replace(
        result_of(trial.plan, record, "held"),
        time_to_detect_s=trial.detect_s,
        detected_by=None if trial.detected_by is None else str(trial.detected_by),
        detection_source=next((one for one in SOURCES if one == trial.detection_source), None),
        coincident=trial.coincident,
        time_to_recover_s=trial.recover.took_s,
        time_to_settle_s=trial.settle.took_s,
        recovery_resolution_s=trial.recover.resolution_s if trial.settle.took_s is None else trial.settle.resolution_s,
        relapsed_s=trial.relapsed_s,
        repaired_by=None if trial.repaired_by is None else str(trial.repaired_by),
        attempts_per_request=round(trial.attempts, 4) if isinstance(trial.attempts, float) else None,
        phases=tuple(phase_of(name, window) for name, window in trial.windows.items() if name not in NOT_PHASES),
        slos=tuple(map(_slo, trial.slos.values())),
        load=trial.load,
        tasks=None if trial.agent_tasks is None else tasks_note(trial.agent_tasks),
        scaling=None if trial.scaling is None else scaling_note(trial.scaling),
        readyz=trial.readyz,
        replicas=() if trial.replicas_after is None else tuple(map(_replica, trial.replicas_after.replicas)),
    )


def _replica(replica: Replica) -> ReplicaResult:
    return ReplicaResult(
        name=replica.name,
        answered=replica.answered,
        of=replica.of,
        trouble=replica.trouble,
        unknown=replica.unknown,
    )


def scaling_note(scaling: Scaling) -> ScalingResult:
    """Return the autoscaler's acts with each value that the evidence has."""
    return ScalingResult(
        replica_hours=round(float(scaling.replica_hours), 6),
        max_replicas=int(scaling.max_replicas),
        flaps=whole(lambda: scaling.flaps),
        cut_by_scale_down=whole(lambda: scaling.cut_by_scale_down),
        acts=tuple(
            ScaleNote(at_s=round(act.at_s, 3), replica=act.replica, direction=act.direction) for act in scaling.acts
        ),
    )


def effect_note(effect: Effect) -> ArmEffect:
    """Return an effect that a claim read, as the journal has it."""
    value, low, high, first, second = (
        round(float(one), 6) if math.isfinite(one) else None
        for one in (effect.value, effect.low, effect.high, effect.first, effect.second)
    )
    return ArmEffect(
        measure=effect.measure,
        first=effect.arms[0],
        second=effect.arms[1],
        is_ratio=effect.is_ratio,
        first_value=first,
        second_value=second,
        value=value,
        low=low,
        high=high,
        first_requests=effect.requests[0],
        second_requests=effect.requests[1],
    )


def phase_of(name: str, window: Window) -> PhaseResult:
    return PhaseResult(
        name=name,
        from_s=round(window.from_s, 3),
        to_s=round(window.to_s, 3),
        offered=window.offered,
        ok=int(window.ok),
        outcomes={outcome: int(count) for outcome, count in window.outcomes.items() if int(count)},
        ttft_p95_s=_quantile(window.ttft_s, "p95"),
        e2e_p95_s=_quantile(window.e2e_s, "p95"),
        e2e_p99_s=_quantile(window.e2e_s, "p99"),
    )


def _quantile(of: Quantiles, which: str) -> float | None:
    try:
        value = float(getattr(of, which))
    except TooFewSamples:
        return None
    return round(value, 6) if math.isfinite(value) else None


def _slo(result: SloResult) -> SloVerdict:
    return SloVerdict(
        name=result.name,
        objective=result.objective,
        value=round(float(result.value), 6),
        met=_is_met(result),
        bad_s=round(float(result.bad_s), 3),
        query=result.query,
        budget_spent=_budget_spent(result),
        burn_rate=round(float(result.burn_rate), 4),
        clients_say=None if result.clients_say is None else round(result.clients_say, 6),
        second_truth=measure_of(result.slo) or "none",
        raw=dict(result.raw),
        window_s=round(result.window_s, 3),
        interval=_interval(result),
    )


def _interval(result: SloResult) -> ShareInterval | None:
    seen = result.within
    if seen is None:
        return None
    low, high = (round(end, 6) for end in result.share)
    upper_s = seen.upper_s if math.isfinite(seen.upper_s) else None
    return ShareInterval(low=low, high=high, bound_s=seen.bound_s, lower_edge_s=seen.lower_s, upper_edge_s=upper_s)


def _is_met(result: SloResult) -> bool | None:
    try:
        return result.met
    except ProvesNothing:
        return None


def _budget_spent(result: SloResult) -> float | None:
    try:
        return float(result.budget_spent)
    except NoData:
        return None
