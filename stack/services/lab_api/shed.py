"""Prediction of the time to first token of a request that must wait."""

import math

from lab_api.outcomes import GatewayError, Outcome
from lab_api.priority import Priority
from lab_api.settings import Shedding

_WEIGHT = 0.05  # of one value in a moving average: about the last 20 count
_NEARLY_ALL = 0.999
_RETRY_AFTER_MAX_S = 3600


class Forecast:
    """Averages of what a wait consists of.

    A place becomes free every `held_s / places` seconds. The prediction is that step
    times the requests before this one, and the time to first token itself. A class gets
    the places that higher classes leave (Cobham's priority queue), or its share.
    """

    def __init__(self, *, share: float) -> None:
        self._share = share
        self._held_s: float | None = None
        self._first_token_s = 0.0
        self._taken = dict.fromkeys(Priority, 0.0)  # shares of the places by class

    def granted(self, priority: Priority) -> None:
        """Record that a request of this class has got a place."""
        if self._taken[priority] > _NEARLY_ALL:
            return  # the usual case, and cheap
        for one in Priority:
            self._taken[one] += _WEIGHT * ((one is priority) - self._taken[one])

    def first_token(self, took_s: float) -> None:
        """Record a time from place to first token."""
        self._first_token_s = _moved(self._first_token_s, took_s)

    def ended(self, held_s: float) -> None:
        """Record how long a request has held its place."""
        self._held_s = _moved(self._held_s, held_s)

    def first_token_s(
        self, priority: Priority, *, before: int, depth: int, places: int, running_s: float
    ) -> float | None:
        """Seconds to the first token of a new request. None if nothing is measured yet.

        Args:
            priority: Its class.
            before: Waiting requests of the same class and of higher ones.
            depth: Waiting requests of the same class.
            places: Requests that may be in flight at once.
            running_s: Mean age of those in flight. Twice the average shows a stall,
                which ends no request and so is in no average.
        """
        if self._held_s is None:
            return None
        step_s = max(self._held_s, running_s / 2) / max(1, places)
        higher = sum(taken for one, taken in self._taken.items() if one.rank < priority.rank)
        wait_s = (before + 1) * step_s / max(1 - higher, _WEIGHT)
        if self._share:
            wait_s = min(wait_s, (depth + 1) * step_s / self._share)
        return wait_s + self._first_token_s

    def patience_s(self, limit_s: float) -> float:
        """The longest wait that leaves the first token within the limit."""
        return max(0.0, limit_s - self._first_token_s)


def _moved(average: float | None, value: float) -> float:
    """The average with one more value. The first value is the first average."""
    return average + _WEIGHT * (value - average) if average else value


def refusal(policy: Shedding, predicted_s: float) -> GatewayError:
    """The error for a request whose first token would come too late."""
    return GatewayError(
        outcome=Outcome.REJECTED_PREDICTED,
        message=(
            f"the first token would come after {predicted_s:.1f} s, "
            f"later than the limit of {policy.ttft_s:g} s: send it again later"
        ),
        status=policy.status,
        retry_after_s=min(max(1, math.ceil(predicted_s)), _RETRY_AFTER_MAX_S),
    )
