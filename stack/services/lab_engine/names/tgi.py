"""Text Generation Inference, from router/src/server.rs and backends/v3/src/."""

from __future__ import annotations

from itertools import accumulate, repeat
from typing import TYPE_CHECKING

from lab_engine.names.rows import HistogramRow, Names, Row, Series, counter, gauge

if TYPE_CHECKING:
    from lab_engine.names.rows import Bounds

# 35 bounds, each 1.5 times the one before, from 0.15 ms.
DURATION_S = tuple(accumulate(repeat(1.5, 34), lambda bound, ratio: bound * ratio, initial=0.0001 * 1.5))


def hundredths(max_model_tokens: int) -> Bounds:
    return tuple(max_model_tokens / 100.0 * (index + 1) for index in range(100))


NAMES = Names(
    labels=lambda _: {},
    rows=(
        counter(
            "tgi_request_count",
            "Total number of requests",
            lambda now: sum(now.stats.finished.values()) + now.scheduler.unfinished,
            late=True,
        ),
        counter("tgi_request_success", "Number of successful requests", lambda now: now.done, late=True),
        Row(
            name="tgi_request_failure",
            text="Number of failed requests",
            kind="counter",
            series=(
                Series(value=lambda now: now.finished("error"), labels={"err": "generation"}),
                Series(value=lambda now: now.finished("abort"), labels={"err": "dropped"}),
            ),
            late=True,
        ),
        # Counted when a step begins, by kind. A step with prompts is a prefill.
        Row(
            name="tgi_batch_inference_count",
            text="Inference calls per method (prefill or decode)",
            kind="counter",
            series=(
                Series(value=lambda now: now.stats.prefill_steps, labels={"method": "prefill"}),
                Series(value=lambda now: now.stats.steps - now.stats.prefill_steps, labels={"method": "decode"}),
            ),
            late=True,
        ),
        gauge("tgi_batch_current_size", "Current batch size", lambda now: now.gauges.running, late=True),
        gauge("tgi_queue_size", "Current queue size", lambda now: now.gauges.waiting, late=True),
        *(
            HistogramRow(name=f"tgi_request_{name}", text=text, of=of, bounds=bounds, late=True)
            for name, text, of, bounds in (
                ("duration", "Total time spent processing the request", "request_s", DURATION_S),
                ("queue_duration", "Time spent in the queue per request", "queue_s", DURATION_S),
                ("inference_duration", "Request inference duration", "inference_s", DURATION_S),
                # The time for all tokens, the prompt included, divided by all tokens.
                (
                    "mean_time_per_token_duration",
                    "Mean time per token per request",
                    "mean_token_with_prefill_s",
                    DURATION_S,
                ),
                ("input_length", "Input token length per request", "request_prompt_tokens", hundredths),
                ("generated_tokens", "Generated tokens per request", "request_generated_tokens", hundredths),
            )
        ),
    ),
)
