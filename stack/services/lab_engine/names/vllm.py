"""vLLM, from vllm/v1/metrics/loggers.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab_engine.names.rows import HistogramRow, Names, Row, Series, counter, gauge, one_two_five

if TYPE_CHECKING:
    from lab_engine.names.rows import Value

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


def finished(*reasons: str) -> tuple[Series, ...]:
    return tuple(Series(value=of_reason(reason), labels={"finished_reason": reason}) for reason in reasons)


def of_reason(reason: str) -> Value:
    return lambda now: now.finished(reason)


# Of every version.
LOAD = (
    gauge(
        "vllm:num_requests_running",
        "Number of requests in model execution batches.",
        lambda now: now.gauges.running,
    ),
    gauge(
        "vllm:num_requests_waiting",
        "Number of requests waiting to be processed.",
        lambda now: now.gauges.waiting,
    ),
)
NAMES = Names(
    labels=lambda model: {"model_name": model, "engine": "0"},
    rows=(
        *LOAD,
        gauge(
            "vllm:kv_cache_usage_perc",
            "KV-cache usage. 1 means 100 percent usage.",
            lambda now: now.gauges.cache_used_ratio,
        ),
        Row(
            name="vllm:num_requests_waiting_by_reason",
            text="Number of waiting requests by reason.",
            kind="gauge",
            series=(
                Series(value=lambda now: now.gauges.waiting, labels={"reason": "capacity"}),
                Series(value=lambda _: 0, labels={"reason": "deferred"}),
            ),
        ),
        Row(
            name="vllm:cache_config_info",
            text="Information of the LLMEngine CacheConfig",
            kind="gauge",
            series=(Series(value=lambda _: 1),),
            labels=lambda limits: {
                "block_size": str(limits.block_tokens),
                "num_gpu_blocks": str(limits.blocks),
                "enable_prefix_caching": "True",
                "engine": "0",
            },
        ),
        counter("vllm:prompt_tokens_total", "Number of prefill tokens processed.", lambda now: now.stats.prompt_tokens),
        counter(
            "vllm:generation_tokens_total",
            "Number of generation tokens processed.",
            lambda now: now.stats.generated_tokens,
        ),
        counter(
            "vllm:prefix_cache_queries_total",
            "Prefix cache queries, in terms of number of queried tokens.",
            lambda now: now.stats.prefix_queries,
        ),
        counter(
            "vllm:prefix_cache_hits_total",
            "Prefix cache hits, in terms of number of cached tokens.",
            lambda now: now.stats.prefix_hits,
        ),
        counter(
            "vllm:num_preemptions_total",
            "Cumulative number of preemption from the engine.",
            lambda now: now.stats.preemptions,
        ),
        Row(
            name="vllm:request_success_total",
            text="Count of successfully processed requests.",
            kind="counter",
            series=finished("stop", "length", "abort", "error"),
        ),
        *(
            HistogramRow(name=f"vllm:{name}", text=text, of=of, bounds=bounds)
            for name, text, of, bounds in (
                ("time_to_first_token_seconds", "Time to first token.", "first_token_s", FIRST_TOKEN_S),
                ("inter_token_latency_seconds", "Inter-token latency.", "token_gap_s", TOKEN_GAP_S),
                (
                    "request_time_per_output_token_seconds",
                    "Mean time per output token of a request.",
                    "mean_token_s",
                    TOKEN_GAP_S,
                ),
                ("e2e_request_latency_seconds", "End-to-end request latency.", "request_s", REQUEST_S),
                ("request_queue_time_seconds", "Time spent in the WAITING phase.", "queue_s", REQUEST_S),
                ("request_inference_time_seconds", "Time spent in the RUNNING phase.", "inference_s", REQUEST_S),
                ("request_prefill_time_seconds", "Time spent in the PREFILL phase.", "prefill_s", REQUEST_S),
                ("request_decode_time_seconds", "Time spent in the DECODE phase.", "decode_s", REQUEST_S),
                ("iteration_tokens_total", "Number of tokens per engine step.", "step_tokens", STEP_TOKENS),
                (
                    "request_prompt_tokens",
                    "Number of prefill tokens of a request.",
                    "request_prompt_tokens",
                    one_two_five,
                ),
                (
                    "request_generation_tokens",
                    "Number of tokens of an answer.",
                    "request_generated_tokens",
                    one_two_five,
                ),
            )
        ),
    ),
)
