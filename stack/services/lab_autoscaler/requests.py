"""Requests of the simulated clients, and the counts that a gateway exports."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Fate(Enum):
    """Result of a request."""

    OPEN = "open"  # without a result yet
    SERVED = "served"
    SHED = "shed"  # refused by a full queue, or by its deadline in the queue
    LOST = "lost"  # died with a replica, was cut, or found no replica


@dataclass(eq=False, kw_only=True, slots=True)
class Request:
    """One request of a client."""

    index: int
    at_s: float
    prompt_tokens: int
    answer_tokens: int
    retries: int  # attempts that it has left
    fate: Fate = Fate.OPEN
    waits: bool = False
    first_token_s: float | None = None  # time, of its last attempt
    end_s: float | None = None
    sent_s: float | None = None  # time at which a replica got its last attempt
    refused_by: int | None = None  # number of the replica that failed its last attempt

    @property
    def mean_gap_s(self) -> float:
        """Mean seconds between the tokens of a whole answer. 0 for one token."""
        if self.answer_tokens == 1 or self.end_s is None or self.first_token_s is None:
            return 0.0
        return (self.end_s - self.first_token_s) / (self.answer_tokens - 1)


@dataclass(kw_only=True, slots=True)
class Counts:
    """Counters of the gateway since the start."""

    arrived: int = 0
    first_tokens: int = 0  # and requests that ended without one
    first_tokens_in_time: int = 0
    answers: int = 0  # and requests that ended without one
    answers_in_time: int = 0  # by the mean gap between tokens
    lost_at_zero: int = 0
    queue_timeouts: int = 0
