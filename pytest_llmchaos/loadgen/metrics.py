"""The clients' Prometheus metrics, cumulative from the start of the load.

A dead server cannot count its own failures, so the clients do. A failed request is
observed as infinite, because a histogram of answers alone improves during an outage.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from pytest_llmchaos.model import (
    CLIENT_DURATION,
    CLIENT_GOOD,
    CLIENT_INFLIGHT,
    CLIENT_OFFERED,
    CLIENT_REPLICA_GOOD,
    CLIENT_REPLICA_REQUESTS,
    CLIENT_REPLICA_TTFT,
    CLIENT_REQUESTS,
    CLIENT_TTFT,
    OUTCOMES,
    Outcome,
)

# OpenTelemetry's buckets for gen_ai.server.time_to_first_token, vLLM's tail, and 2 and
# 3 s for objectives.
TTFT_BUCKETS_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2, 2.5, 3, 5, 7.5, 10),
    *(20, 40, 80, 160),
)
# OpenTelemetry's buckets for gen_ai.server.request.duration, two more of its series,
# and whole seconds for objectives.
DURATION_BUCKETS_S = (
    *(0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.5, 0.64, 1, 1.28, 2, 2.56, 3, 5, 5.12, 10, 10.24, 15, 20, 20.48),
    *(30, 40.96, 81.92, 163.84, 327.68),
)
REPLICAS_MAX = 16  # with series of their own. The name comes from the service
UNKNOWN_REPLICA, OTHER_REPLICAS = "unknown", "other"
Result = Literal["ok", "failed"]


class Histogram:
    """One histogram of seconds.

    `sum_s` stays finite. A failed request adds the seconds that its client waited.
    """

    def __init__(self, edges_s: Sequence[float]) -> None:
        self._edges_s = edges_s
        self._counts = [0] * (len(edges_s) + 1)
        self.sum_s = 0.0

    def observe(self, value_s: float, result: Result) -> None:
        """Add one request."""
        self._counts[bisect_left(self._edges_s, value_s) if result == "ok" else -1] += 1
        self.sum_s += value_s

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts by upper edge."""
        total, out = 0, []
        for edge, count in zip((*map(floatToGoString, self._edges_s), "+Inf"), self._counts, strict=True):
            total += count
            out.append((edge, float(total)))
        return out


class _Replica:
    """Counts of the requests that one replica answered."""

    def __init__(self) -> None:
        self.outcomes: dict[Outcome, int] = dict.fromkeys(OUTCOMES, 0)
        self.good = 0
        self.ttft = Histogram(TTFT_BUCKETS_S)


class Counts:
    """The clients' series, a collector of prometheus_client.

    Every series exists with 0 before the first request, except those by replica.
    """

    def __init__(self, inflight: Callable[[], int], load: str = "") -> None:
        """`load` is the value of the label `load` on each series, "" for none."""
        self._inflight = inflight
        self._labels = {"load": load} if load else {}
        self.offered = 0
        self.good = 0
        self.outcomes: dict[Outcome, int] = dict.fromkeys(OUTCOMES, 0)
        results: tuple[Result, ...] = ("ok", "failed")
        self._ttft = {result: Histogram(TTFT_BUCKETS_S) for result in results}
        self._duration = {result: Histogram(DURATION_BUCKETS_S) for result in results}
        self._replicas: dict[str, _Replica] = {}

    def count_end(self, outcome: Outcome, ttft_s: float, e2e_s: float, is_good: bool, replica: str = "") -> None:
        self.outcomes[outcome] += 1
        seen = self._of(replica)
        seen.outcomes[outcome] += 1
        if outcome in ("left", "cancelled"):
            return
        self.good += is_good
        seen.good += is_good
        result: Result = "ok" if outcome == "ok" else "failed"
        self._ttft[result].observe(ttft_s, result)
        seen.ttft.observe(ttft_s, result)
        self._duration[result].observe(e2e_s, result)

    def _of(self, replica: str) -> _Replica:
        name = replica or UNKNOWN_REPLICA
        if name not in self._replicas:
            if len(self._replicas) >= REPLICAS_MAX:
                name = OTHER_REPLICAS
            self._replicas.setdefault(name, _Replica())
        return self._replicas[name]

    def collect(self) -> Iterator[Metric]:
        names, values = list(self._labels), list(self._labels.values())
        offered = CounterMetricFamily(CLIENT_OFFERED, "Requests that were due.", labels=names)
        offered.add_metric(values, self.offered)
        yield offered
        requests = CounterMetricFamily(CLIENT_REQUESTS, "Requests that ended.", labels=[*names, "outcome"])
        for outcome, count in _merged(self.outcomes):
            requests.add_metric([*values, outcome], count)
        yield requests
        good = CounterMetricFamily(CLIENT_GOOD, "Ok requests inside every latency bound.", labels=names)
        good.add_metric(values, self.good)
        yield good
        for name, about, histograms in (
            (CLIENT_TTFT, "From the due time to the first token.", self._ttft),
            (CLIENT_DURATION, "From the due time to the end of the answer.", self._duration),
        ):
            family = HistogramMetricFamily(name, about, labels=[*names, "result"])
            for result, histogram in histograms.items():
                family.add_metric([*values, result], histogram.buckets(), histogram.sum_s)
            yield family
        inflight = GaugeMetricFamily(CLIENT_INFLIGHT, "Requests without an answer yet.", labels=names)
        inflight.add_metric(values, self._inflight())
        yield inflight
        yield from self._by_replica(names, values)

    def _by_replica(self, names: list[str], values: list[str]) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            CLIENT_REPLICA_REQUESTS,
            "Requests that ended, by the replica in the answer.",
            labels=[*names, "replica", "outcome"],
        )
        good = CounterMetricFamily(
            CLIENT_REPLICA_GOOD, "Ok requests of a replica inside every latency bound.", labels=[*names, "replica"]
        )
        ttft = HistogramMetricFamily(
            CLIENT_REPLICA_TTFT,
            "From the due time to the first token, by replica. A failed request is infinite.",
            labels=[*names, "replica"],
        )
        for replica, seen in self._replicas.items():
            for outcome, count in _merged(seen.outcomes):
                requests.add_metric([*values, replica, outcome], count)
            good.add_metric([*values, replica], seen.good)
            ttft.add_metric([*values, replica], seen.ttft.buckets(), seen.ttft.sum_s)
        yield from (requests, good, ttft)


def _merged(outcomes: Mapping[Outcome, int]) -> Iterator[tuple[Outcome, int]]:
    """Counts with one outcome for clients that gave up, which SLOs exclude."""
    for outcome, count in outcomes.items():
        if outcome != "left":
            yield outcome, count + (outcomes["left"] if outcome == "cancelled" else 0)
