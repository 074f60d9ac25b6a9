"""Samples as columns, which are walked faster than objects."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field

from pytest_llmchaos.model import OUTCOMES, Sample

CODES = {outcome: code for code, outcome in enumerate(OUTCOMES)}
OK, CANCELLED, LEFT = CODES["ok"], CODES["cancelled"], CODES["left"]
# Times count from the start of the load, so all are at least 0.
NO_FIRST = NO_RETRY = -1.0
# Refusals of a client, with and without Retry-After.
NO_REFUSAL, HINTED, UNHINTED = range(3)


def _doubles() -> array[float]:
    return array("d")


@dataclass(frozen=True, kw_only=True)
class Columns:
    """One entry per sample in each column.

    Attributes:
        due_s: Due times in seconds since the load's start.
        first_s: Seconds of the first tokens, NO_FIRST without a token.
        end_s: Seconds of the ends.
        max_gap_s: Longest gaps between tokens, in seconds.
        outcomes: Indexes into OUTCOMES.
        refusals: Results of `refusal`.
    """

    due_s: array[float] = field(default_factory=_doubles)
    first_s: array[float] = field(default_factory=_doubles)
    end_s: array[float] = field(default_factory=_doubles)
    max_gap_s: array[float] = field(default_factory=_doubles)
    outcomes: bytearray = field(default_factory=bytearray)
    refusals: bytearray = field(default_factory=bytearray)


def refusal(status: int, retry_after_s: float | None) -> int:
    """Classify an answer by status (429, 503) and Retry-After.

    Returns:
        NO_REFUSAL, HINTED with Retry-After, or UNHINTED.
    """
    if status not in (429, 503):
        return NO_REFUSAL
    return UNHINTED if retry_after_s is None else HINTED


def columns_of(samples: Iterable[Sample]) -> Columns:
    """Return the columns that `samples` has, or make them."""
    ready = getattr(samples, "columns", None)
    if isinstance(ready, Columns):
        return ready
    made = Columns()
    for sample in samples:
        made.due_s.append(sample.due_s)
        made.first_s.append(NO_FIRST if sample.first_s is None else sample.first_s)
        made.end_s.append(sample.end_s)
        made.max_gap_s.append(sample.max_gap_s)
        made.outcomes.append(CODES[sample.outcome])
        made.refusals.append(refusal(sample.status, sample.retry_after_s))
    return made
