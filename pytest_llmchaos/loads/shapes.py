"""How many requests a load has offered by a given second, and the reverse. Pure arithmetic: no randomness, no clock.

A shape is its cumulative curve. Even arrivals are the curve's inverse at 0, 1, 2, ...; Poisson arrivals are its inverse
at sums of unit exponentials (the time-change theorem), so one inverse serves both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

# Far below the microsecond that schedules are rounded to, so that platforms whose `sin` differs in the last bit agree.
SINE_TOLERANCE_S = 1e-9


class Shape(Protocol):
    """A rate over time. `peak_rps` is its highest value, `mean_rps` what it offers in the long run."""

    @property
    def peak_rps(self) -> float: ...
    @property
    def mean_rps(self) -> float: ...
    def when(self, count: float, after_s: float) -> float:
        """The second at which `count` requests have been offered; `after_s` is an earlier answer, to search from."""
        ...


@dataclass(frozen=True, kw_only=True)
class Constant:
    rate_rps: float

    def __str__(self) -> str:
        return f"{self.rate_rps:g}/s"

    @property
    def peak_rps(self) -> float:
        return self.rate_rps

    @property
    def mean_rps(self) -> float:
        return self.rate_rps

    def when(self, count: float, after_s: float) -> float:  # noqa: ARG002 - the protocol's hint, not needed here
        return count / self.rate_rps


@dataclass(frozen=True, kw_only=True)
class Ramp:
    """From one rate to another in a straight line, then on at the second."""

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

    def when(self, count: float, after_s: float) -> float:  # noqa: ARG002 - the protocol's hint, not needed here
        in_ramp = (self.from_rps + self.to_rps) / 2 * self.over_s
        if count >= in_ramp:
            return self.over_s + (count - in_ramp) / self.to_rps
        slope = (self.to_rps - self.from_rps) / self.over_s
        # The stable form of the quadratic's root: it needs no division by a slope that may be 0.
        root = math.sqrt(self.from_rps * self.from_rps + 2 * slope * count)
        return 2 * count / (self.from_rps + root) if count else 0.0


@dataclass(frozen=True, kw_only=True)
class Burst:
    """A base rate with one burst in it."""

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

    def when(self, count: float, after_s: float) -> float:  # noqa: ARG002 - the protocol's hint, not needed here
        before = self.base_rps * self.after_s
        within = self.burst_rps * self.burst_s
        if count < before:
            return count / self.base_rps
        if count < before + within:
            return self.after_s + (count - before) / self.burst_rps
        return self.after_s + self.burst_s + (count - before - within) / self.base_rps


@dataclass(frozen=True, kw_only=True)
class Sine:
    """A rate that swings around its mean, beginning upwards."""

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
        # The curve never lies below its straight part, so the straight part's answer is late enough.
        high = max(low, count / self.mean_rps)
        while high - low > max(SINE_TOLERANCE_S, 2 * math.ulp(high)):
            middle = (low + high) / 2
            if self.offered(middle) < count:
                low = middle
            else:
                high = middle
        return high
