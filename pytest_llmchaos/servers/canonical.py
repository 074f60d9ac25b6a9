"""Canonical metrics: one name, unit and meaning for every server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["gauge", "counter", "histogram"]
# Names of the standard, in Prometheus' spelling: dots are underscores, the unit is the
# suffix. https://github.com/open-telemetry/semantic-conventions-genai
SEMCONV = "OpenTelemetry GenAI semantic conventions v0.1.0"
PARTS = ("bucket", "sum", "count")


@dataclass(frozen=True, kw_only=True)
class CanonicalMetric:
    """One metric that means the same for every server.

    Attributes:
        key: short name, as in the servers' files.
        name: name in Prometheus, of a histogram without `_bucket`, `_sum`, `_count`.
        kind: gauge, counter or histogram.
        unit: base unit, such as seconds, tokens or ratio (0 to 1).
        meaning: what a value is.
        otel: name in the OpenTelemetry standard, empty without one.
    """

    key: str
    name: str
    kind: Kind
    unit: str
    meaning: str
    otel: str = ""

    @property
    def series(self) -> tuple[str, ...]:
        """Names of its series in Prometheus."""
        return tuple(f"{self.name}_{part}" for part in PARTS) if self.kind == "histogram" else (self.name,)


CANONICAL = (
    CanonicalMetric(
        key="running",
        name="llmchaos:requests_running",
        kind="gauge",
        unit="requests",
        meaning="Requests in the batch of the engine.",
    ),
    CanonicalMetric(
        key="waiting",
        name="llmchaos:requests_waiting",
        kind="gauge",
        unit="requests",
        meaning="Requests that wait for a place in the batch.",
    ),
    CanonicalMetric(
        key="kv_use",
        name="llmchaos:kv_cache_usage_ratio",
        kind="gauge",
        unit="ratio",
        meaning="Share of the KV cache in use, 0 to 1.",
    ),
    CanonicalMetric(
        key="ttft",
        name="gen_ai_server_time_to_first_token_seconds",
        kind="histogram",
        unit="seconds",
        meaning="From a request's arrival at the server to its first token.",
        otel="gen_ai.server.time_to_first_token",
    ),
    CanonicalMetric(
        key="inter_token",
        name="llmchaos:inter_token_latency_seconds",
        kind="histogram",
        unit="seconds",
        meaning="Gap between two tokens or chunks of an answer, one observation a gap.",
    ),
    CanonicalMetric(
        key="per_token",
        name="gen_ai_server_time_per_output_token_seconds",
        kind="histogram",
        unit="seconds",
        meaning="Mean time per token after the first, one observation an answer.",
        otel="gen_ai.server.time_per_output_token",
    ),
    CanonicalMetric(
        key="e2e",
        name="gen_ai_server_request_duration_seconds",
        kind="histogram",
        unit="seconds",
        meaning="From a request's arrival at the server to the end of its answer.",
        otel="gen_ai.server.request.duration",
    ),
    CanonicalMetric(
        key="queue_time",
        name="llmchaos:queue_time_seconds",
        kind="histogram",
        unit="seconds",
        meaning="Wait of a request for a place in the batch.",
    ),
    CanonicalMetric(
        key="done",
        name="llmchaos:requests_done_total",
        kind="counter",
        unit="requests",
        meaning="Requests that ended with a whole answer.",
    ),
    CanonicalMetric(
        key="failed",
        name="llmchaos:requests_failed_total",
        kind="counter",
        unit="requests",
        meaning="Requests that the server ended with an error.",
    ),
    CanonicalMetric(
        key="aborted",
        name="llmchaos:requests_aborted_total",
        kind="counter",
        unit="requests",
        meaning="Requests that ended because the client left.",
    ),
    CanonicalMetric(
        key="tokens_in",
        name="llmchaos:prompt_tokens_total",
        kind="counter",
        unit="tokens",
        meaning="Tokens of prompts.",
    ),
    CanonicalMetric(
        key="tokens_out",
        name="llmchaos:output_tokens_total",
        kind="counter",
        unit="tokens",
        meaning="Tokens of answers.",
    ),
    CanonicalMetric(
        key="preempted",
        name="llmchaos:preemptions_total",
        kind="counter",
        unit="requests",
        meaning="Requests removed from the batch, to be computed again.",
    ),
    CanonicalMetric(
        key="prefix_hits",
        name="llmchaos:prefix_cache_hit_tokens_total",
        kind="counter",
        unit="tokens",
        meaning="Tokens of prompts that were in the prefix cache.",
    ),
    CanonicalMetric(
        key="heartbeat",
        name="llmchaos:engine_steps_total",
        kind="counter",
        unit="steps",
        meaning="Progress of the engine. It stands still in an idle or a hung one.",
    ),
    CanonicalMetric(
        key="healthy",
        name="llmchaos:engine_healthy",
        kind="gauge",
        unit="1",
        meaning="1 if the engine reports that it is healthy, else 0.",
    ),
)
BY_KEY = {one.key: one for one in CANONICAL}
BY_SERIES = {name: one for one in CANONICAL for name in one.series}
