"""Estimates of shares, quantiles, differences and ratios, with 95 % intervals.

There are no random draws, so results are the same bytes every time.

Intervals of differences are made by "square and add" from the intervals of both sides.
Shares use Wilson's interval (Newcombe 1998, "Interval estimation for the difference
between independent proportions", Stat. Med. 17:873-890, method 10). Quantiles use the
distribution-free interval between two order statistics (David & Nagaraja, "Order
Statistics", 7.1), combined as by Zou & Donner 2008, "Construction of confidence
intervals about effect measures", Stat. Med. 27:1693-1702. The latter needs no finite
variance, so failed requests stay in as slower than every answer. Ratios are differences
of logarithms. Where a side is infinite or 0, square and add is undefined, and the ends
are those of the least and the most that both intervals allow, which is wider.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
Z = 1.959963984540054  # the normal distribution's quantile at 0.975
_TAIL = (1 - CONFIDENCE) / 2


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value and its 95 % interval.

    Attributes:
        value: The estimate.
        low: Lower end, infinite if the samples cannot give it.
        high: Upper end, infinite if the samples cannot give it.
    """

    value: float
    low: float
    high: float


def share(hits: int, n: int) -> Estimate:
    """Return a share of `n` independent trials with Wilson's score interval.

    Raises:
        ValueError: `n` is 0, or `hits` is not from 0 to `n`.
    """
    if not n or not 0 <= hits <= n:
        raise ValueError(f"a share needs 0 <= hits <= n and n >= 1, got {hits} of {n}")
    value, z2 = hits / n, Z * Z
    middle = (value + z2 / (2 * n)) / (1 + z2 / n)
    half = Z * math.sqrt(value * (1 - value) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    # At 0 and at n the formula's end is the value itself, but for rounding.
    return Estimate(value=value, low=min(value, max(0.0, middle - half)), high=max(value, min(1.0, middle + half)))


def median(values: Sequence[float]) -> Estimate:
    """Return the median (nearest rank) between two order statistics.

    Infinite values stand for failed requests. Fewer than 6 values give infinite ends.

    Raises:
        ValueError: There are no values.
    """
    if not values:
        raise ValueError("a median needs 1 value, got 0")
    ordered, n = sorted(values), len(values)
    low, high = ranks(0.5, n)
    return Estimate(
        value=ordered[math.ceil(n / 2) - 1],
        low=ordered[low - 1] if low else -math.inf,
        high=ordered[high - 1] if high <= n else math.inf,
    )


def ranks(q: float, n: int) -> tuple[int, int]:
    """Return the ranks (from 1) of the order statistics around a quantile.

    Each is beyond the quantile with a probability of at most 2.5 %. Too few values give
    the ranks 0 and n + 1, which have no value.

    Args:
        q: Share of the values below the quantile, above 0, below 1.
        n: Number of values.
    """
    return _low_rank(n, q), n + 1 - _low_rank(n, 1 - q)


def least_for_interval(q: float) -> int:
    """Return the fewest values of which both ranks around a quantile have one."""
    return math.ceil(math.log(_TAIL) / math.log(max(q, 1 - q)))


def _low_rank(n: int, q: float) -> int:
    """Return the highest rank with an order statistic above the quantile in <= 2.5 %.

    0 if there is no such rank. The number of values below the quantile is binomial with
    n and q. Terms too far from its mean to count are left out.
    """
    far = 12 * math.sqrt(n * q * (1 - q)) + 40
    below, rank = 0.0, max(0, math.floor(n * q - far))
    while (below := below + _binomial(rank, n, q)) <= _TAIL:
        rank += 1
    return rank


def _binomial(k: int, n: int, q: float) -> float:
    """Return the probability of `k` among `n` with the probability `q` of each."""
    ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return math.exp(ways + k * math.log(q) + (n - k) * math.log1p(-q))


def difference(treated: Estimate, control: Estimate) -> Estimate | None:
    """Return treated - control by square and add.

    None if a value is infinite.
    """
    if not (math.isfinite(treated.value) and math.isfinite(control.value)):
        return None
    value = treated.value - control.value
    return Estimate(
        value=value,
        low=value - math.hypot(treated.value - treated.low, control.high - control.value),
        high=value + math.hypot(treated.high - treated.value, control.value - control.low),
    )


def contrast(first: Estimate, second: Estimate) -> Estimate | None:
    """Return first - second, also if one of them is infinite.

    None if both values are infinite, so that nothing is known of their difference.
    """
    found = difference(first, second)
    if found is not None:
        return found
    value = first.value - second.value
    if math.isnan(value):
        return None
    low, high = first.low - second.high, first.high - second.low
    return Estimate(value=value, low=-math.inf if math.isnan(low) else low, high=math.inf if math.isnan(high) else high)


def ratio(first: Estimate, second: Estimate) -> Estimate | None:
    """Return first / second of estimates that are not below 0.

    None if both values are 0, or both infinite.
    """
    found = contrast(_logarithm(first), _logarithm(second))
    if found is None:
        return None
    return Estimate(value=_power(found.value), low=_power(found.low), high=_power(found.high))


def _logarithm(one: Estimate) -> Estimate:
    value, low, high = (math.log(end) if end > 0 else -math.inf for end in (one.value, one.low, one.high))
    return Estimate(value=value, low=low, high=high)


def _power(exponent: float) -> float:
    try:
        return math.exp(exponent)
    except OverflowError:
        return math.inf
