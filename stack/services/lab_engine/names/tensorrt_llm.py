"""TensorRT-LLM's trtllm-serve, from tensorrt_llm/metrics/collector.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab_engine.names.rows import HistogramRow, Names, Row, counter, gauge
from lab_engine.names.vllm import FIRST_TOKEN_S, REQUEST_S, TOKEN_GAP_S, finished

if TYPE_CHECKING:
    from lab_engine.names.rows import Now

PREFILL_S = (
    *(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0),
    *(160.0, 640.0, 2560.0),
)
CACHED_TOKENS = (0, 64, 128, 256, 512, 1024, 2048, 4096, 8192)


def blocks_used(now: Now) -> int:
    return round(now.gauges.cache_used_ratio * now.limits.blocks)


NAMES = Names(
    path="/prometheus/metrics",
    labels=lambda model: {"model_name": model, "engine_type": "trtllm"},
    rows=(
        Row(
            name="trtllm_request_success_total",
            text="Count of successfully processed requests.",
            kind="counter",
            series=finished("stop", "length"),
            late=True,
        ),
        counter(
            "trtllm_request_error_total",
            "Total request errors, labeled by HTTP status code.",
            lambda now: now.finished("error"),
            late=True,
            http_code="500",
        ),
        # Tokens are counted when a request ends.
        counter(
            "trtllm_prompt_tokens_total",
            "Cumulative number of prompt (input) tokens processed.",
            lambda now: now.stats.request_prompt_tokens.total,
            late=True,
        ),
        counter(
            "trtllm_generation_tokens_total",
            "Cumulative number of generation (output) tokens produced.",
            lambda now: now.stats.request_generated_tokens.total,
            late=True,
        ),
        counter(
            "trtllm_prompt_cached_tokens_total",
            "Process-lifetime total prompt tokens served from KV cache.",
            lambda now: now.stats.request_cached_tokens.total,
        ),
        counter(
            "trtllm_kv_cache_reused_blocks_total",
            "Cumulative number of KV cache blocks reused (cache hits)",
            lambda now: now.stats.request_cached_tokens.total // now.limits.block_tokens,
            late=True,
        ),
        counter(
            "trtllm_num_requests_completed_total",
            "Total number of completed requests across iterations",
            lambda now: now.done,
            late=True,
        ),
        *(
            gauge(f"trtllm_{name}", text, value, late=True)
            for name, text, value in (
                ("num_requests_running", "Number of active requests", lambda now: now.gauges.running),
                ("num_requests_waiting", "Number of queued requests", lambda now: now.gauges.waiting),
                ("kv_cache_utilization", "KV cache utilization", lambda now: now.gauges.cache_used_ratio),
                ("kv_cache_max_blocks", "Maximum number of KV cache blocks", lambda now: now.limits.blocks),
                ("kv_cache_used_blocks", "Number of used KV cache blocks", blocks_used),
                (
                    "kv_cache_tokens_per_block",
                    "Number of tokens per KV cache block",
                    lambda now: now.limits.block_tokens,
                ),
                # A gauge of the last step, not a count of steps.
                ("iteration_latency_seconds", "Iteration latency in seconds", lambda now: now.stats.step_s),
                ("max_batch_size_static", "Static maximum batch size", lambda now: now.limits.slots),
            )
        ),
        *(
            HistogramRow(name=f"trtllm_{name}", text=text, of=of, bounds=bounds, late=True)
            for name, text, of, bounds in (
                (
                    "e2e_request_latency_seconds",
                    "Histogram of end to end request latency in seconds.",
                    "request_s",
                    REQUEST_S,
                ),
                (
                    "time_to_first_token_seconds",
                    "Histogram of time to first token in seconds.",
                    "first_token_s",
                    FIRST_TOKEN_S,
                ),
                (
                    "time_per_output_token_seconds",
                    "Histogram of time per output token in seconds.",
                    "mean_token_s",
                    TOKEN_GAP_S,
                ),
                (
                    "request_queue_time_seconds",
                    "Histogram of time spent in WAITING phase for request.",
                    "queue_s",
                    REQUEST_S,
                ),
                ("request_prefill_time_seconds", "Histogram of prefill phase duration.", "prefill_s", PREFILL_S),
                ("request_decode_time_seconds", "Histogram of decode phase duration.", "decode_s", REQUEST_S),
                ("request_inference_time_seconds", "Histogram of total inference duration.", "inference_s", REQUEST_S),
                (
                    "prompt_cached_tokens_per_request",
                    "Histogram of cached prompt tokens per request.",
                    "request_cached_tokens",
                    CACHED_TOKENS,
                ),
            )
        ),
    ),
)
