"""SGLang, from python/sglang/srt/observability/metrics_collector.py."""

from __future__ import annotations

from lab_engine.names.rows import HistogramRow, Names, Row, Series, counter, gauge

FIRST_TOKEN_S = (0.1, 0.2, 0.4, 0.6, 0.8, 1, 2, 4, 6, 8, 10, 20, 40, 60, 80, 100, 200, 400)
REQUEST_S = (*FIRST_TOKEN_S, 600, 1200, 1800, 2400)
TOKEN_GAP_S = (
    *(0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04, 0.06, 0.08),
    *(0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0),
)
QUEUE_S = (
    *(0.0, 0.001, 0.005, 0.01, 0.05, 0.1, 0.2, 0.5, 1, 2, 3, 4, 5, 10, 15, 20, 30, 40, 50, 60, 70, 80, 90),
    *(100, 200, 300, 400, 500, 600, 700, 800, 900, 1000, 1200, 1400, 1600, 1800, 2000, 2500, 3000),
)
TOKENS = (
    *(100, 300, 500, 700, 1000, 1500, 2000, 3000, 4000, 5000, 6000, 7000, 8000, 9000, 10000, 12500, 15000),
    *(17500, 20000, 22500, 25000, 27500, 30000, 35000, 40000, 60000, 80000, 100000, 200000, 300000, 400000),
    *(600000, 800000, 1000000, 1100000),
)
# Clients of the lab stream, so the other value of the label has no series.
STREAMING = {"is_streaming": "true"}

NAMES = Names(
    labels=lambda model: {
        "model_name": model,
        "engine_type": "unified",
        "tp_rank": "0",
        "pp_rank": "0",
        "moe_ep_rank": "0",
    },
    rows=(
        gauge("sglang:num_running_reqs", "The number of running requests.", lambda now: now.gauges.running),
        gauge("sglang:num_queue_reqs", "The number of requests in the waiting queue.", lambda now: now.gauges.waiting),
        gauge("sglang:token_usage", "The token usage.", lambda now: now.gauges.cache_used_ratio),
        gauge(
            "sglang:full_token_usage",
            "The token usage for full attention layers.",
            lambda now: now.gauges.cache_used_ratio,
        ),
        gauge(
            "sglang:cache_hit_rate",
            "The prefix cache hit rate.",
            lambda now: now.stats.prefix_hits / now.stats.prefix_queries if now.stats.prefix_queries else 0,
        ),
        gauge(
            "sglang:max_total_num_tokens",
            "Maximum total number of tokens in the KV cache pool.",
            lambda now: now.limits.blocks * now.limits.block_tokens,
        ),
        counter(
            "sglang:num_retracted_requests_total",
            "Total number of retracted requests.",
            lambda now: now.stats.preemptions,
            late=True,
        ),
        Row(
            name="sglang:realtime_tokens_total",
            text="Total number of tokens processed. mode: prefill_compute, prefill_cache, decode.",
            kind="counter",
            series=(
                # A long prompt moves it with each step.
                Series(value=lambda now: now.stats.prefill_tokens, labels={"mode": "prefill_compute"}),
                Series(
                    value=lambda now: now.stats.prompt_tokens - now.stats.computed_prompt_tokens,
                    labels={"mode": "prefill_cache"},
                ),
                Series(value=lambda now: now.stats.generated_tokens, labels={"mode": "decode"}),
            ),
            late=True,
        ),
        # Tokens and requests are counted when a request ends.
        counter(
            "sglang:prompt_tokens_total",
            "Number of prefill tokens processed.",
            lambda now: now.stats.request_prompt_tokens.total,
            late=True,
            **STREAMING,
        ),
        counter(
            "sglang:generation_tokens_total",
            "Number of generation tokens processed.",
            lambda now: now.stats.request_generated_tokens.total,
            late=True,
            **STREAMING,
        ),
        counter(
            "sglang:cached_tokens_total",
            "Number of cached prompt tokens by source (device/host/storage).",
            lambda now: now.stats.request_cached_tokens.total,
            late=True,
            cache_source="device",
        ),
        counter(
            "sglang:num_requests_total",
            "Number of requests processed.",
            lambda now: now.done,
            late=True,
            **STREAMING,
        ),
        counter(
            "sglang:num_aborted_requests_total",
            "Number of requests aborted.",
            lambda now: now.finished("abort"),
            late=True,
        ),
        HistogramRow(
            name="sglang:queue_time_seconds",
            text="Histogram of queueing time in seconds.",
            of="queue_s",
            bounds=QUEUE_S,
            late=True,
        ),
        HistogramRow(
            name="sglang:time_to_first_token_seconds",
            text="Histogram of time to first token in seconds.",
            of="first_token_s",
            bounds=FIRST_TOKEN_S,
            labels=STREAMING,
            late=True,
        ),
        HistogramRow(
            name="sglang:inter_token_latency_seconds",
            text="Histogram of inter-token latency in seconds.",
            of="token_gap_s",
            bounds=TOKEN_GAP_S,
            late=True,
        ),
        HistogramRow(
            name="sglang:request_time_per_output_token_seconds",
            text="Histogram of time per output token of a request in seconds.",
            of="mean_token_s",
            bounds=TOKEN_GAP_S,
            labels=STREAMING,
            late=True,
        ),
        HistogramRow(
            name="sglang:e2e_request_latency_seconds",
            text="Histogram of End-to-end request latency in seconds",
            of="request_s",
            bounds=REQUEST_S,
            labels=STREAMING,
            late=True,
        ),
        HistogramRow(
            name="sglang:prompt_tokens_histogram",
            text="Histogram of prompt token length.",
            of="request_prompt_tokens",
            bounds=TOKENS,
            late=True,
        ),
        HistogramRow(
            name="sglang:generation_tokens_histogram",
            text="Histogram of generation token length.",
            of="request_generated_tokens",
            bounds=TOKENS,
            late=True,
        ),
    ),
)
