"""What unreadable journal lines leave unknown about a run. Pure.

The last line of a process that was killed is often cut off: it was not written to the end, so nothing that counts was in it,
unless it says itself that it was a claim or a judgement.
"""

from __future__ import annotations

from collections.abc import Iterable

from pytest_llmchaos.evidence.journal import CUT_OFF
from pytest_llmchaos.evidence.trial_result import Unreadable

SPOILS = {
    "judged": "the journal's line that judged this trial is unreadable",
    "claim": "the journal's line of a claim about this trial is unreadable",
    None: "a journal line of this trial is unreadable",
}


def damaged(unreadable: Iterable[Unreadable]) -> tuple[Unreadable, ...]:
    """Those that are no cut-off end of a journal."""
    return tuple(one for one in unreadable if one.why != CUT_OFF)


def unplaced(unreadable: Iterable[Unreadable]) -> tuple[Unreadable, ...]:
    """Damaged lines that may speak against any trial: which one they belong to is not readable."""
    return tuple(one for one in damaged(unreadable) if not one.trial and (one.kind in SPOILS or one.kind == "trial"))


def doubts(unreadable: Iterable[Unreadable]) -> dict[str, str]:
    """By trial, why its verdict is not known: the first line that may have decided it and cannot be read."""
    found: dict[str, str] = {}
    for one in unreadable:
        if one.trial and one.kind in SPOILS:
            found.setdefault(one.trial, f"{SPOILS[one.kind]}: {one.why}")
    return found
