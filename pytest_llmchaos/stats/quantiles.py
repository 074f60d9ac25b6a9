"""A latency distribution in which failed requests are slower than every answer. Pure."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence

from pytest_llmchaos.errors import BadScenario, TooFewSamples

HINT = "raise rate_rps or fault_s"
_MANY = 10_000
_GUESSES = 1000


def nth(values: Sequence[float], rank: int) -> float:
    """The value at `rank` (from 1) in ascending order.

    Of many values only those around a guess are sorted, so that ten times the samples cost no more than ten times the time.
    """
    if len(values) < _MANY:
        return sorted(values)[rank - 1]
    guesses = sorted(values[:: len(values) // _GUESSES])
    at = rank * len(guesses) // len(values)
    margin = len(guesses) // 20
    low = guesses[max(0, at - margin)] if at > margin else -math.inf
    high = guesses[at + margin] if at + margin < len(guesses) else math.inf
    below = sum([value < low for value in values])
    near = [value for value in values if low <= value <= high]
    if below < rank <= below + len(near):
        return sorted(near)[rank - below - 1]
    return sorted(values)[rank - 1]


def nearest_rank(q: float, count: int) -> int:
    """The rank (from 1) of the value that a share `q` of `count` values stay within."""
    return max(1, math.ceil(round(q * count, 6)))  # decimal fractions are not exact


class Quantiles:
    """A latency of all requests of a window. Nearest rank: each answer is a value that a caller saw, or infinity."""

    __slots__ = ("_censored", "_values", "_what")

    def __init__(self, what: str, values: Iterable[float], censored: int = 0) -> None:
        self._what = what
        self._values = array("d", values)
        self._censored = censored

    def __repr__(self) -> str:
        return f"<{self._what} of {self.count} requests, {self._censored} without an end>"

    @property
    def count(self) -> int:
        return len(self._values) + self._censored

    def at(self, q: float) -> float:
        """The value that a share `q` of the requests stay within; infinite where so many failed.

        Raises TooFewSamples below 1 / (1 - q) requests: the number would be the largest value by another name.
        """
        if not 0 < q < 1:
            raise BadScenario(f"a quantile lies between 0 and 1, got {q!r}: p99 is 0.99")
        # Decimal fractions are not exact: 1 - 0.99 is a little less than 0.01, and must not ask for 101 samples.
        needed = math.ceil(round(1 / (1 - q), 6))
        if self.count < needed:
            raise TooFewSamples(f"p{100 * q:g} needs {needed} samples, got {self.count}: {HINT}")
        rank = nearest_rank(q, self.count)
        return nth(self._values, rank) if rank <= len(self._values) else math.inf

    @property
    def p50(self) -> float:
        return self.at(0.50)

    @property
    def p95(self) -> float:
        return self.at(0.95)

    @property
    def p99(self) -> float:
        return self.at(0.99)

    @property
    def max(self) -> float:
        if not self.count:
            raise TooFewSamples(f"a maximum needs 1 sample, got 0: {HINT}")
        return math.inf if self._censored else max(self._values)
