"""The gateway's metrics. State is read at scrape time, off the hot path."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from lab_api.breaker import Circuit, RetryBudget
from lab_api.exchange import Board, Exchange, Phase
from lab_api.outcomes import Hedged, Migrated, Outcome
from lab_api.pool import Pool
from lab_api.priority import Priority
from lab_api.replica import Duty
from lab_api.tally import DURATION_BUCKETS_S, TTFT_BUCKETS_S

OPERATION = "chat"
TOKEN_BUCKETS_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 10, 20, 40, 80)
GAP_BUCKETS_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60, 120)
QUEUE_BUCKETS_S = (0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """Counters and histograms. All series exist from the start."""

    def __init__(self, *, model: str, pool: Pool, board: Board, budget: RetryBudget) -> None:
        self.registry = CollectorRegistry()
        self._model = model
        labels = ("operation", "request_model", "error_type")

        def histogram(name: str, text: str, names: tuple[str, ...], buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, text, names, buckets=buckets, registry=self.registry)

        def counter(name: str, text: str, names: tuple[str, ...]) -> Counter:
            return Counter(name, text, names, registry=self.registry)

        self._requests = counter("llmlab_requests", "Chat completions by how they ended.", ("outcome",))
        self._duration = histogram(
            "gen_ai_server_request_duration_seconds",
            "From arrival to the last byte, or to the failure.",
            labels,
            DURATION_BUCKETS_S,
        )
        self._ttft = histogram(
            "gen_ai_server_time_to_first_token_seconds",
            "From arrival to the first token; with an error_type: how long the client waited for nothing.",
            labels,
            TTFT_BUCKETS_S,
        )
        self._per_token = histogram(
            "gen_ai_server_time_per_output_token_seconds", "Mean of a complete stream.", labels, TOKEN_BUCKETS_S
        )
        self._max_gap = histogram(
            "llmlab_stream_max_gap_seconds", "Largest silence between data events of a stream.", (), GAP_BUCKETS_S
        )
        self._queue_wait = histogram(
            "llmlab_queue_wait_seconds", "Wait for a place in a replica.", ("outcome",), QUEUE_BUCKETS_S
        )
        self._attempts = counter(
            "llmlab_upstream_attempts",
            "Requests sent to replicas; reason is 'first', 'hedge', 'migration' or what made a retry necessary.",
            ("replica", "reason"),
        )
        self._hedges = counter(
            "llmlab_hedges",
            "Second attempts of streams with a late first token: 'won' first, 'lost', 'failed' or 'cancelled'.",
            ("replica", "outcome"),
        )
        self._classes = counter(
            "llmlab_priority_requests", "Chat completions by class and by how they ended.", ("priority", "outcome")
        )
        self._first_token = histogram(
            "llmlab_priority_first_token_seconds",
            "From arrival to the first token, by class. Only streams that had one.",
            ("priority",),
            TTFT_BUCKETS_S,
        )
        self._migrations = counter("llmlab_migrations", "Streams cut after their first token.", ("outcome",))
        self._wasted = counter("llmlab_wasted_tokens", "Tokens of answers that no client received whole.", ("reason",))
        ProcessCollector(registry=self.registry)
        self.registry.register(_State(pool, board, budget))
        self._create_series(pool)

    def _create_series(self, pool: Pool) -> None:
        """Create all series. A look-up costs more than to count, so some are kept."""
        self._ended = {outcome: self._requests.labels(outcome.value) for outcome in Outcome}
        self._first = {replica.name: self._attempts.labels(replica.name, "first") for replica in pool.replicas}
        self._class_ended = {
            priority: {outcome: self._classes.labels(priority.value, outcome.value) for outcome in Outcome}
            for priority in Priority
        }
        self._class_ttft = {priority: self._first_token.labels(priority.value) for priority in Priority}
        for migrated in Migrated:
            self._migrations.labels(migrated.value)
        for replica in pool.replicas:
            for one in Hedged:
                self._hedges.labels(replica.name, one.value)
        for reason in ("client_gone", "truncated"):
            self._wasted.labels(reason)
        self._good_duration, self._good_ttft, self._good_per_token = (
            family.labels(OPERATION, self._model, "") for family in (self._duration, self._ttft, self._per_token)
        )
        self._admitted = self._queue_wait.labels("admitted")

    def attempted(self, replica: str, reason: str) -> None:
        (self._first[replica] if reason == "first" else self._attempts.labels(replica, reason)).inc()

    def migrated(self, outcome: Migrated) -> None:
        self._migrations.labels(outcome.value).inc()

    def hedged(self, replica: str, outcome: Hedged) -> None:
        self._hedges.labels(replica, outcome.value).inc()

    def queued(self, waited_s: float, outcome: str) -> None:
        (self._admitted if outcome == "admitted" else self._queue_wait.labels(outcome)).observe(waited_s)

    def ended(self, exchange: Exchange, now_s: float) -> None:
        """Count a request once, at its end."""
        outcome = exchange.outcome or Outcome.INTERNAL_ERROR
        self._ended[outcome].inc()
        self._class_ended[exchange.priority][outcome].inc()
        error_type = "" if outcome is Outcome.OK else outcome.value
        labels = (OPERATION, self._model, error_type)
        duration = self._duration.labels(*labels) if error_type else self._good_duration
        duration.observe(now_s - exchange.arrived_s)
        if exchange.streaming:
            self._count_stream(exchange, labels, now_s)
        if exchange.tokens and error_type:
            gone = outcome is Outcome.CLIENT_CANCELLED
            self._wasted.labels("client_gone" if gone else "truncated").inc(exchange.tokens)

    def _count_stream(self, exchange: Exchange, labels: tuple[str, str, str], now_s: float) -> None:
        if exchange.first_token_s is None:
            if exchange.outcome is not Outcome.INVALID_REQUEST:
                self._ttft.labels(*labels).observe(now_s - exchange.arrived_s)
            return
        ttft_s = exchange.first_token_s - exchange.arrived_s
        self._good_ttft.observe(ttft_s)
        self._class_ttft[exchange.priority].observe(ttft_s)
        self._max_gap.observe(exchange.max_gap_s)
        if exchange.outcome is Outcome.OK and exchange.tokens > 1:
            spent_s = exchange.last_event_s - exchange.first_token_s
            self._good_per_token.observe(spent_s / (exchange.tokens - 1))

    async def exposition(self) -> bytes:
        """The text format. Between two families the streams go on."""
        parts = []
        for family in self.registry.collect():
            parts.append(generate_latest(_One(family)))
            await asyncio.sleep(0)
        return b"".join(parts)


@dataclass(frozen=True)
class _One:
    """A registry of one family."""

    family: Metric

    def collect(self) -> Iterator[Metric]:
        yield self.family


class _State(Collector):
    """The current state, and what each replica has counted."""

    def __init__(self, pool: Pool, board: Board, budget: RetryBudget) -> None:
        self._pool = pool
        self._board = board
        self._budget = budget

    def collect(self) -> Iterator[Metric]:
        now_s = self._pool.clock()
        in_flight = GaugeMetricFamily("llmlab_inflight_requests", "Requests a replica works on.", labels=["replica"])
        circuit = GaugeMetricFamily(
            "llmlab_circuit_state", "Passive health: 0 closed, 1 open, 2 half-open.", labels=["replica"]
        )
        health = GaugeMetricFamily(
            "llmlab_upstream_health",
            "1 where the probe finds the replica good; absent for one that the autoscaler has stopped.",
            labels=["replica", "probe"],
        )
        probe = GaugeMetricFamily(
            "llmlab_probe_duration_seconds",
            "Duration of the last health check that succeeded; absent until one did.",
            labels=["replica"],
        )
        failures = CounterMetricFamily(
            "llmlab_upstream_failures",
            "Attempts that failed at a replica, also those that a retry hid from the client.",
            labels=["replica", "reason"],
        )
        ejections = CounterMetricFamily(
            "llmlab_ejections",
            "Times that real requests' results took a replica out; failed trials count again.",
            labels=["replica", "cause"],
        )
        draining = GaugeMetricFamily(
            "llmlab_replica_draining",
            "1 while the autoscaler drains a replica or has stopped it: it gets no new request.",
            labels=["replica"],
        )
        for replica in self._pool.replicas:
            state = replica.breaker.state(now_s)
            in_flight.add_metric([replica.name], replica.in_flight)
            draining.add_metric([replica.name], float(replica.duty is not Duty.SERVING))
            circuit.add_metric([replica.name], state.value)
            if not replica.is_spare:
                health.add_metric([replica.name, "shallow"], float(replica.healthy))
            # A drain may cut streams, and no request then shows the replica good again.
            if not replica.is_spare and replica.duty is Duty.SERVING:
                health.add_metric([replica.name, "passive"], float(state is Circuit.CLOSED))
            if replica.probe_s is not None:
                probe.add_metric([replica.name], replica.probe_s)
            for outcome, count in replica.failures.items():
                failures.add_metric([replica.name, outcome.value], count)
            for cause, count in replica.breaker.ejections.items():
                ejections.add_metric([replica.name, cause.value], count)
        yield from (in_flight, draining, circuit, health, probe, failures, ejections, *self._oldest(time.monotonic()))
        yield GaugeMetricFamily(
            "llmlab_queue_depth", "Requests waiting for a place in a replica.", value=self._pool.queue_depth
        )
        yield from self._by_priority()
        yield GaugeMetricFamily(
            "llmlab_retry_budget_ratio", "Share of the saved-up retries that is left.", value=self._budget.saved_ratio
        )

    def _by_priority(self) -> Iterator[GaugeMetricFamily]:
        waiting = GaugeMetricFamily(
            "llmlab_priority_queue_depth", "Requests waiting for a place, by class.", labels=["priority"]
        )
        predicted = GaugeMetricFamily(
            "llmlab_predicted_first_token_seconds",
            "Predicted time to first token of a request that has to wait; absent until a request has ended.",
            labels=["priority"],
        )
        for priority in Priority:
            waiting.add_metric([priority.value], self._pool.queue.depth(priority))
            if (predicted_s := self._pool.predicted_s(priority)) is not None:
                predicted.add_metric([priority.value], predicted_s)
        yield from (waiting, predicted)

    def _oldest(self, now_s: float) -> Iterator[GaugeMetricFamily]:
        """Ages of the oldest requests, which show a hang before any request ends."""
        ages_s = {("", Phase.QUEUED): 0.0}
        silences_s = {replica.name: 0.0 for replica in self._pool.replicas}
        for replica in self._pool.replicas:
            ages_s |= {(replica.name, Phase.PREFILL): 0.0, (replica.name, Phase.DECODE): 0.0}
        for exchange in self._board.exchanges:
            key = (exchange.replica, exchange.phase)
            ages_s[key] = max(ages_s.get(key, 0.0), now_s - exchange.phase_since_s)
            if exchange.phase is Phase.DECODE:
                silence_s = now_s - exchange.last_event_s
                silences_s[exchange.replica] = max(silences_s.get(exchange.replica, 0.0), silence_s)
        oldest = GaugeMetricFamily(
            "llmlab_oldest_inflight_seconds", "Age of the oldest request in a phase.", labels=["replica", "phase"]
        )
        for (name, phase), age_s in ages_s.items():
            oldest.add_metric([name, phase.value], age_s)
        silence = GaugeMetricFamily(
            "llmlab_oldest_silence_seconds", "Longest running silence of a started stream.", labels=["replica"]
        )
        for name, silence_s in silences_s.items():
            silence.add_metric([name], silence_s)
        yield from (oldest, silence)
