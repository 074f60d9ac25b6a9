"""Estimates of shares, medians and differences, with 95 % intervals.

There are no random draws, so results are the same bytes every time.

Intervals of differences are made by "square and add" from the intervals of both sides.
Shares use Wilson's interval (Newcombe 1998, "Interval estimation for the difference
between independent proportions", Stat. Med. 17:873-890, method 10). Medians use the
distribution-free interval between two order statistics (David & Nagaraja, "Order
Statistics", 7.1), combined as by Zou & Donner 2008, "Construction of confidence
intervals about effect measures", Stat. Med. 27:1693-1702. The latter needs no finite
variance, so failed requests stay in as slower than every answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
Z = 1.959963984540054  # the normal distribution's quantile at 0.975
_EXACT_UP_TO = 1000  # beyond it the binomial is normal to the rank


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
    rank = _low_rank(n)
    low, high = (ordered[rank - 1], ordered[n - rank]) if rank else (-math.inf, math.inf)
    return Estimate(value=ordered[math.ceil(n / 2) - 1], low=low, high=high)


def _low_rank(n: int) -> int:
    """Return the highest rank with an order statistic above the median in <= 2.5 %.

    0 if there is no such rank. The number of values below the median is binomial with n
    and 1/2.
    """
    if n > _EXACT_UP_TO:
        return math.floor((n - Z * math.sqrt(n)) / 2)
    below, rank, rare = 0, 0, (1 - CONFIDENCE) / 2 * 2**n
    while (below := below + math.comb(n, rank)) <= rare:
        rank += 1
    return rank


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
