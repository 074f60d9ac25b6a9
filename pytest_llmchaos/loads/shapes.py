"""Rates over time, as cumulative curves and their inverses.

Even arrivals are the curve's inverse at 0, 1, 2, .... Poisson arrivals are its inverse
at sums of unit exponentials (the time-change theorem), so one inverse serves both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

# Far below the microsecond to which schedules are rounded, so that platforms whose
# `sin` differs in the last bit agree.
SINE_TOLERANCE_S = 1e-9


class Shape(Protocol):
    """A rate over time.

    Attributes:
        peak_rps: Highest rate, in requests per second.
        mean_rps: Long-run rate, in requests per second.
    """

    @property
    def peak_rps(self) -> float: ...
    @property
    def mean_rps(self) -> float: ...
    def when(self, count: float, after_s: float) -> float:
        """Return the second at which `count` requests have been offered.

        Args:
            count: Number of requests.
            after_s: An earlier result in seconds, from which the search starts.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Constant:
    """A constant rate."""

    rate_rps: float

    def __str__(self) -> str:
        return f"{self.rate_rps:g}/s"

    @property
    def peak_rps(self) -> float:
        return self.rate_rps

    @property
    def mean_rps(self) -> float:
        return self.rate_rps

    def when(self, count: float, after_s: float) -> float:  # noqa: ARG002 - the protocol's signature
        return count / self.rate_rps


@dataclass(frozen=True, kw_only=True)
class Ramp:
    """A linear change from one rate to another, which then stays."""

    from_rps: float
    to_rps: float
    over_s: float

    def __str__(self) -> str:
        return f"ramp {self.from_rps:g}-{self.to_rps:g}/s over {self.over_s:g} s"

    @property
    def peak_rps(self) -> float:
        return max(self.from_rps, self.to_rps)

    @property
    def mean_rps(self) -> float:
        return self.to_rps

    def when(self, count: float, after_s: float) -> float:  # noqa: ARG002 - the protocol's signature
        in_ramp = (self.from_rps + self.to_rps) / 2 * self.over_s
        if count >= in_ramp:
            return self.over_s + (count - in_ramp) / self.to_rps
        slope = (self.to_rps - self.from_rps) / self.over_s
        # This form of the quadratic's root needs no division by the slope.
        root = math.sqrt(self.from_rps * self.from_rps + 2 * slope * count)
        return 2 * count / (self.from_rps + root) if count else 0.0


@dataclass(frozen=True, kw_only=True)
class Burst:
    """A base rate with one burst."""

    base_rps: float
    burst_rps: float
    after_s: float
    burst_s: float

    def __str__(self) -> str:
        return f"{self.base_rps:g}/s with {self.burst_rps:g}/s from {self.after_s:g} s for {self.burst_s:g} s"

    @property
    def peak_rps(self) -> float:
        return max(self.base_rps, self.burst_rps)

    @property
    def mean_rps(self) -> float:
        return self.base_rps

    def when(self, count: float, after_s: float) -> float:  # noqa: ARG002 - the protocol's signature
        before = self.base_rps * self.after_s
        within = self.burst_rps * self.burst_s
        if count < before:
            return count / self.base_rps
        if count < before + within:
            return self.after_s + (count - before) / self.burst_rps
        return self.after_s + self.burst_s + (count - before - within) / self.base_rps


@dataclass(frozen=True, kw_only=True)
class Sine:
    """A rate that oscillates around its mean and rises first."""

    mean_rps: float
    amplitude_rps: float
    period_s: float

    def __str__(self) -> str:
        return f"{self.mean_rps:g}+-{self.amplitude_rps:g}/s every {self.period_s:g} s"

    @property
    def peak_rps(self) -> float:
        return self.mean_rps + self.amplitude_rps

    def offered(self, at_s: float) -> float:
        swing = self.amplitude_rps * self.period_s / math.tau
        return self.mean_rps * at_s + swing * (1 - math.cos(math.tau * at_s / self.period_s))

    def when(self, count: float, after_s: float) -> float:
        low = after_s
        # The curve is never below its linear part, so the linear part's inverse is an
        # upper bound.
        high = max(low, count / self.mean_rps)
        while high - low > max(SINE_TOLERANCE_S, 2 * math.ulp(high)):
            middle = (low + high) / 2
            if self.offered(middle) < count:
                low = middle
            else:
                high = middle
        return high
