"""Latency bounds between the edges of a histogram."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def neighbours(edges: Iterable[float], bound: float) -> tuple[float, float]:
    """Return the nearest edge at or below a bound, and the nearest at or above it.

    Both are the bound if it is an edge. The lower one is 0 below the first edge, the
    upper one is infinite above the last.

    Args:
        edges: Upper bounds of the histogram's buckets, in the unit of the bound.
        bound: The bound.
    """
    known = [*edges]
    lower = max((one for one in known if one <= bound), default=0.0)
    return lower, min((one for one in known if one >= bound), default=math.inf)


def described(lower: float, upper: float) -> str:
    """Return where a bound in seconds lies that is no edge, by `neighbours`."""
    if not lower:
        return f"below the first edge, {upper:g} s"
    return f"above the last edge, {lower:g} s" if math.isinf(upper) else f"between the edges {lower:g} and {upper:g} s"


@dataclass(frozen=True, kw_only=True)
class Within:
    """Number of events within a bound, as far as a histogram's edges show it.

    Attributes:
        bound_s: The bound in seconds.
        lower_s: The edge at or below it, the lowest one of several histograms.
        upper_s: The edge at or above it, the highest one. Infinite without one.
        least: Events within the lower edges. They are within the bound.
        most: Events within the upper edges. Others are not within the bound.
    """

    bound_s: float
    lower_s: float
    upper_s: float
    least: float
    most: float

    @property
    def is_exact(self) -> bool:
        """True if the bound is an edge of each histogram."""
        return self.lower_s == self.upper_s

    @property
    def place(self) -> str:
        """Place of the bound, such as `between the edges 0.4 and 0.8 s`."""
        return described(self.lower_s, self.upper_s)


def within(histograms: Iterable[Mapping[float, float]], bound_s: float) -> Within:
    """Return the number of events within a bound, over all histograms.

    Histograms of different servers may have different edges, so each counts by its own.

    Args:
        histograms: Cumulative counts of each histogram by edge. An edge is infinite.
        bound_s: The bound in seconds.
    """
    found = [(one, *neighbours(one, bound_s)) for one in histograms]
    return Within(
        bound_s=bound_s,
        lower_s=min((lower for _, lower, _ in found), default=bound_s),
        upper_s=max((upper for _, _, upper in found), default=bound_s),
        least=sum(one.get(lower, 0.0) for one, lower, _ in found),
        most=sum(one.get(upper, 0.0) for one, _, upper in found),
    )
