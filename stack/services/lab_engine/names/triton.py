"""Triton with TensorRT-LLM's backend, its histograms switched on.

From the server's user guide (metrics) and the backend's custom metrics reporter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab_engine.names.rows import HistogramRow, Names, Row, Series, counter

if TYPE_CHECKING:
    from lab_engine.names.rows import Now

# metric_model_reporter.cc: the default of --metrics-config histogram_latencies=true
FIRST_RESPONSE_MS = (100, 500, 2000, 5000)
TOKENS = (10, 50, 100, 500, 1000)


def microseconds(value_s: float) -> int:
    return int(value_s * 1e6)


def blocks_used(now: Now) -> int:
    return round(now.gauges.cache_used_ratio * now.limits.blocks)


NAMES = Names(
    labels=lambda _: {"model": "tensorrt_llm", "version": "1"},
    rows=(
        counter(
            "nv_inference_request_success",
            "Number of successful inference requests, all batch sizes",
            lambda now: now.done,
        ),
        Row(
            name="nv_inference_request_failure",
            text="Number of failed inference requests, all batch sizes",
            kind="counter",
            series=(
                Series(value=lambda _: 0, labels={"reason": "REJECTED"}),
                Series(value=lambda now: now.finished("abort"), labels={"reason": "CANCELED"}),
                Series(value=lambda now: now.finished("error"), labels={"reason": "BACKEND"}),
                Series(value=lambda _: 0, labels={"reason": "OTHER"}),
            ),
        ),
        counter("nv_inference_count", "Number of inferences performed", lambda now: now.done),
        counter("nv_inference_exec_count", "Number of model executions performed", lambda now: now.done),
        counter(
            "nv_inference_request_duration_us",
            "Cumulative inference request duration in microseconds",
            lambda now: microseconds(now.stats.request_s.total),
        ),
        counter(
            "nv_inference_queue_duration_us",
            "Cumulative inference queuing duration in microseconds",
            lambda now: microseconds(now.stats.queue_s.total),
        ),
        counter(
            "nv_inference_compute_infer_duration_us",
            "Cumulative compute inference duration in microseconds",
            lambda now: microseconds(now.stats.inference_s.total),
        ),
        Row(
            name="nv_inference_pending_request_count",
            text="Instantaneous number of pending requests awaiting execution per-model.",
            kind="gauge",
            series=(Series(value=lambda now: now.gauges.waiting),),
        ),
        HistogramRow(
            name="nv_inference_first_response_histogram_ms",
            text="Duration from request to first response in milliseconds",
            of="first_token_s",
            bounds=FIRST_RESPONSE_MS,
            scale=1000,
        ),
        Row(
            name="nv_trt_llm_request_metrics",
            text="TRT LLM request metrics",
            kind="gauge",
            series=(
                Series(value=lambda now: now.gauges.running + now.gauges.waiting, labels={"request_type": "active"}),
                Series(value=lambda now: now.limits.slots, labels={"request_type": "max"}),
                Series(value=lambda now: now.gauges.running, labels={"request_type": "scheduled"}),
                Series(value=lambda now: now.gauges.waiting, labels={"request_type": "waiting"}),
            ),
        ),
        Row(
            name="nv_trt_llm_kv_cache_block_metrics",
            text="TRT LLM KV cache block metrics",
            kind="gauge",
            series=(
                Series(value=lambda now: now.limits.blocks, labels={"kv_cache_block_type": "max"}),
                Series(value=lambda now: now.limits.blocks - blocks_used(now), labels={"kv_cache_block_type": "free"}),
                Series(value=blocks_used, labels={"kv_cache_block_type": "used"}),
                Series(value=lambda now: now.limits.block_tokens, labels={"kv_cache_block_type": "tokens_per"}),
                Series(value=lambda now: now.gauges.cache_used_ratio, labels={"kv_cache_block_type": "fraction"}),
            ),
        ),
        Row(
            name="nv_trt_llm_general_metrics",
            text="General TRT LLM metrics",
            kind="gauge",
            series=(Series(value=lambda now: now.stats.steps, labels={"general_type": "iteration_counter"}),),
        ),
        HistogramRow(
            name="nv_llm_input_token_len",
            text="TRT LLM response metrics",
            of="request_prompt_tokens",
            bounds=TOKENS,
            labels={"response_metric_type": "total_input_tokens"},
        ),
        HistogramRow(
            name="nv_llm_output_token_len",
            text="TRT LLM response metrics",
            of="request_generated_tokens",
            bounds=TOKENS,
            labels={"response_metric_type": "total_output_tokens"},
        ),
    ),
)
