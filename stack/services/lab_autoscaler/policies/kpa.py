"""Knative's pod autoscaler: concurrency, with a panic mode."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from lab_autoscaler.decision import Decision
from lab_autoscaler.policies.bounds import Bounds, require_time, rounded_down, rounded_up, sum_of
from lab_common.values import InvalidValueError, require

if TYPE_CHECKING:
    from lab_autoscaler.decision import State
    from lab_autoscaler.seen import Observed


@dataclass(frozen=True, kw_only=True)
class Kpa(Bounds):
    """Requests in the system over the concurrency of a replica, in two windows.

    Source: knative.dev/docs/serving/autoscaling, knative/serving's
    pkg/autoscaler/scaling/autoscaler.go (the law) and pkg/autoscaler/config/config.go
    (the defaults). The stable window decides, unless the panic window needs
    `panic_threshold_percent` of the ready replicas. From then on the larger of both
    decides and the count only rises, until the panic is a stable window old. A start
    with more than one replica is a panic too, because the windows are empty. Excess
    burst capacity is left out: it concerns the activator's place in the path.

    Args:
        concurrency: The requests that a replica takes at a time, or 0 for its slots.
        target_utilisation: The share of `concurrency` to aim at, from 0 to 1.
        stable_window_s: The stable window, in seconds.
        panic_window_percent: The panic window, in per cent of the stable one.
        panic_threshold_percent: The need that starts a panic, in per cent of the ready
            replicas.
        max_scale_up_rate: The largest factor to the ready replicas.
        max_scale_down_rate: The largest divisor of the ready replicas.
        scale_to_zero_grace_s: Seconds that the last replica stays without requests.
        scale_down_delay_s: The highest count of this window, in seconds, is the
            decision.

    Raises:
        InvalidValueError: with the field, the bound and the value.
    """

    LOWEST: ClassVar[int] = 0

    minimum: int = 0
    concurrency: float = 0.0
    target_utilisation: float = 0.7
    stable_window_s: float = 60.0
    panic_window_percent: float = 10.0
    panic_threshold_percent: float = 200.0
    max_scale_up_rate: float = 1000.0
    max_scale_down_rate: float = 2.0
    scale_to_zero_grace_s: float = 30.0
    scale_down_delay_s: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require("concurrency", self.concurrency)
        require("target_utilisation", self.target_utilisation, above=0.0, at_most=1.0)
        for name in ("stable_window_s", "scale_to_zero_grace_s", "scale_down_delay_s"):
            require_time(name, getattr(self, name))
        if not self.stable_window_s:
            raise InvalidValueError(f"stable_window_s must be greater than 0, got {self.stable_window_s!r}")
        require("panic_window_percent", self.panic_window_percent, at_least=1.0, at_most=100.0)
        require("panic_threshold_percent", self.panic_threshold_percent, above=100.0)
        require("max_scale_up_rate", self.max_scale_up_rate, above=1.0)
        require("max_scale_down_rate", self.max_scale_down_rate, above=1.0)

    def decide(self, observed: Observed, state: State) -> Decision:
        if state.synced_at_s is None and observed.ready > 1:
            state = replace(state, panic_at_s=observed.now_s, panic_replicas=observed.ready)
        state = replace(state, synced_at_s=observed.now_s)
        requests = sum_of("requests", observed)
        if requests is None:
            if not self.no_data_is_zero:
                return self.held("requests", observed, state)
            requests = 0.0
        stable, panic, state = self._averaged(requests, observed, state)
        ready = max(1, observed.ready)
        target = (self.concurrency or observed.slots) * self.target_utilisation
        state = self._panicking(rounded_up(panic / target) / ready, observed, state)
        desired = self._rated(stable / target, ready)
        why = f"stable {stable:.4g} requests, panic {panic:.4g}, target {target:.4g} a replica"
        if state.panic_at_s is not None:
            desired = max(desired, self._rated(panic / target, ready), state.panic_replicas)
            state = replace(state, panic_replicas=desired)
            why = f"in panic: {why}"
        desired, state = self._delayed(desired, observed, state)
        desired, state = self._grace(desired, observed, state)
        return Decision(desired=self.clamped(desired), state=state, reason=f"{why}: {desired} wanted")

    def _averaged(self, requests: float, observed: Observed, state: State) -> tuple[float, float, State]:
        now_s = observed.now_s
        samples = (*(one for one in state.samples if one[0] > now_s - self.stable_window_s), (now_s, requests))
        panic_s = self.stable_window_s * self.panic_window_percent / 100
        recent = [value for at_s, value in samples if at_s > now_s - panic_s]
        stable = sum(value for _, value in samples) / len(samples)
        return stable, sum(recent) / len(recent), replace(state, samples=samples)

    def _rated(self, replicas: float, ready: int) -> int:
        """A need within the largest steps from the ready replicas."""
        most = rounded_up(self.max_scale_up_rate * ready)
        return min(max(rounded_up(replicas), rounded_down(ready / self.max_scale_down_rate)), most)

    def _panicking(self, need: float, observed: Observed, state: State) -> State:
        if need >= self.panic_threshold_percent / 100:
            return replace(state, panic_at_s=observed.now_s)
        if state.panic_at_s is not None and state.panic_at_s + self.stable_window_s < observed.now_s:
            return replace(state, panic_at_s=None, panic_replicas=0)
        return state

    def _delayed(self, desired: int, observed: Observed, state: State) -> tuple[int, State]:
        cutoff_s = observed.now_s - self.scale_down_delay_s
        earlier = tuple(one for one in state.recommendations if one[0] > cutoff_s)
        kept = (*earlier, (observed.now_s, desired))
        return max(count for _, count in kept), replace(state, recommendations=kept)

    def _grace(self, desired: int, observed: Observed, state: State) -> tuple[int, State]:
        """Keep one replica for the grace period before none is left."""
        if desired > 0 or observed.replicas == 0:
            return desired, replace(state, idle_since_s=None)
        since_s = observed.now_s if state.idle_since_s is None else state.idle_since_s
        over = observed.now_s - since_s >= self.scale_to_zero_grace_s
        return 0 if over else 1, replace(state, idle_since_s=since_s)
