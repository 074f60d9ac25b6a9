"""Key figures, events and claims of one trial, in words."""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import structs

from pytest_llmchaos.evidence.trial_result import LoadResult, PlanNote, SloVerdict, StackResult, TrialResult
from pytest_llmchaos.report.aggregates import detected_by, most_spent
from pytest_llmchaos.report.binning import Raw
from pytest_llmchaos.report.formatting import FIDELITY_MEANS, NONE, at, figure, one_line, percent, seconds
from pytest_llmchaos.report.markers import fault_start_s

FINAL = {"held", "refuted"}


def tiles(trial: TrialResult, raw: Raw, ran_as: str = "") -> list[tuple[str, str, str]]:
    """Return (name, value, explanation) of the trial's key figures.

    `ran_as` is what the services ran as, empty for containers.
    """
    found = [_detection_tile(trial)]
    if trial.lifetime not in {"passing", "none"}:
        found.append(_recovery_tile(trial))
    if trial.time_to_settle_s is not None:
        found.append(("settled", seconds(trial.time_to_settle_s), f"after the fault ended{_seen_to(trial)}"))
    if trial.relapsed_s is not None:
        found.append(("relapsed after", seconds(trial.relapsed_s), "recovered, then bad again"))
    spent = most_spent(trial)
    if spent is not None:
        found.append(
            ("month's error budget spent", percent(spent[0]), f"by {spent[1]}, the most of {len(trial.slos)} SLOs")
        )
    total = sum(raw.outcomes.values())
    if total:
        found.append(("requests", f"{total:,}", _answered(total - raw.outcomes["ok"], is_judged=trial.judged)))
    fidelity = one_line(trial.fidelity, 20)
    means = "; ".join(part for part in (FIDELITY_MEANS.get(fidelity, ""), ran_as) if part)
    found.append(("fidelity", fidelity or NONE, means))
    return found


def _answered(lost: int, *, is_judged: bool) -> str:
    """Return the number of lost requests in words.

    A killed trial has samples only of the requests that had ended.
    """
    if is_judged:
        return f"{lost:,} not answered in full" if lost else "all answered in full"
    ended = (
        f"{lost:,} of those that ended were not answered in full" if lost else "all that ended were answered in full"
    )
    return f"{ended}, requests still open are unknown"


def _detection_tile(trial: TrialResult) -> tuple[str, str, str]:
    if trial.time_to_detect_s is not None:
        return "detected after", seconds(trial.time_to_detect_s), one_line(detected_by(trial), 80)
    return "detected", NONE, "the system raised no signal" if trial.verdict in FINAL else "not judged"


def coincidences(trial: TrialResult) -> list[str]:
    """Return the signals that do not count as detection, with the reason."""
    return [
        f"{one_line(one.what, 60)} after {seconds(one.after_s)} is coincident: {one_line(one.why, 160)}"
        for one in trial.coincident
    ]


def _recovery_tile(trial: TrialResult) -> tuple[str, str, str]:
    if trial.time_to_recover_s is not None:
        by = one_line(trial.repaired_by, 60)
        how = f"repaired by {by}" if by else "by itself"
        return "recovered after", seconds(trial.time_to_recover_s), how + _seen_to(trial)
    return "recovered", NONE, "not before the fault was reverted" if trial.verdict in FINAL else "not judged"


def _seen_to(trial: TrialResult) -> str:
    """Return the resolution of a recovery time."""
    return f", to within {seconds(trial.recovery_resolution_s)}" if trial.recovery_resolution_s else ""


def chronology(trial: TrialResult) -> list[dict[str, str]]:
    """Return phases, proofs and events by time, each with its time since the fault."""
    start_s = fault_start_s(trial)
    entries = [
        *((phase.from_s, "instrument", f"{phase.name} phase begins", "") for phase in trial.phases),
        *((proof.at_s, "witness", f"{proof.step}: {proof.witness}", "") for proof in trial.proof),
        *((event.at_s, one_line(event.source, 20), event.what, one_line(event.service, 40)) for event in trial.events),
    ]
    return [
        {
            "at": at(at_s),
            "since": "" if start_s is None else f"{at_s - start_s:+.3f}",
            "source": source,
            "what": what,
            "service": service,
        }
        for at_s, source, what, service in sorted(entries, key=lambda entry: entry[0])
    ]


def claim_words(nodeid: str) -> str:
    """Return a claim's name in words: `test_kill_is_detected` as "kill is detected"."""
    name = nodeid.rsplit("::", 1)[-1]
    return re.sub(r"_+", " ", name.removeprefix("test_")).strip() or name


def outcome_words(outcomes: Mapping[str, int] | None) -> str:
    """Return a phase's failures by outcome, most frequent first."""
    failed = {name: n for name, n in (outcomes or {}).items() if name not in {"ok", "left", "cancelled"}}
    counted = [(n, one_line(name, 30)) for name, n in failed.items()]
    return ", ".join(f"{name} {n:,.0f}" for n, name in sorted(counted, key=lambda pair: -pair[0]) if n)


def raw_values(slo: SloVerdict) -> list[tuple[str, str]]:
    """Return the raw values behind the ratio."""
    behind = {**slo.raw} if slo.window_s is None else {**slo.raw, "window_s": slo.window_s}
    return [(one_line(name, 60), "" if value is None else figure(value, 9)) for name, value in behind.items()]


def load_words(load: LoadResult | None) -> str:
    """Return how well the load generator kept its schedule, on one line."""
    if load is None or load == LoadResult():
        return "not measured"
    return (
        f"{figure(load.offered_rps)} requests/s offered, {percent(load.achieved_ratio)} of the schedule sent, "
        f"p99 lateness {seconds(load.lateness_p99_s)}, generator CPU {percent(load.generator_cpu)}"
    )


def plan_rows(plan: PlanNote | None) -> list[tuple[str, str]]:
    """Return a trial's plan as (dotted name, value) rows."""
    known = {} if plan is None else structs.asdict(plan)
    return rows_of({name: _plain(value) for name, value in known.items() if value not in (None, ())}, "plan")


def stack_rows(stack: StackResult) -> list[tuple[str, str]]:
    """Return the stack's images and times as rows."""
    return rows_of({name: value for name, value in structs.asdict(stack).items() if value not in (None, {})}, "stack")


def _plain(value: object) -> object:
    return f"{value:g}" if isinstance(value, float) else list(value) if isinstance(value, tuple) else value


def rows_of(value: object, prefix: str = "") -> list[tuple[str, str]]:
    """Return a nested mapping as (dotted name, value) rows."""
    if isinstance(value, Mapping) and (value or not prefix):
        return [row for key, item in value.items() for row in rows_of(item, f"{prefix}.{key}" if prefix else str(key))]
    if isinstance(value, list) and any(isinstance(item, Mapping | list) for item in value):
        return [row for i, item in enumerate(value) for row in rows_of(item, f"{prefix}[{i}]")]
    return [(one_line(prefix, 120), one_line(", ".join(map(str, value)) if isinstance(value, list) else value, 1000))]
