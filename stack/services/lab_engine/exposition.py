"""Metrics in Prometheus format under vLLM's names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from lab_engine.faults import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Metric

    from lab_engine.engine import Engine
    from lab_engine.stats import Histogram

LABELS = ("model_name", "engine")


class EngineCollector:
    """Collector of the engine's counts."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._labels = (engine.settings.model, "0")

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("llmchaos_simulated", "1: no language model runs here, the numbers are simulated.", 1)
        yield from self._gauges()
        yield from self._counters()
        yield from self._histograms()
        yield from self._own()

    def _gauges(self) -> Iterator[Metric]:
        scheduler, now = self._engine.scheduler, self._engine.gauges()
        for name, text, value in (
            ("vllm:num_requests_running", "Number of requests in model execution batches.", now.running),
            ("vllm:num_requests_waiting", "Number of requests waiting to be processed.", now.waiting),
            ("vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", now.cache_used_ratio),
        ):
            yield self._gauge(name, text, value)
        reasons = GaugeMetricFamily(
            "vllm:num_requests_waiting_by_reason", "Number of waiting requests by reason.", labels=(*LABELS, "reason")
        )
        reasons.add_metric((*self._labels, "capacity"), now.waiting)
        reasons.add_metric((*self._labels, "deferred"), 0)
        yield reasons
        limits = scheduler.limits
        names = ("block_size", "num_gpu_blocks", "enable_prefix_caching")
        config = GaugeMetricFamily(
            "vllm:cache_config_info", "Information of the LLMEngine CacheConfig", labels=(*names, "engine")
        )
        config.add_metric((str(limits.block_tokens), str(limits.blocks), "True", "0"), 1)
        yield config

    def _own(self) -> Iterator[Metric]:
        """Metrics that no real engine exports."""
        engine = self._engine
        active = GaugeMetricFamily(
            "llmchaos_engine_fault_active", "1 while a fault of the engine is in force.", labels=("kind",)
        )
        for kind in sorted(KINDS):
            active.add_metric((kind,), float(kind in engine.faults.active))
        yield active
        yield self._histogram(
            "llmchaos_engine_step_late_seconds", "How late the last token of a step left.", engine.late_s
        )

    def _counters(self) -> Iterator[Metric]:
        stats = self._engine.scheduler.stats
        for name, text, value in (
            ("vllm:prompt_tokens", "Number of prefill tokens processed.", stats.prompt_tokens),
            ("vllm:generation_tokens", "Number of generation tokens processed.", stats.generated_tokens),
            (
                "vllm:prefix_cache_queries",
                "Prefix cache queries, in terms of number of queried tokens.",
                stats.prefix_queries,
            ),
            ("vllm:prefix_cache_hits", "Prefix cache hits, in terms of number of cached tokens.", stats.prefix_hits),
            ("vllm:num_preemptions", "Cumulative number of preemption from the engine.", stats.preemptions),
        ):
            family = CounterMetricFamily(name, text, labels=LABELS)
            family.add_metric(self._labels, value)
            yield family
        finished = CounterMetricFamily(
            "vllm:request_success", "Count of successfully processed requests.", labels=(*LABELS, "finished_reason")
        )
        for reason, count in stats.finished.items():
            finished.add_metric((*self._labels, reason), count)
        yield finished

    def _histograms(self) -> Iterator[Metric]:
        stats = self._engine.scheduler.stats
        for name, text, histogram in (
            ("time_to_first_token_seconds", "Time to first token.", stats.first_token_s),
            ("inter_token_latency_seconds", "Inter-token latency.", stats.token_gap_s),
            ("request_time_per_output_token_seconds", "Mean time per output token of a request.", stats.mean_token_s),
            ("e2e_request_latency_seconds", "End-to-end request latency.", stats.request_s),
            ("request_queue_time_seconds", "Time spent in the WAITING phase.", stats.queue_s),
            ("request_inference_time_seconds", "Time spent in the RUNNING phase.", stats.inference_s),
            ("request_prefill_time_seconds", "Time spent in the PREFILL phase.", stats.prefill_s),
            ("request_decode_time_seconds", "Time spent in the DECODE phase.", stats.decode_s),
            ("iteration_tokens_total", "Number of tokens per engine step.", stats.step_tokens),
            ("request_prompt_tokens", "Number of prefill tokens of a request.", stats.request_prompt_tokens),
            ("request_generation_tokens", "Number of tokens of an answer.", stats.request_generated_tokens),
        ):
            yield self._histogram(f"vllm:{name}", text, histogram)

    def _gauge(self, name: str, text: str, value: float) -> Metric:
        family = GaugeMetricFamily(name, text, labels=LABELS)
        family.add_metric(self._labels, value)
        return family

    def _histogram(self, name: str, text: str, histogram: Histogram) -> Metric:
        family = HistogramMetricFamily(name, text, labels=LABELS)
        buckets, seen = [], 0
        for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
            seen += count
            buckets.append(("+Inf" if bound == float("inf") else str(float(bound)), float(seen)))
        family.add_metric(self._labels, buckets, histogram.total)
        return family
