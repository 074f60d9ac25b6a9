"""Metrics of the remediator. Series start at 0, so a first increase counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.process_collector import ProcessCollector

from lab_remediator.restarts import NOT_OURS

if TYPE_CHECKING:
    from lab_remediator.rules import Policy

RECOVERY_BUCKETS_S = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600)


class Metrics:
    """The remediator's counters, on their own registry."""

    def __init__(self, policy: Policy) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.restarts = Counter(
            "service_container_restarts_total",
            "Starts of a service's container after its first one, by any cause.",
            ["service", "reason"],
            registry=self.registry,
        )
        self.actions = Counter(
            "remediation_actions_total",
            "Actions done, failed, or refused by a guard.",
            ["action", "service", "result"],
            registry=self.registry,
        )
        self.time_to_recover = Histogram(
            "remediation_time_to_recover_seconds",
            "From the detection of an incident to the service seen good again, where an action lies between.",
            buckets=RECOVERY_BUCKETS_S,
            registry=self.registry,
        )
        self.answers = Counter(
            "remediation_answers_total",
            "Queries to Prometheus and the Docker proxy, by result.",
            ["source", "result"],
            registry=self.registry,
        )
        self.quarantined = Gauge(
            "remediation_quarantined",
            "1 while repairs of the service have stopped until a human looks.",
            ["service"],
            registry=self.registry,
        )
        for service in policy.services:
            self.quarantined.labels(service)
            for reason in NOT_OURS:
                self.restarts.labels(service, reason)
            for rule in policy.of(service):
                self.restarts.labels(service, rule.name)
                for result in ("done", "failed"):
                    self.actions.labels(rule.action, service, result)
        for source in ("prometheus", "docker"):
            for result in ("ok", "failed"):
                self.answers.labels(source, result)
