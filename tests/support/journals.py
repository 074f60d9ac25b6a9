"""Journal lines for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmchaos.evidence import journal_lines as lines
from pytest_llmchaos.evidence.journal import Written, line_of

if TYPE_CHECKING:
    from pytest_llmchaos.evidence.journal import Journal


def written(kind: str, **fields: object) -> Written:
    """Return a line as a reader of the journal sees it."""
    found = line_of({"at_unix_s": 1.0, "kind": kind, **fields})
    assert found is not None, kind
    return found


def intend(journal: Journal, victim: str, op: str = "ensure_running", trial: str = "001") -> None:
    """Announce a fault."""
    undo = lines.UndoNote(op=op, service=victim, args={})
    journal.write(lines.Intent(trial=trial, step="inject", fault="kill", victim=victim, undo=undo))


def undo(journal: Journal, victim: str, op: str = "ensure_running", *, ok: bool = True, trial: str = "001") -> None:
    """Announce that the fault was reverted."""
    journal.write(lines.Undone(trial=trial, victim=victim, op=op, ok=ok))
