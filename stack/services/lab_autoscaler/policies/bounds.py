"""Checks and steps that all laws share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lab_autoscaler.decision import Decision
from lab_common.values import InvalidValueError, require, require_one_of, require_whole

if TYPE_CHECKING:
    from lab_autoscaler.decision import State
    from lab_autoscaler.seen import Observed

MOST_REPLICAS = 10_000
LONGEST_S = 1e6
METRICS = ("utilisation", "waiting", "running", "requests", "rate_rps")
_ROUNDING = 1e-9  # 0.7 / 0.1 is 6.999999999999999, and 1.1 / 0.1 is 11.000000000000002


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Limits of the wanted count.

    Args:
        minimum: The fewest replicas that the law wants.
        maximum: The most replicas that it wants.
        no_data_is_zero: Treat an unknown value as 0 instead of holding the count, as
            PromQL's `or vector(0)` does. An outage of the metrics then looks idle.
    """

    LOWEST: ClassVar[int] = 1  # the least `minimum`. Only two of the laws stop the last replica

    minimum: int = 1
    maximum: int = 4
    no_data_is_zero: bool = False

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            InvalidValueError: with the field, the bound and the value.
        """
        require_whole("minimum", self.minimum, at_least=self.LOWEST, at_most=MOST_REPLICAS)
        require_whole("maximum", self.maximum, at_least=max(1, self.minimum), at_most=MOST_REPLICAS)
        if not isinstance(self.no_data_is_zero, bool):
            raise InvalidValueError(f"no_data_is_zero must be True or False, got {self.no_data_is_zero!r}")

    def clamped(self, replicas: int) -> int:
        return min(max(replicas, self.minimum), self.maximum)

    def held(self, missing: str, observed: Observed, state: State) -> Decision:
        """Hold the count, because a value is unknown."""
        desired = self.clamped(observed.replicas)
        return Decision(desired=desired, state=state, reason=f"no data: {missing} is unknown", blind=True)


def require_above_zero(name: str, value: float, *, at_most: float = math.inf) -> None:
    require(name, value, above=0.0, at_most=at_most)


def require_share(name: str, value: float) -> None:
    """Check that a value lies between 0 and 1, both excluded."""
    require(name, value, above=0.0)
    if value >= 1.0:
        raise InvalidValueError(f"{name} must be less than 1, got {value!r}")


def require_time(name: str, value: float) -> None:
    require(name, value, at_most=LONGEST_S)


def require_metric(value: str) -> None:
    require_one_of("metric", value, METRICS)


def sum_of(metric: str, observed: Observed) -> float | None:
    """A metric's sum over the replicas, or None if it is unknown.

    `requests` is the sum of waiting and running requests, `utilisation` the number of
    replicas that the running requests fill.
    """
    if metric == "requests":
        if observed.waiting is None or observed.running is None:
            return None
        return observed.waiting + observed.running
    if metric == "utilisation":
        return None if observed.utilisation is None else observed.utilisation * observed.reporting
    value: float | None = getattr(observed, metric)
    return value


def mean_of(metric: str, observed: Observed) -> float | None:
    """A metric's mean over the reporting replicas, or None if it is unknown."""
    total = sum_of(metric, observed)
    return None if total is None or observed.reporting == 0 else total / observed.reporting


def rounded_up(value: float) -> int:
    """The whole number at or above a value, which float arithmetic may have moved."""
    return math.ceil(min(value, 1e9) - _ROUNDING)


def rounded_down(value: float) -> int:
    """The whole number at or below a value, which float arithmetic may have moved."""
    return math.floor(value + _ROUNDING)


def at_most(value: float, limit: float) -> bool:
    """Compare a value with a limit, up to float arithmetic."""
    return value <= limit + _ROUNDING
