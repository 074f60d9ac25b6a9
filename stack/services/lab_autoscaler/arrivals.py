"""Requests that arrive at the simulated gateway."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from lab_common.values import InvalidValueError, require, require_whole

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST_TOKENS = 10**7
PEAK_S = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrival:
    """One request: its time in seconds, and the tokens of prompt and answer."""

    at_s: float
    prompt_tokens: int
    answer_tokens: int

    def __post_init__(self) -> None:
        require("at_s", self.at_s)
        require_whole("prompt_tokens", self.prompt_tokens, at_least=1, at_most=_MOST_TOKENS)
        require_whole("answer_tokens", self.answer_tokens, at_least=1, at_most=_MOST_TOKENS)


def arrivals_from(rows: Sequence[object]) -> tuple[Arrival, ...]:
    """The arrivals of JSON rows `[at_s, prompt_tokens, answer_tokens]`.

    Raises:
        InvalidValueError: a row of another form, or one out of the order of time.
    """
    arrivals = []
    for index, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != 3:
            raise InvalidValueError(f"arrivals[{index}]: expected [at_s, prompt_tokens, answer_tokens], got {row!r}")
        try:
            arrivals.append(Arrival(at_s=row[0], prompt_tokens=row[1], answer_tokens=row[2]))
        except InvalidValueError as error:
            raise InvalidValueError(f"arrivals[{index}]: {error}") from None
    return tuple(arrivals)


def require_fit(arrivals: Sequence[Arrival], *, until_s: float, max_model_tokens: int) -> None:
    """Check that each request comes in order, in time, and fits into the model.

    Raises:
        InvalidValueError: with the first that does not.
    """
    if not arrivals:
        raise InvalidValueError("arrivals: expected at least one request, got an empty list")
    for index, (before, after) in enumerate(pairwise(arrivals), 1):
        if after.at_s < before.at_s:
            raise InvalidValueError(
                f"arrivals[{index}]: expected the order of time, got {after.at_s:g} s after {before.at_s:g} s"
            )
    if arrivals[-1].at_s >= until_s:
        raise InvalidValueError(f"arrivals: expected all before until_s, {until_s:g} s, got {arrivals[-1].at_s:g} s")
    lengths = [one.prompt_tokens + one.answer_tokens for one in arrivals]
    if too_long := sum(length > max_model_tokens for length in lengths):
        raise InvalidValueError(
            f"arrivals: {too_long:,} of {len(lengths):,} requests exceed max_model_tokens {max_model_tokens:,}, the longest "
            f"has {max(lengths):,} tokens of prompt and answer: raise the setting max_model_tokens, or shorten them"
        )


def peak_s(arrivals: Sequence[Arrival]) -> float:
    """Start of the busiest minute: the first that begins with an arrival."""
    best, most, end = 0.0, 0, 0
    for begin, one in enumerate(arrivals):
        while end < len(arrivals) and arrivals[end].at_s < one.at_s + PEAK_S:
            end += 1
        if end - begin > most:
            best, most = one.at_s, end - begin
    return best
