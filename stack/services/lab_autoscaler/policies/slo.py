"""Attainment of the latency targets, as llm-d's SLO-aware autoscaling."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lab_autoscaler.policies.bounds import (
    at_most,
    require_above_zero,
    require_share,
    require_time,
    rounded_down,
    rounded_up,
    sum_of,
)
from lab_autoscaler.policies.pace import Paced

if TYPE_CHECKING:
    from lab_autoscaler.decision import Decision, State
    from lab_autoscaler.seen import Observed


@dataclass(frozen=True, kw_only=True)
class Slo(Paced):
    """Add replicas when the targets are missed, remove them with headroom to spare.

    Source: llm-d/llm-d's page autoscaling/slo-aware (the law, its pace and
    the numbers). There the saturation is the 90th percentile of a latency over its
    target. Here it is the share of late requests over the share that may be late, of
    first tokens or of token gaps, whichever is worse: 1 at the target in both. As there
    it is capped, because all above the cap means the largest step, and averaged over
    `smoothing_s`.

    Above 1 the count grows by that factor, less the replicas that are on their way.
    Below `comfort` it shrinks. Attainment stays at 1 until shortly before the knee and
    gives no warning. So a scale-down must leave `headroom`, and needs both shares and
    the metrics of all ready replicas. A single share suffices for a scale-up.

    An idle pool has no shares. It reads 0, if its empty queues are measured.

    Args:
        target: The share of requests that must be in time.
        comfort: The saturation below which replicas are removed.
        headroom: The share of slots that must be free after a scale-down.
        smoothing_s: The window of the mean saturation, in seconds.
        cap: The largest saturation of one observation.

    Raises:
        InvalidValueError: with the field, the bound and the value.
    """

    scale_up_window_s: float = 30.0
    scale_down_window_s: float = 180.0
    scale_up_period_s: float = 60.0
    scale_down_pods: int = 1
    scale_down_percent: int = 0
    scale_down_period_s: float = 120.0
    target: float = 0.9
    comfort: float = 0.4
    headroom: float = 0.3
    smoothing_s: float = 45.0
    cap: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("target", "comfort", "headroom"):
            require_share(name, getattr(self, name))
        require_time("smoothing_s", self.smoothing_s)
        require_above_zero("cap", self.cap)

    def decide(self, observed: Observed, state: State) -> Decision:
        state = self.noticed(observed, state)
        attained, complete, requests = self._read(observed)
        if attained is None:
            return self.held("attainment", observed, state)
        raw = min((1 - attained) / (1 - self.target), self.cap)
        saturation, state = self._smoothed(raw, observed, state)
        why = f"saturation {saturation:.3g}, attained {attained:.4g}, target {self.target:g}"
        wanted = observed.replicas
        if not at_most(saturation, 1.0):
            wanted += self._missing(saturation, observed)
        elif complete and not at_most(self.comfort, saturation):
            wanted = min(wanted, max(wanted - self._spare(saturation, observed), self._needed(requests, observed)))
        return self.paced(wanted, why, observed, state)

    def _read(self, observed: Observed) -> tuple[float | None, bool, float]:
        """The worse share, whether a scale-down may be decided, and the requests."""
        shares = (observed.first_token_attained, observed.token_gap_attained)
        known = [share for share in shares if share is not None]
        requests = sum_of("requests", observed)
        silent = observed.reporting < observed.ready
        if not known and requests == 0 and observed.ready > 0 and not silent:
            return 1.0, True, 0.0
        if self.no_data_is_zero:
            return min(known, default=1.0), True, requests or 0.0
        complete = len(known) == len(shares) and requests is not None and not silent
        return min(known, default=None), complete, requests or 0.0

    def _smoothed(self, raw: float, observed: Observed, state: State) -> tuple[float, State]:
        cutoff_s = observed.now_s - self.smoothing_s
        samples = (*(one for one in state.samples if one[0] > cutoff_s), (observed.now_s, raw))
        return sum(value for _, value in samples) / len(samples), replace(state, samples=samples)

    def _missing(self, saturation: float, observed: Observed) -> int:
        """Replicas to add, after those that are started and not yet ready."""
        count, ready = observed.replicas, observed.ready
        credit = ready / count if 0 < ready < count else 1.0
        return max(0, rounded_up(count * (saturation * credit - 1)))

    def _spare(self, saturation: float, observed: Observed) -> int:
        return rounded_down(observed.replicas * (1 - saturation / self.comfort))

    def _needed(self, requests: float, observed: Observed) -> int:
        """Replicas whose slots hold the requests and the headroom."""
        return rounded_up(requests / (observed.slots * (1 - self.headroom)))
