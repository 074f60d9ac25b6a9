"""Events within a latency bound that is no edge of the histogram."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmchaos.servers.bounds import Within, within

if TYPE_CHECKING:
    from pytest_llmchaos.prometheus.queries import Labels, Prometheus
    from pytest_llmchaos.slo.latency import LatencyBound


def lacks_edge(prometheus: Prometheus, bound: LatencyBound, *at_unix_s: float) -> bool:
    """True if a histogram lacks the bound as an edge at one of the instants."""
    return any(prometheus.vector(bound.lacking, at, may_be_empty=True) for at in at_unix_s)


def counted_within(prometheus: Prometheus, bound: LatencyBound, from_unix_s: float, to_unix_s: float) -> Within:
    """Return the events within a bound between two instants.

    Nothing is extrapolated. The counters must not have restarted meanwhile.
    """
    before = prometheus.vector(bound.buckets, from_unix_s, may_be_empty=True)
    histograms: dict[Labels, dict[float, float]] = {}
    for labels, count in prometheus.vector(bound.buckets, to_unix_s, may_be_empty=True).items():
        edge_s = float(dict(labels)["le"])
        others = frozenset(one for one in labels if one[0] != "le")
        histograms.setdefault(others, {})[edge_s] = count - before.get(labels, 0.0)
    # The edges of a histogram without an event in the window do not matter.
    busy = [one for one in histograms.values() if any(one.values())]
    return within(busy or histograms.values(), bound.bound_s)
