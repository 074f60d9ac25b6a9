"""Metrics of the autoscaler. Series start at 0, so a first increase counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.process_collector import ProcessCollector

from lab_autoscaler.fleet import PHASES
from lab_autoscaler.guards import RESULTS

if TYPE_CHECKING:
    from lab_autoscaler.fleet import Fleet, Sight


class Metrics:
    """The autoscaler's counters and gauges, on their own registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, registry=self.registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=self.registry)

        self.desired = gauge("lab_autoscaler_desired_replicas", "Replicas that the last decision wants.")
        self.replicas = gauge("lab_autoscaler_replicas", "Replicas by phase.", "state")
        self.replica_seconds = counter(
            "lab_autoscaler_replica_seconds", "Time of running replicas, cold and draining ones included: their cost."
        )
        self.events = counter("lab_autoscaler_scale_events", "Decisions that changed the wanted count.", "direction")
        self.flaps = counter("lab_autoscaler_flaps", "Changes of direction within LAB_FLAP_S.")
        self.cut = counter("lab_autoscaler_cut_requests", "Requests still in flight when a drain's time had ended.")
        self.blind = gauge(
            "lab_autoscaler_is_blind", "1 while the policy holds because a value that it needs is unknown."
        )
        self.syncs = counter("lab_autoscaler_syncs", "Decisions by result.", "result")
        self.acts = counter("lab_autoscaler_acts", "Calls to the runtime.", "action", "result")
        for phase in PHASES:
            self.replicas.labels(phase)
        for direction in ("up", "down"):
            self.events.labels(direction)
        for result in RESULTS:
            self.syncs.labels(result)
        for action in ("start", "stop"):
            for end in ("done", "failed"):
                self.acts.labels(action, end)

    def show(self, fleet: Fleet) -> None:
        """Set the replicas by phase."""
        for phase in PHASES:
            self.replicas.labels(phase).set(sum(one.phase == phase for one in fleet))

    def spent(self, sights: dict[str, Sight], seconds: float) -> None:
        """Add the cost of the replicas that run."""
        self.replica_seconds.inc(seconds * sum(one.is_running is True for one in sights.values()))
