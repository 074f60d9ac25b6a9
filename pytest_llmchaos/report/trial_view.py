"""One trial told for a reader: its key figures, its events in order, its claims in plain words. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pytest_llmchaos.report.aggregates import most_spent
from pytest_llmchaos.report.binning import Raw
from pytest_llmchaos.report.formatting import FIDELITY_MEANS, NONE, at, figure, number, one_line, percent, seconds
from pytest_llmchaos.report.markers import fault_start_s

Trial = Mapping[str, Any]

SLO_FIELDS = {"name", "objective", "value", "query", "budget_spent", "burn_rate", "callers_say"}
FINAL = {"held", "refuted"}


def tiles(trial: Trial, raw: Raw, ran_as: str = "") -> list[tuple[str, str, str]]:
    """(what, value, how) of the figures that a reader looks for first. `ran_as`: services that were no containers."""
    found = [_detected(trial)]
    if trial.get("lifetime") not in {"passing", "none"}:
        found.append(_recovered(trial))
    if number(trial.get("time_to_settle_s")) is not None:
        found.append(("settled", seconds(trial["time_to_settle_s"]), "after the fault ended"))
    spent = most_spent(trial)
    if spent is not None:
        found.append(("month's error budget spent", percent(spent[0]), f"{spent[1]}, the most of {len(trial['slos'])}"))
    total = sum(raw.outcomes.values())
    if total:
        lost = total - raw.outcomes["ok"]
        found.append(("requests", f"{total:,}", f"{lost:,} not answered in full" if lost else "all answered in full"))
    fidelity = one_line(trial.get("fidelity"), 20)
    means = "; ".join(part for part in (FIDELITY_MEANS.get(fidelity, ""), ran_as) if part)
    found.append(("fidelity", fidelity or NONE, means))
    return found


def _detected(trial: Trial) -> tuple[str, str, str]:
    took_s = trial.get("time_to_detect_s")
    if number(took_s) is not None:
        return "detected after", seconds(took_s), one_line(trial.get("detected_by"), 60)
    return "detected", NONE, "no signal of the system's own" if trial["verdict"] in FINAL else "not judged"


def _recovered(trial: Trial) -> tuple[str, str, str]:
    took_s = trial.get("time_to_recover_s")
    if number(took_s) is not None:
        by = one_line(trial.get("repaired_by"), 60)
        return "recovered after", seconds(took_s), f"repaired by {by}" if by else "by itself"
    return "recovered", NONE, "not before our own revert, or not at all" if trial["verdict"] in FINAL else "not judged"


def chronology(trial: Trial) -> list[dict[str, str]]:
    """Phases, proofs and events in one order, each with its moment and its distance from the fault."""
    start_s = fault_start_s(trial)
    entries: list[tuple[float, str, str, str]] = []
    for phase in trial["phases"]:
        from_s = number(phase.get("from_s"))
        if from_s is not None:
            entries.append((from_s, "instrument", f"{phase.get('name')} phase begins", ""))
    for proof in trial["proof"]:
        at_s = number(proof.get("at_s"))
        if at_s is not None:
            entries.append((at_s, "witness", f"{proof.get('step')}: {proof.get('witness')}", ""))
    for event in trial["events"]:
        at_s = number(event.get("at_s"))
        if at_s is not None:
            entries.append(
                (at_s, one_line(event.get("source"), 20), str(event.get("what")), one_line(event.get("service"), 40))
            )
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


def claim_words(nodeid: Any) -> str:
    """«scenarios/test_kill_api.py::test_kill_api_is_detected» reads «kill api is detected»."""
    name = str(nodeid).rsplit("::", 1)[-1]
    return re.sub(r"_+", " ", name.removeprefix("test_")).strip() or name


def outcome_words(outcomes: Any) -> str:
    """What became of a phase's requests, failures only, most frequent first."""
    if not isinstance(outcomes, Mapping):
        return ""
    counted = [
        (number(n) or 0.0, one_line(name, 30)) for name, n in outcomes.items() if name not in {"ok", "cancelled"}
    ]
    return ", ".join(f"{name} {n:,.0f}" for n, name in sorted(counted, key=lambda pair: -pair[0]) if n)


def raw_values(slo: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Whatever the judge wrote beside the standard fields: the raw values behind the ratio."""
    found: list[tuple[str, str]] = []
    for key, value in slo.items():
        if key in SLO_FIELDS:
            continue
        if isinstance(value, Mapping):
            found.extend((one_line(name, 60), _value(item)) for name, item in value.items())
        else:
            found.append((one_line(key, 60), _value(value)))
    return found


def _value(value: Any) -> str:
    return figure(value, 9) if number(value) is not None else one_line(value, 400)


def load_words(load: Any) -> str:
    """How well the load generator kept its schedule, in one line."""
    if not isinstance(load, Mapping) or not load:
        return "not measured"
    return (
        f"{figure(load.get('offered_rps'))} requests/s offered, {percent(load.get('achieved_ratio'))} of the schedule sent, "
        f"p99 lateness {seconds(load.get('lateness_p99_s'))}, generator CPU {percent(load.get('generator_cpu'))}"
    )


def rows_of(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """A nested mapping as (dotted name, value) rows."""
    if isinstance(value, Mapping) and (value or not prefix):
        return [row for key, item in value.items() for row in rows_of(item, f"{prefix}.{key}" if prefix else str(key))]
    if isinstance(value, list) and any(isinstance(item, Mapping | list) for item in value):
        return [row for i, item in enumerate(value) for row in rows_of(item, f"{prefix}[{i}]")]
    return [(one_line(prefix, 120), one_line(", ".join(map(str, value)) if isinstance(value, list) else value, 1000))]
