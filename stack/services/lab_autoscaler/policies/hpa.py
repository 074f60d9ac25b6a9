"""Kubernetes' HorizontalPodAutoscaler, autoscaling/v2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab_autoscaler.policies.bounds import at_most, mean_of, require_above_zero, require_metric, rounded_up
from lab_autoscaler.policies.pace import Paced
from lab_common.values import require

if TYPE_CHECKING:
    from lab_autoscaler.decision import Decision, State
    from lab_autoscaler.seen import Observed


@dataclass(frozen=True, kw_only=True)
class Hpa(Paced):
    """Replicas in proportion to a metric: `ceil(replicas * metric / target)`.

    Source: kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale,
    "Algorithm details", and pkg/controller/podautoscaler/replica_calculator.go. The
    metric is a mean over the reporting replicas. A ready replica without metrics counts
    as 100 % of the target in a scale-down and as 0 in a scale-up. A replica that is not
    ready counts as 0 in a scale-up, and is left out of a scale-down. If these replicas
    reverse the direction, the count stays. Nothing replaces a dead replica: it is one
    that is not ready.

    Kubernetes stops this law at 0 replicas. Here the count goes to `minimum`.

    Args:
        metric: `utilisation`, `waiting`, `running`, `requests` or `rate_rps`.
        target: The metric's wanted mean per replica.
        tolerance: The deviation of metric over target from 1 without an effect.

    Raises:
        InvalidValueError: with the field, the bound and the value.
    """

    metric: str = "utilisation"
    target: float = 0.7
    tolerance: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_metric(self.metric)
        require_above_zero("target", self.target)
        require("tolerance", self.tolerance)

    def decide(self, observed: Observed, state: State) -> Decision:
        state = self.noticed(observed, state)
        mean = mean_of(self.metric, observed)
        if mean is None:
            if not self.no_data_is_zero:
                return self.held(self.metric, observed, state)
            return self.paced(self.minimum, f"{self.metric} is unknown, taken as 0", observed, state)
        why = f"{self.metric} {mean:.4g} a replica, target {self.target:g}"
        return self.paced(self._wanted(mean / self.target, observed), why, observed, state)

    def _wanted(self, ratio: float, observed: Observed) -> int:
        current = observed.replicas
        ready = min(observed.ready, current)
        reporting = min(observed.reporting, ready)
        if ready == 0:  # values of replicas that are not ready are not used
            return current
        rises = ratio > 1
        counted = current if rises else ready
        # In replicas at their target. Silent and cold ones add 0 to a rise.
        used = ratio * reporting + (0 if rises else ready - reporting)
        reverses = rises and used < counted
        return current if reverses or at_most(abs(1 - used / counted), self.tolerance) else rounded_up(used)
