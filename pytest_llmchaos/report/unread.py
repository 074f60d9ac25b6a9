"""Effect of unreadable journal lines on the verdicts.

The last line of a killed process is often cut off. Such a line counts only if its kind
is readable and is a claim or a judgement.
"""

from __future__ import annotations

from collections.abc import Iterable

from pytest_llmchaos.evidence.journal import CUT_OFF
from pytest_llmchaos.evidence.trial_result import Unreadable

SPOILS = {
    "judged": "the journal line with this trial's judgement is unreadable",
    "claim": "the journal line of a claim about this trial is unreadable",
    None: "a journal line of this trial is unreadable",
}


def damaged(unreadable: Iterable[Unreadable]) -> tuple[Unreadable, ...]:
    """Return the lines other than a journal's cut-off end."""
    return tuple(one for one in unreadable if one.why != CUT_OFF)


def unplaced(unreadable: Iterable[Unreadable]) -> tuple[Unreadable, ...]:
    """Return the damaged lines that may decide a trial, but do not name it."""
    return tuple(one for one in damaged(unreadable) if not one.trial and (one.kind in SPOILS or one.kind == "trial"))


def doubts(unreadable: Iterable[Unreadable]) -> dict[str, str]:
    """Return why a trial's verdict is unknown, by trial: its first unreadable line."""
    found: dict[str, str] = {}
    for one in unreadable:
        if one.trial and one.kind in SPOILS:
            found.setdefault(one.trial, f"{SPOILS[one.kind]}: {one.why}")
    return found
