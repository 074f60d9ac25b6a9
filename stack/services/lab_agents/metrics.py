"""Metrics of the agent. Series start at 0, so a first increase counts."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.process_collector import ProcessCollector

from lab_agents.tasks import ENDS

TASK_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300)
BUDGETS = ("steps", "seconds", "tokens")
UNKNOWN = "other"  # label of all tools that the tool server has not listed


class Metrics:
    """The agent's counters, on their own registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=self.registry)

        self.tasks = counter("llmlab_agent_tasks", "Tasks by how they ended.", "status")
        self.running = Gauge("llmlab_agent_tasks_running", "Tasks in work.", registry=self.registry)
        self.model_calls = counter("llmlab_agent_model_calls", "Answers of the model.")
        self.tool_calls = counter(
            "llmlab_agent_tool_calls",
            "Requests to tools, every try, by result: ok, is_error, failed, timeout, rate_limited.",
            "tool",
            "result",
        )
        self.resumed = counter("llmlab_agent_resumed", "Tasks of an earlier process that this one works on.")
        self.exceeded = counter("llmlab_agent_budget_exceeded", "Tasks that a budget ended.", "budget")
        self.seconds = Histogram(
            "llmlab_agent_task_seconds",
            "From a task's acceptance to its end.",
            buckets=TASK_BUCKETS_S,
            registry=self.registry,
        )
        for status in ENDS:
            self.tasks.labels(status)
        for budget in BUDGETS:
            self.exceeded.labels(budget)
