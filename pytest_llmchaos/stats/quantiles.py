"""Latency distributions with failed requests as slower than every answer."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence
from typing import ClassVar

from pytest_llmchaos.errors import BadScenario, TooFewSamples
from pytest_llmchaos.stats.bounded import BoundedFloat, NoClaim, Scale
from pytest_llmchaos.stats.intervals import Estimate, least_for_interval, ranks

_MANY = 10_000
_GUESSES = 1000


def nth(values: Sequence[float], rank: int) -> float:
    """Return the value at `rank` (from 1) in ascending order.

    Of many values only those around a guess are sorted, so that the time is linear.
    """
    if len(values) < _MANY:
        return sorted(values)[rank - 1]
    guesses = sorted(values[:: len(values) // _GUESSES])
    at = rank * len(guesses) // len(values)
    margin = len(guesses) // 20
    low = guesses[at - margin] if at > margin else -math.inf
    high = guesses[at + margin] if at + margin < len(guesses) else math.inf
    below = sum([value < low for value in values])
    near = [value for value in values if low <= value <= high]
    if below < rank <= below + len(near):
        return sorted(near)[rank - below - 1]
    return sorted(values)[rank - 1]


def nearest_rank(q: float, count: int) -> int:
    """Return the rank (from 1) that a share `q` of `count` values do not exceed."""
    return max(1, math.ceil(round(q * count, 6)))  # decimal fractions are not exact


class Quantiles(NoClaim):
    """A latency of all requests of a window.

    Nearest rank: each quantile is a value that a client saw, or infinity.

    Args:
        what: Name of the latency.
        values: Seconds of each answer.
        failed: Requests without an answer. Each is slower than every answer.
        unknown: Requests that were open when the load ended.
        where: The window, as messages name it.
        hint: Advice that gives the window more requests.
        exists: False for a latency that the requests do not have, such as the first
            token of a task. It cannot be claimed.
        of: What the values are about, such as "tasks".
        ends: What would have given the least value, and the largest.
        growing: Values that may have become larger since.
        undecided: Why `growing` or `unknown` ones are open, and what to do. Empty for
            requests that were open when the load ended.
    """

    how_to_claim: ClassVar[str] = "such as .p95 <= 2"

    __slots__ = (
        "_ends",
        "_exists",
        "_failed",
        "_growing",
        "_hint",
        "_least",
        "_of",
        "_undecided",
        "_unknown",
        "_values",
        "_what",
        "_where",
    )

    def __init__(
        self,
        what: str,
        values: Iterable[float],
        failed: int = 0,
        *,
        unknown: int = 0,
        where: str = "the window",
        hint: str = "raise rate_rps",
        exists: bool = True,
        of: str = "requests",
        ends: tuple[str, str] = ("every answer had come at once", "no request had been answered"),
        growing: Iterable[float] = (),
        undecided: str = "",
    ) -> None:
        self._what, self._of, self._ends, self._undecided = what, of, ends, undecided
        self._values, grown = array("d", values), array("d", growing)
        self._growing = len(grown)
        # With `growing` at their least. They count as infinite for the largest value.
        self._least = self._values + grown if grown else self._values
        self._failed, self._unknown = failed, unknown
        self._where, self._hint = where, hint
        self._exists = exists

    def __repr__(self) -> str:
        return f"<{self._what} of {self.count} {self._of}, {self._failed} without an end>"

    @property
    def count(self) -> int:
        """Number of requests."""
        return len(self._least) + self._failed

    def at(self, q: float) -> float:
        """Return the seconds that a share `q` of the requests do not exceed.

        Infinite if too many requests failed.

        Args:
            q: Share of the requests, above 0, below 1. p99 is 0.99.

        Raises:
            BadScenario: `q` is outside its bounds.
            TooFewSamples: There are fewer than 1 / (1 - q) requests. The result would
                be the largest value by another name.
        """
        if not 0 < q < 1:
            raise BadScenario(f"a quantile lies between 0 and 1, got {q!r}: p99 is 0.99")
        # Rounded, because 1 - 0.99 is a little less than 0.01 and would need 101
        # samples.
        return self._at(q, f"p{100 * q:g}", math.ceil(round(1 / (1 - q), 6)))

    def estimate(self, q: float) -> Estimate:
        """Return the quantile with its 95 % interval between two of the values.

        Requests of unknown end count as the fastest for the lower end, and as failed
        for the upper one.

        Args:
            q: Share of the requests, above 0, below 1. p99 is 0.99.

        Raises:
            BadScenario: `q` is outside its bounds.
            TooFewSamples: There are too few requests for the interval: p50 needs 6, p95
                72, p99 368.
        """
        value = float(self.at(q))
        needed = least_for_interval(q)
        if self.count < needed:
            raise TooFewSamples(
                f"the interval of p{100 * q:g} of {self._what} needs {needed} requests, {self._where} has {self.count}: "
                f"{self._hint}"
            )
        low, high = ranks(q, self.count + self._unknown)
        return Estimate(value=value, low=self._lowest(low), high=self._nth(high))

    @property
    def p50(self) -> float:
        """Median in seconds. Needs 2 requests."""
        return self.at(0.50)

    @property
    def p95(self) -> float:
        """95th percentile in seconds. Needs 20 requests."""
        return self.at(0.95)

    @property
    def p99(self) -> float:
        """99th percentile in seconds. Needs 100 requests."""
        return self.at(0.99)

    @property
    def max(self) -> float:
        """Largest value in seconds. Needs 1 request."""
        return self._at(1.0, "max", 1)

    def _at(self, q: float, name: str, needed: int) -> BoundedFloat:
        if not self._exists:
            raise TooFewSamples(
                f"{name} of {self._what} needs requests with tokens, {self._where} lacks them: a task of an agent has an end "
                "alone, so claim e2e_s"
            )
        if self.count < needed:
            raise TooFewSamples(
                f"{name} of {self._what} needs {needed} {self._of if needed > 1 else self._of[:-1]}, {self._where} has {self.count}: "
                f"{self._hint}"
            )
        with_open = nearest_rank(q, self.count + self._unknown)
        value = self._nth_of_least(nearest_rank(q, self.count))
        scale = Scale(
            what=f"{name} of {self._what} {self._where}",
            least=0.0,
            most=math.inf,
            at_least=self._ends[0],
            at_most=self._ends[1],
            advice="bound it above 0 and below infinity",
            undecided=self._undecided,
        )
        if not self._unknown and not self._growing:
            return BoundedFloat(value, scale)
        return BoundedFloat(value, scale, low=self._lowest(with_open), high=self._nth(with_open))

    def _lowest(self, rank: int) -> float:
        """Return the value at a rank if each unknown request was the fastest."""
        return self._nth_of_least(rank - self._unknown) if rank > self._unknown else 0.0

    def _nth_of_least(self, rank: int) -> float:
        return nth(self._least, rank) if rank <= len(self._least) else math.inf

    def _nth(self, rank: int) -> float:
        return nth(self._values, rank) if rank <= len(self._values) else math.inf
