"""Marks on a trial's timeline: fault, detection, recovery, revert, events."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_llmchaos.evidence.trial_result import EventNote, TrialResult
from pytest_llmchaos.report.formatting import one_line, seconds

SOURCES = {"runtime": "runtime", "prometheus": "alert", "remediator": "remedy", "instrument": "own"}


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One moment on the timeline. `css` is its style.

    A `key` mark has a label in the chart. The table explains the others.
    """

    at_s: float
    css: str
    label: str
    key: bool = False


def fault_start_s(trial: TrialResult) -> float | None:
    """Return when the fault took effect by its proof, else when its phase began."""
    proofs = [proof.at_s for proof in trial.proof if proof.step == "injected"]
    phases = [phase.from_s for phase in trial.phases if phase.name == "fault"]
    return next(iter([*proofs, *phases]), None)


def marks(trial: TrialResult) -> list[Mark]:
    """Return the marks by time. Fault, detection, recovery and revert have labels."""
    found = [
        Mark(at_s=event.at_s, css=SOURCES.get(event.source, "own"), label=_describe(event)) for event in trial.events
    ]
    start_s = fault_start_s(trial)
    if start_s is not None and trial.fault != "none":
        found.append(
            Mark(at_s=start_s, css="fault", label=f"{one_line(trial.fault, 40)} at {seconds(start_s)}", key=True)
        )
    found.extend(_counted_marks(trial, start_s))
    found += [
        Mark(at_s=proof.at_s, css="healed", label="revert proved", key=True)
        for proof in trial.proof
        if proof.step == "healed"
    ]
    return sorted(found, key=lambda mark: mark.at_s)


def _counted_marks(trial: TrialResult, start_s: float | None) -> list[Mark]:
    """Return detection and recovery, both counted from the start of the fault."""
    found = []
    for word, took_s, who in (
        ("detected", trial.time_to_detect_s, trial.detected_by),
        ("recovered", trial.time_to_recover_s, trial.repaired_by),
    ):
        if took_s is not None and start_s is not None:
            by = one_line(who, 40)
            found.append(
                Mark(
                    at_s=start_s + took_s,
                    css=word,
                    label=f"{word} +{seconds(took_s)}{f' · {by}' if by else ''}",
                    key=True,
                )
            )
    return found


def _describe(event: EventNote) -> str:
    return one_line(f"{event.source}: {event.what}", 120)
