"""vLLM 0.8.5, before four of its names changed."""

from __future__ import annotations

from lab_engine.names.rows import HistogramRow, Names, Row, counter, gauge, one_two_five
from lab_engine.names.vllm import LOAD, REQUEST_S, STEP_TOKENS, finished

FIRST_TOKEN_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0),
)
TOKEN_GAP_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)

NAMES = Names(
    labels=lambda model: {"model_name": model},
    rows=(
        *LOAD,
        gauge(
            "vllm:gpu_cache_usage_perc",
            "GPU KV-cache usage. 1 means 100 percent usage.",
            lambda now: now.gauges.cache_used_ratio,
        ),
        counter(
            "vllm:gpu_prefix_cache_queries_total",
            "GPU prefix cache queries, in terms of number of queried blocks.",
            lambda now: now.stats.prefix_queries // now.limits.block_tokens,
        ),
        counter(
            "vllm:gpu_prefix_cache_hits_total",
            "GPU prefix cache hits, in terms of number of cached blocks.",
            lambda now: now.stats.prefix_hits // now.limits.block_tokens,
        ),
        counter(
            "vllm:num_preemptions_total",
            "Cumulative number of preemption from the engine.",
            lambda now: now.stats.preemptions,
        ),
        counter("vllm:prompt_tokens_total", "Number of prefill tokens processed.", lambda now: now.stats.prompt_tokens),
        counter(
            "vllm:generation_tokens_total",
            "Number of generation tokens processed.",
            lambda now: now.stats.generated_tokens,
        ),
        Row(
            name="vllm:request_success_total",
            text="Count of successfully processed requests.",
            kind="counter",
            series=finished("stop", "length", "abort"),
        ),
        *(
            HistogramRow(name=f"vllm:{name}", text=text, of=of, bounds=bounds)
            for name, text, of, bounds in (
                ("request_prompt_tokens", "Number of prefill tokens.", "request_prompt_tokens", one_two_five),
                ("request_generation_tokens", "Number of generation tokens.", "request_generated_tokens", one_two_five),
                ("iteration_tokens_total", "Number of tokens per engine_step.", "step_tokens", STEP_TOKENS),
                ("time_to_first_token_seconds", "Time to first token.", "first_token_s", FIRST_TOKEN_S),
                ("time_per_output_token_seconds", "Time per output token.", "token_gap_s", TOKEN_GAP_S),
                ("e2e_request_latency_seconds", "End-to-end request latency.", "request_s", REQUEST_S),
                ("request_queue_time_seconds", "Time spent in the WAITING phase.", "queue_s", REQUEST_S),
                ("request_inference_time_seconds", "Time spent in the RUNNING phase.", "inference_s", REQUEST_S),
                ("request_prefill_time_seconds", "Time spent in the PREFILL phase.", "prefill_s", REQUEST_S),
                ("request_decode_time_seconds", "Time spent in the DECODE phase.", "decode_s", REQUEST_S),
            )
        ),
    ),
)
