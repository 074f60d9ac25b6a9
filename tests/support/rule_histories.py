"""Made-up histories of the lab, second by second.

A history is a healthy lab with some series replaced. A value is the result of a scrape
at that second, None a failed scrape. NaN means that Prometheus itself did not run. It
wrote no staleness marker then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

Value = float | None
Story = Callable[[int], Value]
RATE = 8.0  # requests a second that the clients offer
REPLICAS = ("model-1", "model-2")
MISSED = (
    'prometheus_rule_group_iterations_missed_total{job="prometheus",rule_group="lab.yml;lab-api",service="prometheus"}'
)
STARTED = 'process_start_time_seconds{job="prometheus",service="prometheus"}'
BAD_OUTCOMES = ("truncated", "stalled", "inband_error", "http_5xx", "http_429", "timeout", "refused", "corrupted")


def steady(value: float) -> Story:
    return lambda second: value


def between(from_s: int, to_s: int, inside: Value, outside: Value) -> Story:
    return lambda second: inside if from_s <= second < to_s else outside


def frozen(from_s: int, to_s: int, before: float, after: float) -> Story:
    """A series of a Prometheus that does not run in between."""
    return lambda second: before if second < from_s else (math.nan if second < to_s else after)


def counted(rate: Callable[[int], float], *, reset_at: int | None = None, gone: range = range(0)) -> Story:
    """A counter that grows by rate(second), with a restart and a scrape gap."""
    sums = [0.0]

    def story(second: int) -> Value:
        if second in gone:
            return None
        while len(sums) <= second:
            last = len(sums) - 1
            sums.append(0.0 if len(sums) == reset_at else sums[-1] + rate(last))
        return round(sums[second], 6)

    return story


# Names of running, waiting, KV use and heartbeat, the order of `engine`.
ENGINES = {
    "vllm": (
        "vllm:num_requests_running",
        "vllm:num_requests_waiting",
        "vllm:kv_cache_usage_perc",
        "vllm:iteration_tokens_total_count",
    ),
    "sglang": (
        "sglang:num_running_reqs",
        "sglang:num_queue_reqs",
        "sglang:token_usage",
        "sglang:realtime_tokens_total",
    ),
    "llamacpp": ("llamacpp:requests_processing", "llamacpp:requests_deferred", "", "llamacpp:n_decode_total"),
}


def engine(
    server: str,
    replica: str,
    *,
    running: Story | None = None,
    waiting: Story | None = None,
    kv_use: Story | None = None,
    steps: Story | None = None,
) -> dict[str, Story]:
    """Series of an engine with a full cache and no queue, in a server's names."""
    stories = (running or steady(4), waiting or steady(0), kv_use or steady(0.97), steps or counted(lambda s: 50.0))
    named = zip(ENGINES[server], stories, strict=True)
    return {f'{name}{{engine="0",job="model",service="{replica}"}}': story for name, story in named if name}


