"""Dynamo's frontend, from lib/llm/src/http/service/metrics.rs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lab_engine.names.rows import HistogramRow, Names, Row, Series, counter, gauge

if TYPE_CHECKING:
    from lab_engine.names.rows import Bounds, Now


def logarithmic(least: float, most: float, count: int) -> Bounds:
    """0, and bounds on a logarithmic scale with 2 significant digits."""
    steps = (least * (most / least) ** (index / (count - 1)) for index in range(1, count))
    return (0.0, *dict.fromkeys(round(step, 1 - math.floor(math.log10(step))) for step in steps))


LENGTHS = logarithmic(50.0, 128000.0, 12)
ASKED = {"endpoint": "chat_completions", "request_type": "stream"}


def without_token(now: Now) -> int:
    return sum(sequence.generated == 0 for sequence in now.scheduler.all_unfinished())


NAMES = Names(
    labels=lambda model: {"model": model},
    rows=(
        Row(
            name="dynamo_frontend_requests_total",
            text="Total number of LLM requests processed",
            kind="counter",
            series=(
                Series(value=lambda now: now.done, labels={**ASKED, "status": "success", "error_type": ""}),
                Series(
                    value=lambda now: now.finished("error"),
                    labels={**ASKED, "status": "error", "error_type": "internal"},
                ),
                Series(
                    value=lambda now: now.finished("abort"),
                    labels={**ASKED, "status": "error", "error_type": "cancelled"},
                ),
            ),
            late=True,
        ),
        # The frontend is not the engine: it counts open requests, and those without a
        # token.
        gauge("dynamo_frontend_inflight_requests", "Number of inflight requests", lambda now: now.scheduler.unfinished),
        gauge(
            "dynamo_frontend_active_requests",
            "Number of requests currently being handled by the frontend",
            lambda now: now.scheduler.unfinished,
        ),
        gauge("dynamo_frontend_queued_requests", "Number of requests in HTTP processing queue", without_token),
        counter(
            "dynamo_frontend_output_tokens_total",
            "Total number of output tokens generated (updates in real-time)",
            lambda now: now.stats.generated_tokens,
            late=True,
        ),
        # On the workers' page. Here it is on the same one.
        gauge(
            "dynamo_component_kvstats_gpu_cache_usage_percent",
            "GPU cache usage as a percentage (0.0-1.0)",
            lambda now: now.gauges.cache_used_ratio,
        ),
        *(
            HistogramRow(name=f"dynamo_frontend_{name}", text=text, of=of, bounds=bounds, late=True)
            for name, text, of, bounds in (
                ("request_duration_seconds", "Duration of LLM requests", "request_s", logarithmic(1.0, 512.0, 10)),
                (
                    "time_to_first_token_seconds",
                    "Time to first token in seconds",
                    "first_token_s",
                    logarithmic(0.001, 480.0, 18),
                ),
                (
                    "inter_token_latency_seconds",
                    "Inter-token latency in seconds",
                    "token_gap_s",
                    logarithmic(0.001, 2.0, 13),
                ),
                ("input_sequence_tokens", "Input sequence length in tokens", "request_prompt_tokens", LENGTHS),
                (
                    "output_sequence_tokens",
                    "Output sequence length in tokens",
                    "request_generated_tokens",
                    logarithmic(50.0, 32000.0, 10),
                ),
                (
                    "cached_tokens",
                    "Number of cached tokens (prefix cache hits) per request",
                    "request_cached_tokens",
                    LENGTHS,
                ),
            )
        ),
    ),
)
