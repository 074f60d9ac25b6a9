"""Faults that a journal announces, with what they did and their reverts."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import UNSET
from msgspec.structs import replace

from pytest_llmchaos.evidence.journal_lines import Intent, Proved, Undone
from pytest_llmchaos.evidence.trial_result import UndoResult


def announced(lines: Iterable[object]) -> tuple[UndoResult, ...]:
    """Return every announced fault of a trial, and if the journal shows its revert.

    Args:
        lines: Lines of the trial in order. Other kinds are ignored.
    """
    found: list[tuple[Intent, UndoResult]] = []
    for line in lines:
        if isinstance(line, Intent):
            options = {} if line.strength is UNSET else line.strength
            fault = UndoResult(fault=line.fault, victim=line.victim, op=line.undo.op, undone=False, strength=options)
            found.append((line, fault))
        elif isinstance(line, Undone) and line.ok:
            found = [(one, replace(fault, undone=fault.undone or _undoes(line, one))) for one, fault in found]
        elif isinstance(line, Proved) and line.intent is not UNSET and line.counts is not UNSET:
            counts = line.counts
            found = [(one, replace(fault, counts=counts) if one.id == line.intent else fault) for one, fault in found]
    return tuple(fault for _, fault in found)


def _undoes(undone: Undone, intent: Intent) -> bool:
    return (undone.intent, undone.victim, undone.op) == (intent.id, intent.victim, intent.undo.op)