def lab(
    rate: float = RATE, servers: tuple[str, str] = ("vllm", "vllm"), **shares: Callable[[int], float]
) -> dict[str, Story]:
    """A lab with traffic. `shares`: bad outcome -> share of requests at each second."""

    def bad(second: int) -> float:
        return sum(share(second) for share in shares.values())

    series: dict[str, Story] = {
        'up{job="api",service="api"}': steady(1),
        'up{job="pushgateway",service="pushgateway"}': steady(1),
        MISSED: steady(2),
        STARTED: steady(1.7e9),
        'llmlab_queue_depth{job="api",service="api"}': steady(0),
        "llmchaos_client_offered_total": counted(lambda s: rate),
        "llmchaos_client_good_total": counted(lambda s: rate * (1 - bad(s))),
        'llmchaos_client_requests_total{outcome="ok"}': counted(lambda s: rate * (1 - bad(s))),
        'llmchaos_client_requests_total{outcome="cancelled"}': steady(0),
        'llmlab_requests_total{job="api",outcome="ok",service="api"}': counted(lambda s: rate),
        'llmlab_requests_total{job="api",outcome="upstream_5xx",service="api"}': steady(0),
        'llmlab_requests_total{job="api",outcome="client_cancelled",service="api"}': steady(0),
    }
    for outcome in BAD_OUTCOMES:
        series[f'llmchaos_client_requests_total{{outcome="{outcome}"}}'] = counted(
            lambda s, name=outcome: rate * shares[name](s) if name in shares else 0.0  # type: ignore[misc]
        )
    for what in ("request_duration", "time_to_first_token"):
        series |= histogram(f"llmchaos_client_{what}_seconds", 'result="ok"', lambda s: rate * (1 - bad(s)), 0.3)
        series |= histogram(f"llmchaos_client_{what}_seconds", 'result="failed"', lambda s: rate * bad(s), float("inf"))
        at_api = 'error_type="",job="api",service="api"'
        series |= histogram(f"gen_ai_server_{what}_seconds", at_api, lambda s: rate, 0.3)
    for name, server in zip(REPLICAS, servers, strict=True):
        for probe in ("shallow", "passive"):
            labels = f'job="api",probe="{probe}",replica="{name}",service="api"'
            series[f"llmlab_upstream_health{{{labels}}}"] = steady(1)
        at_replica = f'job="api",replica="{name}",service="api"'
        series[f'llmlab_upstream_attempts_total{{{at_replica},reason="first"}}'] = counted(lambda s: rate / 2)
        for reason in ("upstream_5xx", "upstream_429"):
            series[f'llmlab_upstream_failures_total{{{at_replica},reason="{reason}"}}'] = steady(0)
        series[f"llmlab_probe_duration_seconds{{{at_replica}}}"] = steady(0.005)
        series[f'llmlab_oldest_inflight_seconds{{phase="prefill",replica="{name}",service="api"}}'] = steady(0.1)
        series[f'llmlab_oldest_inflight_seconds{{phase="decode",replica="{name}",service="api"}}'] = steady(9)
        series[f'llmlab_oldest_silence_seconds{{replica="{name}",service="api"}}'] = steady(0.1)
        series[f'llmlab_inflight_requests{{replica="{name}",service="api"}}'] = steady(2)
        series[f'service_container_restarts_total{{reason="external",service="{name}"}}'] = steady(1)
        series |= engine(server, name)
        series[f'DCGM_FI_DEV_XID_ERRORS{{gpu="0",service="{name}"}}'] = steady(0)
        series[f'DCGM_FI_DEV_GPU_TEMP{{gpu="0",service="{name}"}}'] = steady(70)
    return series


BUCKETS = ("0.32", "0.5", "1.28", "2", "2.5", "2.56", "5.12", "10.24", "20.48", "+Inf")


def histogram(
    name: str, labels: str, rate: Callable[[int], float], seconds: float | Callable[[int], float]
) -> dict[str, Story]:
    """Requests that all take `seconds`. Infinity: requests that never ended."""
    took = seconds if callable(seconds) else (lambda s, fixed=seconds: fixed)
    series: dict[str, Story] = {f"{name}_count{{{labels}}}": counted(rate)}
    for edge in BUCKETS:
        series[f'{name}_bucket{{{labels},le="{edge}"}}'] = counted(
            lambda s, limit=float(edge): rate(s) if took(s) <= limit else 0.0  # type: ignore[misc]
        )
    return series


def history(series: Mapping[str, Story], seconds: int, checks: list[dict[str, Any]]) -> dict[str, Any]:
    """One test for `promtool test rules`. The history ends after `seconds`."""
    return {
        "interval": "1s",
        "input_series": [
            {"series": selector, "values": " ".join(_values(story, seconds))} for selector, story in series.items()
        ],
        "promql_expr_test": checks,
    }


def _values(story: Story, seconds: int) -> list[str]:
    """Values for promtool. Prometheus writes one `stale` when a series vanishes."""
    found = [story(second) for second in range(seconds + 1)]
    return [
        "_"
        if value is not None and math.isnan(value)
        else f"{value:.12g}"
        if value is not None
        else ("stale" if i and found[i - 1] is not None else "_")
        for i, value in enumerate(found)
    ]
