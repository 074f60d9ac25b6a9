"""Pace of scaling: Kubernetes' `behavior` of a HorizontalPodAutoscaler."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lab_autoscaler.decision import Decision
from lab_autoscaler.policies.bounds import Bounds, require_time
from lab_common.values import require_whole

if TYPE_CHECKING:
    from lab_autoscaler.decision import State
    from lab_autoscaler.seen import Observed

_MOST = 100_000  # replicas, or per cent


@dataclass(frozen=True, kw_only=True)
class Paced(Bounds):
    """Windows and rates between a wanted count and the decision.

    Source: kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale,
    "Configurable scaling behavior", and `stabilizeRecommendationWithBehaviors` and
    `convertDesiredReplicasWithBehaviorRate` in
    pkg/controller/podautoscaler/horizontal.go. The defaults are Kubernetes'. Of two
    policies the one with the larger change counts. 0 pods or 0 per cent switches that
    policy off, and both at 0 switch the direction off.

    Args:
        scale_up_window_s: The lowest count of this window, in seconds, limits a rise.
        scale_down_window_s: The highest count of this window, in seconds, limits a
        fall.
        scale_up_pods: The replicas that may be added within a period.
        scale_up_percent: The same, in per cent of the count before the period.
        scale_up_period_s: The period of both, in seconds.
        scale_down_pods: The replicas that may be removed within a period.
        scale_down_percent: The same, in per cent of the count before the period.
        scale_down_period_s: The period of both, in seconds.
    """

    scale_up_window_s: float = 0.0
    scale_down_window_s: float = 300.0
    scale_up_pods: int = 4
    scale_up_percent: int = 100
    scale_up_period_s: float = 15.0
    scale_down_pods: int = 0
    scale_down_percent: int = 100
    scale_down_period_s: float = 15.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("scale_up_window_s", "scale_down_window_s", "scale_up_period_s", "scale_down_period_s"):
            require_time(name, getattr(self, name))
        for name in ("scale_up_pods", "scale_up_percent", "scale_down_pods"):
            require_whole(name, getattr(self, name), at_least=0, at_most=_MOST)
        require_whole("scale_down_percent", self.scale_down_percent, at_least=0, at_most=100)

    def noticed(self, observed: Observed, state: State) -> State:
        """The state with the change of the count since the last observation.

        A change belongs to the last observation, because that decision led to it. A
        decision without an effect is no change, as in a dry run.
        """
        changes = state.changes
        if state.synced_at_s is not None and observed.replicas != state.replicas:
            changes = (*changes, (state.synced_at_s, observed.replicas - state.replicas))
        cutoff_s = observed.now_s - max(self.scale_up_period_s, self.scale_down_period_s)
        return replace(
            state,
            synced_at_s=observed.now_s,
            replicas=observed.replicas,
            changes=tuple(change for change in changes if change[0] > cutoff_s),
        )

    def paced(self, wanted: int, why: str, observed: Observed, state: State) -> Decision:
        """The decision for a wanted count.

        A count outside of the bounds goes to the nearest one at once.
        """
        current = observed.replicas
        if current != self.clamped(current):
            why = f"{current} replicas are outside of {self.minimum} to {self.maximum}"
            return Decision(desired=self.clamped(current), state=state, reason=why)
        stable, state = self._stabilised(wanted, observed, state)
        lowest = min(current, self._lowest(observed, state))
        allowed = min(max(stable, lowest), max(current, self._highest(observed, state)))
        reason = f"{why}: {wanted} wanted" + ("" if stable == wanted else f", {stable} by the window")
        if allowed != stable:
            reason += f", {allowed} by the rate"
        return Decision(desired=self.clamped(allowed), state=state, reason=reason)

    def _stabilised(self, wanted: int, observed: Observed, state: State) -> tuple[int, State]:
        now_s = observed.now_s
        # The first recommendation is the present count: nothing is removed within the
        # first window (`recordInitialRecommendation`).
        earlier = state.recommendations or ((now_s, observed.replicas),)
        low = min([wanted, *(count for at_s, count in earlier if at_s > now_s - self.scale_up_window_s)])
        high = max([wanted, *(count for at_s, count in earlier if at_s > now_s - self.scale_down_window_s)])
        cutoff_s = now_s - max(self.scale_up_window_s, self.scale_down_window_s)
        kept = (*(one for one in earlier if one[0] > cutoff_s), (now_s, wanted))
        return min(max(observed.replicas, low), high), replace(state, recommendations=kept)

    def _highest(self, observed: Observed, state: State) -> int:
        start = _before(self.scale_up_period_s, observed, state)
        limits = []
        if self.scale_up_pods:
            limits.append(start + self.scale_up_pods)
        if self.scale_up_percent:
            limits.append(-(-start * (100 + self.scale_up_percent) // 100))  # rounded up
        return max(limits, default=observed.replicas)

    def _lowest(self, observed: Observed, state: State) -> int:
        start = _before(self.scale_down_period_s, observed, state)
        limits = []
        if self.scale_down_pods:
            limits.append(start - self.scale_down_pods)
        if self.scale_down_percent:
            limits.append(start * (100 - self.scale_down_percent) // 100)
        return min(limits, default=observed.replicas)


def _before(period_s: float, observed: Observed, state: State) -> int:
    """The count at the start of the period that ends now."""
    return observed.replicas - sum(delta for at_s, delta in state.changes if at_s > observed.now_s - period_s)
