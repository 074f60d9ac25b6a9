"""Counts of the engine, with the buckets of vLLM's metrics."""

from __future__ import annotations

from bisect import bisect_left
from itertools import chain

# Buckets as in vLLM's vllm/v1/metrics/loggers.py.
FIRST_TOKEN_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
TOKEN_GAP_S = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
REQUEST_S = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
STEP_TOKENS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
# Our own: how late a step is booked.
STEP_LATE_S = (0.0005, 0.001, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.05, 0.1, 0.25, 1.0)
FINISHED_REASONS = ("stop", "length", "abort", "error")


def one_two_five(limit: int) -> tuple[int, ...]:
    """1, 2, 5, 10, 20, 50 … up to and including the last one not above `limit`."""
    series = chain.from_iterable((1 * 10**power, 2 * 10**power, 5 * 10**power) for power in range(12))
    return tuple(value for value in series if value <= limit)


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
    """All counts of one engine."""

    def __init__(self, max_model_tokens: int) -> None:
        lengths = one_two_five(max_model_tokens)
        self.prompt_tokens = 0
        self.generated_tokens = 0
        self.prefix_queries = 0
        self.prefix_hits = 0
        self.preemptions = 0
        self.steps = 0
        self.busy_s = 0.0
        self.finished = dict.fromkeys(FINISHED_REASONS, 0)
        self.first_token_s = Histogram(FIRST_TOKEN_S)
        self.token_gap_s = Histogram(TOKEN_GAP_S)
        self.mean_token_s = Histogram(TOKEN_GAP_S)
        self.request_s = Histogram(REQUEST_S)
        self.queue_s = Histogram(REQUEST_S)
        self.inference_s = Histogram(REQUEST_S)
        self.prefill_s = Histogram(REQUEST_S)
        self.decode_s = Histogram(REQUEST_S)
        self.step_tokens = Histogram(STEP_TOKENS)
        self.request_prompt_tokens = Histogram(lengths)
        self.request_generated_tokens = Histogram(lengths)
