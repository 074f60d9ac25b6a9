"""Effect of a fault on clients, compared with its control arm.

The control arm has the same load with the same seed and no fault. The requests compared
are those due from the fault's start (or its planned start) to the trial's end. The
intervals assume independent requests. Requests of one outage are not independent, so an
interval shows how well this pair of trials was measured. `--chaos-repeat` shows how
trials vary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from pytest_llmchaos.evidence.trial_result import Compared, Effect, Measure, TrialResult
from pytest_llmchaos.report.aggregates import PROVED
from pytest_llmchaos.report.binning import Raw
from pytest_llmchaos.report.markers import fault_start_s
from pytest_llmchaos.stats.intervals import CONFIDENCE, Estimate, difference, median, share


def effect(trial: TrialResult, trials: Sequence[TrialResult], raws: Mapping[str, Raw]) -> Effect | None:
    """Return the trial's effect for run.json, None if the run has no control arm."""
    arms = [other for other in trials if other.fault == "none" and _experiment(other) == _experiment(trial)]
    if trial.fault == "none" or not arms:
        return None
    control = next((arm for arm in arms if arm.verdict in PROVED), arms[0])
    sides = [_observations(one, raws.get(one.trial, Raw())) for one in (trial, control)]
    reason = _why_not([trial, control], sides)
    effect = Effect(
        control=control.trial,
        confidence=CONFIDENCE,
        requests=Compared(fault=len(sides[0]), control=len(sides[1])),
        reason=reason,
    )
    if reason is not None:
        return effect
    shares, first, whole = zip(*map(_estimates, sides), strict=True)
    return replace(effect, availability=_measure(*shares), ttft_p50_s=_measure(*first), e2e_p50_s=_measure(*whole))


def _experiment(trial: TrialResult) -> object:
    """Return the identity that two arms share: everything except the fault.

    The same load name, scenario and repeat send the same requests.
    """
    rest = replace(trial.plan, injections=()) if trial.plan else None
    return trial.scenario, trial.repeat, trial.arm, trial.remediator, rest


def _why_not(arms: Sequence[TrialResult], sides: Sequence[Sequence[object]]) -> str | None:
    for one, seen in zip(arms, sides, strict=True):
        if one.verdict not in PROVED:
            return f"trial {one.trial} is {one.verdict} and proves nothing"
        if not seen:
            return f"trial {one.trial} has no requests after the start of its fault phase"
    return None


def _observations(trial: TrialResult, raw: Raw) -> list[tuple[bool, float, float]]:
    """Return (ok, time to first token, whole time) of the requests since the fault.

    Both times are infinite for a failed request. Without a recorded first token, the
    end of the answer counts as its first token.
    """
    begin_s = fault_start_s(trial)
    end_s = max((math.inf if phase.to_s is None else phase.to_s for phase in trial.phases), default=0.0)
    if begin_s is None:
        return []
    rows = zip(raw.due_s, raw.ttft_s, raw.end_s, raw.kind, strict=True)
    return [
        (False, math.inf, math.inf) if kind else (True, min(ttft_s, ended_s - due_s), ended_s - due_s)
        for due_s, ttft_s, ended_s, kind in rows
        if begin_s <= due_s < end_s
    ]


def _estimates(seen: Sequence[tuple[bool, float, float]]) -> tuple[Estimate, Estimate, Estimate]:
    ok, first_s, whole_s = zip(*seen, strict=True)
    return share(sum(ok), len(seen)), median(first_s), median(whole_s)


def _measure(treated: Estimate, control: Estimate) -> Measure:
    """Return both sides, their difference and interval. Infinite values are None."""
    found = difference(treated, control)
    ends = (found.value, found.low, found.high) if found else (None, None, None)
    fault, other, value, low, high = (
        round(end, 6) if end is not None and math.isfinite(end) else None
        for end in (treated.value, control.value, *ends)
    )
    return Measure(fault=fault, control=other, value=value, low=low, high=high)
