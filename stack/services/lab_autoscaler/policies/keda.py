"""KEDA: event-driven scaling, which stops the last replica as well."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from lab_autoscaler.decision import Decision
from lab_autoscaler.policies.bounds import (
    at_most,
    require_above_zero,
    require_metric,
    require_time,
    rounded_up,
    sum_of,
)
from lab_autoscaler.policies.pace import Paced
from lab_common.values import require

if TYPE_CHECKING:
    from lab_autoscaler.decision import State
    from lab_autoscaler.seen import Observed


@dataclass(frozen=True, kw_only=True)
class Keda(Paced):
    """A trigger's value over its threshold, and no replica without events.

    Source: keda.sh/docs/latest/reference/scaledobject-spec (the defaults),
    keda.sh/docs/latest/concepts/scaling-deployments (activation), and
    pkg/scaling/executor/scale_scaledobjects.go. Between 1 and `maximum` a
    HorizontalPodAutoscaler decides by the external metric, of type AverageValue:
    `ceil(value / threshold)`, whatever replicas are ready. Between 0 and 1 KEDA decides
    at its polls. An idle trigger that was never active stops the replicas at once. From
    0 only a value that exists without a replica leads back: requests that queue, or
    `rate_rps`. A gateway that refuses them leaves `requests` at 0.

    The threshold is that of the vLLM production stack (autoscaling-keda), whose trigger
    counts waiting requests alone and whose minimum is 1. With a minimum of 0 such a
    trigger stops replicas that still answer, so the default here counts both.

    Args:
        metric: `requests`, `waiting`, `running`, `utilisation` or `rate_rps`, as the
            sum over the replicas.
        threshold: The value that one replica takes.
        activation: A trigger above this value is active.
        polling_s: Seconds between two polls.
        cooldown_s: Seconds from the last active poll until 0 replicas.
        tolerance: As in `Hpa`.

    Raises:
        InvalidValueError: with the field, the bound and the value.
    """

    LOWEST: ClassVar[int] = 0

    minimum: int = 0
    metric: str = "requests"
    threshold: float = 5.0
    activation: float = 0.0
    polling_s: float = 30.0
    cooldown_s: float = 300.0
    tolerance: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_metric(self.metric)
        require_above_zero("threshold", self.threshold)
        require("activation", self.activation)
        require_time("polling_s", self.polling_s)
        require_time("cooldown_s", self.cooldown_s)
        require("tolerance", self.tolerance)

    def decide(self, observed: Observed, state: State) -> Decision:
        state = self.noticed(observed, state)
        value = sum_of(self.metric, observed)
        if value is None:
            if not self.no_data_is_zero:
                return self.held(self.metric, observed, state)
            value = 0.0
        active, polled_at_s = value > self.activation, state.polled_at_s
        polls = polled_at_s is None or at_most(self.polling_s, observed.now_s - polled_at_s)
        if polls:
            active_at_s = observed.now_s if active else state.active_at_s
            state = replace(state, polled_at_s=observed.now_s, active_at_s=active_at_s)
        why = f"{self.metric} {value:.4g}, threshold {self.threshold:g}"
        if observed.replicas == 0:
            desired = max(1, self.minimum) if polls and active else self.minimum
            return Decision(desired=desired, state=state, reason=f"{why}: {'' if active else 'not '}active")
        if polls and not active and self.minimum == 0 and self._cooled_down(observed, state):
            return Decision(desired=0, state=state, reason=f"{why}: not active for {self.cooldown_s:g} s")
        return self.paced(max(1, self._wanted(value, observed)), why, observed, state)

    def _cooled_down(self, observed: Observed, state: State) -> bool:
        return state.active_at_s is None or state.active_at_s + self.cooldown_s < observed.now_s

    def _wanted(self, value: float, observed: Observed) -> int:
        ratio = value / (self.threshold * observed.replicas)
        return observed.replicas if at_most(abs(1 - ratio), self.tolerance) else rounded_up(value / self.threshold)
