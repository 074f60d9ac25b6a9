"""llama.cpp's llama-server with --metrics, from tools/server/server.cpp."""

from __future__ import annotations

from lab_engine.names.rows import Names, counter, gauge

NAMES = Names(
    labels=lambda _: {},
    rows=(
        # Without the tokens that were in the cache.
        counter(
            "llamacpp:prompt_tokens_total",
            "Number of prompt tokens processed.",
            lambda now: now.stats.computed_prompt_tokens,
        ),
        counter(
            "llamacpp:prompt_tokens_cached_total",
            "Number of prompt tokens reused from the cache.",
            lambda now: now.stats.prompt_tokens - now.stats.computed_prompt_tokens,
        ),
        counter("llamacpp:prompt_seconds_total", "Prompt process time", lambda now: now.stats.prefill_s.total),
        # Counted when a request ends.
        counter(
            "llamacpp:tokens_predicted_total",
            "Number of generation tokens processed.",
            lambda now: now.stats.request_generated_tokens.total,
        ),
        counter(
            "llamacpp:tokens_predicted_seconds_total", "Predict process time", lambda now: now.stats.decode_s.total
        ),
        counter("llamacpp:n_decode_total", "Total number of llama_decode() calls", lambda now: now.stats.steps),
        gauge(
            "llamacpp:predicted_tokens_seconds",
            "Average generation throughput in tokens/s.",
            lambda now: (
                now.stats.request_generated_tokens.total / now.stats.decode_s.total if now.stats.decode_s.total else 0
            ),
        ),
        gauge("llamacpp:requests_processing", "Number of requests processing.", lambda now: now.gauges.running),
        gauge("llamacpp:requests_deferred", "Number of requests deferred.", lambda now: now.gauges.waiting),
    ),
)
