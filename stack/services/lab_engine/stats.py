"""Counts of the engine."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# How late a step is booked. No server's metric.
STEP_LATE_S = (0.0005, 0.001, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.05, 0.1, 0.25, 1.0)
FINISHED_REASONS = ("stop", "length", "abort", "error")


class Histogram:
    """Counts by bucket, and the sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        return sum(self.counts)

    @property
    def mean(self) -> float:
        """Mean of all observations, NaN without any."""
        return self.total / self.count if self.count else float("nan")


class Stats:
    """All counts of one engine, in base units.

    Args:
        bounds: the histograms' bounds by name. Others have only a count and a sum.
    """

    def __init__(self, bounds: Mapping[str, tuple[float, ...]]) -> None:
        self.prompt_tokens = 0
        self.computed_prompt_tokens = 0  # without those that were in the cache
        self.prefill_tokens = 0  # computed by each step, again after a preemption
        self.generated_tokens = 0
        self.prefix_queries = 0
        self.prefix_hits = 0
        self.preemptions = 0
        self.steps = 0
        self.prefill_steps = 0
        self.step_s = 0.0  # of the last one
        self.busy_s = 0.0
        self.finished = dict.fromkeys(FINISHED_REASONS, 0)

        def histogram(name: str) -> Histogram:
            return Histogram(bounds.get(name, ()))

        self.first_token_s = histogram("first_token_s")
        self.token_gap_s = histogram("token_gap_s")
        self.mean_token_s = histogram("mean_token_s")
        self.mean_token_with_prefill_s = histogram("mean_token_with_prefill_s")
        self.request_s = histogram("request_s")
        self.queue_s = histogram("queue_s")
        self.inference_s = histogram("inference_s")
        self.prefill_s = histogram("prefill_s")
        self.decode_s = histogram("decode_s")
        self.step_tokens = histogram("step_tokens")
        self.request_prompt_tokens = histogram("request_prompt_tokens")
        self.request_generated_tokens = histogram("request_generated_tokens")
        self.request_cached_tokens = histogram("request_cached_tokens")
