"""Spare room in queues and slots, as llm-d's Workload Variant Autoscaler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab_autoscaler.policies.bounds import at_most, mean_of, require_above_zero
from lab_autoscaler.policies.pace import Paced
from lab_common.values import require

if TYPE_CHECKING:
    from lab_autoscaler.decision import Decision, State
    from lab_autoscaler.seen import Observed


@dataclass(frozen=True, kw_only=True)
class Queue(Paced):
    """One replica more when queues or slots run short, one fewer when it is safe.

    Source: llm-d/llm-d-workload-variant-autoscaler, the pages saturation-analyzer (the
    law) and saturation-scaling-config (the thresholds), and the Helm chart's
    `hpa.behavior` (the pace: windows of 240 s, 10 pods in 150 s). It reads the fill of
    the KV cache of each replica. Here that is the share of slots in demand, and both
    values are means over the replicas. Spare room is a threshold less the value. One
    replica more is wanted if either spare room is below its trigger. One fewer is
    wanted if both stay at their triggers with the load of n replicas on n - 1.

    A replica that does not report blocks every decision, a dead one as well as a new
    one.

    Args:
        queue_threshold: Waiting requests that saturate a replica.
        queue_spare: The spare room in the queue that triggers a scale-up.
        slots_threshold: The share of slots in demand that saturates a replica.
        slots_spare: The spare room in slots that triggers a scale-up.

    Raises:
        InvalidValueError: with the field, the bound and the value.
    """

    scale_up_window_s: float = 240.0
    scale_down_window_s: float = 240.0
    scale_up_pods: int = 10
    scale_up_percent: int = 0
    scale_up_period_s: float = 150.0
    scale_down_pods: int = 10
    scale_down_percent: int = 0
    scale_down_period_s: float = 150.0
    queue_threshold: float = 5.0
    queue_spare: float = 3.0
    slots_threshold: float = 0.8
    slots_spare: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_above_zero("queue_threshold", self.queue_threshold)
        require("queue_spare", self.queue_spare, at_most=self.queue_threshold)
        require_above_zero("slots_threshold", self.slots_threshold)
        require("slots_spare", self.slots_spare, at_most=self.slots_threshold)

    def decide(self, observed: Observed, state: State) -> Decision:
        state = self.noticed(observed, state)
        waiting, requests = mean_of("waiting", observed), mean_of("requests", observed)
        if waiting is None or requests is None:
            if not self.no_data_is_zero:
                return self.held("the queue", observed, state)
            return self.paced(observed.replicas - 1, "the queue is unknown, taken as empty", observed, state)
        count, used = observed.replicas, requests / observed.slots
        why = f"{waiting:.4g} waiting and {used:.3g} of the slots in demand, a replica"
        if observed.reporting != count:
            why = f"{observed.reporting} of {count} replicas report, no decision"
        elif not self._has_room(waiting, used):
            count += 1
        elif count > 1 and self._has_room(waiting * count / (count - 1), used * count / (count - 1)):
            count -= 1
        return self.paced(count, why, observed, state)

    def _has_room(self, waiting: float, used: float) -> bool:
        return at_most(self.queue_spare, self.queue_threshold - waiting) and at_most(
            self.slots_spare, self.slots_threshold - used
        )
