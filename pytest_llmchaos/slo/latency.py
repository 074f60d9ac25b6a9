"""Latency bounds of SLOs over a histogram's buckets."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from pytest_llmchaos.slo.selectors import matchers_of, unquoted

# What helps where no edge separates the requests.
CHOOSE = (
    "choose an edge as the bound, give the server that edge (vLLM: --custom-histogram-buckets), or judge the clients' "
    "latencies, such as trial.whole.ttft_s.p95"
)


@dataclass(frozen=True, kw_only=True)
class LatencyBound:
    """Bound of a selector such as `x_bucket{le="0.5"}`.

    Attributes:
        bound_s: The bound in seconds.
        good: The selector.
        buckets: Selector of all buckets of its histograms.
        every: Selector of their infinite buckets, one for each histogram.
        is_declared: True if the SLO states the bound besides the selector, in
            `llmchaos/threshold-seconds`.
    """

    bound_s: float
    good: str
    buckets: str
    every: str
    is_declared: bool

    @property
    def lacking(self) -> str:
        """PromQL with a value only if a histogram lacks the bound as an edge."""
        return f"count({self.every}) > (count({self.good}) or vector(0))"

    def at(self, place: str) -> str:
        """Return where the bound is, such as at the place `between two edges`."""
        return f"the bound {self.bound_s:g} s lies {place} of {self.buckets}"

    def uncertainty(self, place: str) -> str:
        """Return why the share of requests within the bound is an interval."""
        return f"{self.at(place)}: {CHOOSE}"

    def refusal(self, place: str) -> str:
        """Return why an SLO without a declared bound is not judged, and what to do."""
        return (
            f'{self.at(place)}, so le="{self.bound_s:g}" selects no bucket of it: choose an edge as the bound, or write '
            f'the annotation llmchaos/threshold-seconds: "{self.bound_s:g}" to have the share judged as an interval'
        )


def latency_bound(selector: str, declared_s: float | None) -> LatencyBound | None:
    """Return the bound of a valid selector of buckets, None for other selectors.

    Args:
        selector: Selector of good events.
        declared_s: The SLO's own statement of its bound in seconds, or None.
    """
    metric, matchers = matchers_of(selector)
    bounds = [(operator, unquoted(text) or "") for label, operator, text in matchers if label == "le"]
    if not metric.endswith("_bucket") or len(bounds) != 1:
        return None
    ((operator, value),) = bounds
    is_declared = declared_s is not None and _selects(operator, value, declared_s)
    bound_s = declared_s if declared_s is not None and is_declared else _seconds(value) if operator == "=" else math.inf
    if not 0 < bound_s < math.inf:
        return None
    others = ",".join(f"{label}{is_}{text}" for label, is_, text in matchers if label != "le")
    return LatencyBound(
        bound_s=bound_s,
        good=selector,
        buckets=f"{metric}{{{others}}}" if others else metric,
        every=f'{metric}{{{others}{"," if others else ""}le="+Inf"}}',
        is_declared=is_declared,
    )


def _selects(operator: str, value: str, bound_s: float) -> bool:
    """True if a matcher of `le` selects this edge, which is written "2" or "2.0"."""
    if operator == "=":
        return _seconds(value) == bound_s
    return operator == "=~" and any(re.fullmatch(value, text) for text in (f"{bound_s:g}", str(bound_s)))


def _seconds(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return math.inf


def by_edge(buckets: str, total: str, window_s: float) -> str:
    """Return PromQL for the share of all events within each edge.

    It is for the window of `window_s` seconds before the evaluation.
    """
    span = f"{round(window_s * 1000)}ms"
    inside = f"(sum by (le) ({buckets}) - sum by (le) ({buckets} offset {span}))"
    return f"{inside} / on () group_left () (sum({total}) - sum({total} offset {span}))"
