"""What a fault did to callers, against its control arm: the same load by the same seed, and no fault. Pure.

Compared are the requests that were due from the fault's start to the trial's end; in the control arm, from where the fault
would have been. The intervals take requests as independent. Those of one outage are not, so they say how well this pair of
trials was measured; what other trials would show is seen by `--chaos-repeat`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_llmchaos.report.aggregates import PROVED
from pytest_llmchaos.report.binning import Raw
from pytest_llmchaos.report.formatting import number
from pytest_llmchaos.report.markers import fault_start_s
from pytest_llmchaos.stats.intervals import CONFIDENCE, Estimate, difference, median, share

Trial = Mapping[str, Any]


def effect(trial: Trial, trials: Sequence[Trial], raws: Mapping[str, Raw]) -> dict[str, Any] | None:
    """The trial's effect against its control arm, as it stands in run.json; None where the run has no such arm."""
    arms = [other for other in trials if other["fault"] == "none" and _experiment(other) == _experiment(trial)]
    if trial["fault"] == "none" or not arms:
        return None
    control = next((arm for arm in arms if arm["verdict"] in PROVED), arms[0])
    sides = [_observed(one, raws.get(one["trial"], Raw())) for one in (trial, control)]
    reason = _why_not([trial, control], sides)
    measures: dict[str, Any] = {}
    if reason is None:
        shares, first, whole = zip(*map(_estimates, sides), strict=True)
        measures = {"availability": _told(*shares), "ttft_p50_s": _told(*first), "e2e_p50_s": _told(*whole)}
    return {
        "control": control["trial"],
        "confidence": CONFIDENCE,
        "requests": {"fault": len(sides[0]), "control": len(sides[1])},
        "reason": reason,
        "availability": None,
        "ttft_p50_s": None,
        "e2e_p50_s": None,
        **measures,
    }


def _experiment(trial: Trial) -> Any:
    """What two arms share: all but the fault. The same load by name, scenario and repeat is the same load by the request."""
    plan = trial.get("plan")
    rest = {key: value for key, value in plan.items() if key != "injections"} if isinstance(plan, Mapping) else None
    return trial["scenario"], trial["repeat"], trial["remediator"], rest


def _why_not(arms: Sequence[Trial], sides: Sequence[Sequence[Any]]) -> str | None:
    for one, seen in zip(arms, sides, strict=True):
        if one["verdict"] not in PROVED:
            return f"trial {one['trial']} is {one['verdict']} and proves nothing"
        if not seen:
            return f"trial {one['trial']} has no request from its fault phase on"
    return None


def _observed(trial: Trial, raw: Raw) -> list[tuple[bool, float, float]]:
    """(ok, time to first token, whole time) of each request that was due from the fault's start to the trial's end.

    Both times are infinite for a failed one; an answer whose first token went unseen showed its caller nothing before its end.
    """
    begin_s = fault_start_s(trial)
    end_s = max((number(phase.get("to_s")) or 0.0 for phase in trial["phases"]), default=0.0)
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


def _told(treated: Estimate, control: Estimate) -> dict[str, float | None]:
    """Both sides, their difference and its interval. What has no finite value is null in run.json."""
    found = difference(treated, control)
    ends = (found.value, found.low, found.high) if found else (None, None, None)
    rounded = [None if end is None else round(end, 6) for end in (treated.value, control.value, *ends)]
    return dict(zip(("fault", "control", "value", "low", "high"), rounded, strict=True))
