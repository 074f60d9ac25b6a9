"""The moments worth a mark on a trial's timeline, read from the folded trial. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytest_llmchaos.report.formatting import number, one_line, seconds

SOURCES = {"runtime": "runtime", "prometheus": "alert", "remediator": "remedy", "instrument": "own"}


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One moment. `css` names its look; a `key` mark is labelled in the chart, any other is a tick that a table explains."""

    at_s: float
    css: str
    label: str
    key: bool = False


def fault_start_s(trial: Mapping[str, Any]) -> float | None:
    """When the fault took hold by its witness; else when the fault phase began."""
    proofs = [number(proof.get("at_s")) for proof in trial["proof"] if proof.get("step") == "injected"]
    phases = [number(phase.get("from_s")) for phase in trial["phases"] if phase.get("name") == "fault"]
    return next((at_s for at_s in [*proofs, *phases] if at_s is not None), None)


def marks(trial: Mapping[str, Any]) -> list[Mark]:
    """In order of time: the fault, its detection, recovery and undoing with labels; every event with a tick."""
    found = [
        Mark(at_s=at_s, css=SOURCES.get(str(event.get("source")), "own"), label=_told(event))
        for event in trial["events"]
        if (at_s := number(event.get("at_s"))) is not None
    ]
    start_s = fault_start_s(trial)
    if start_s is not None and trial["fault"] != "none":
        found.append(
            Mark(at_s=start_s, css="fault", label=f"{one_line(trial['fault'], 40)} at {seconds(start_s)}", key=True)
        )
    found.extend(_counted(trial, start_s))
    for proof in trial["proof"]:
        at_s = number(proof.get("at_s"))
        if proof.get("step") == "healed" and at_s is not None:
            found.append(Mark(at_s=at_s, css="healed", label="proved healed", key=True))
    return sorted(found, key=lambda mark: mark.at_s)


def _counted(trial: Mapping[str, Any], start_s: float | None) -> list[Mark]:
    """Detection and recovery, which are counted from the start of the fault."""
    found = []
    for key, css, word, who in (
        ("time_to_detect_s", "detected", "detected", "detected_by"),
        ("time_to_recover_s", "recovered", "recovered", "repaired_by"),
    ):
        took_s = number(trial.get(key))
        if took_s is not None and start_s is not None:
            by = one_line(trial.get(who), 40)
            found.append(
                Mark(
                    at_s=start_s + took_s,
                    css=css,
                    label=f"{word} +{seconds(took_s)}{f' · {by}' if by else ''}",
                    key=True,
                )
            )
    return found


def _told(event: Mapping[str, Any]) -> str:
    return one_line(f"{event.get('source')}: {event.get('what')}", 120)
