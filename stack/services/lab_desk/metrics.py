"""Metrics of the desk. Series start at 0, so a first increase counts."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.process_collector import ProcessCollector

EFFECTS = ("refund", "mail")
TOOLS = ("find_order", *EFFECTS)
UNKNOWN = "other"  # label of all tools that do not exist
_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5)


class Metrics:
    """The desk's counters, on their own registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.calls = Counter(
            "llmlab_desk_calls_total",
            "Calls of a tool, by result: done, repeated (a used key), conflict (the key of another call), invalid.",
            ["tool", "result"],
            registry=self.registry,
        )
        self.effects = Counter(
            "llmlab_desk_effects_total", "Effects that were applied.", ["tool"], registry=self.registry
        )
        self.repeated_keys = Counter(
            "llmlab_desk_repeated_keys_total",
            "Calls whose idempotency key was used before, so that they applied nothing.",
            registry=self.registry,
        )
        self.call_seconds = Histogram(
            "llmlab_desk_call_seconds",
            "From the call's arrival at the tool to its result.",
            ["tool"],
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        for tool in TOOLS:
            self.call_seconds.labels(tool)
            for result in ("done", "repeated", "conflict", "invalid"):
                self.calls.labels(tool, result)
        for tool in EFFECTS:
            self.effects.labels(tool)
