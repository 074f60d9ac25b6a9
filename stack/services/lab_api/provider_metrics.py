"""Metrics of providers, and those that Ollama lacks."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from lab_api.outcomes import Outcome
from lab_api.replica import Replica
from lab_api.tally import Seconds, Tally

# OpenTelemetry's attributes gen_ai.provider.name and gen_ai.token.type.
PROVIDER, TOKEN_TYPE = "gen_ai_provider_name", "gen_ai_token_type"
_LABELS = (PROVIDER, "replica")


class ProviderMetrics(Collector):
    """Each provider's attempts, counted in one way for all of them."""

    def __init__(self, replicas: Sequence[Replica], providers: Mapping[str, str]) -> None:
        """`providers` has a replica's provider, if that is not the replica's name."""
        self._replicas = [((providers.get(one.name, one.name), one.name), one.tally) for one in replicas]

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "llmlab_provider_requests",
            "Attempts at a provider by how they ended, also those that a retry or a hedge hid from the client.",
            labels=(*_LABELS, "outcome"),
        )
        tokens = CounterMetricFamily(
            "llmlab_provider_tokens",
            "Tokens of prompts (input) and answers (output), also of cut ones. They are counted by the server's usage, "
            "or without one by events with text. No event counts a prompt.",
            labels=(*_LABELS, TOKEN_TYPE, "counted"),
        )
        prompts = CounterMetricFamily(
            "llmlab_provider_prompts",
            "Prompts that were answered, wholly or in part: those whose tokens usage has counted, and those whose "
            "number of tokens is missing. A stream that is cut before its usage is among these.",
            labels=(*_LABELS, "counted"),
        )
        info = GaugeMetricFamily("llmlab_provider_info", "1 for the provider of each replica.", labels=_LABELS)
        for labels, tally in self._replicas:
            info.add_metric(labels, 1)
            for outcome, count in tally.ended.items():
                requests.add_metric((*labels, outcome.value), count)
            for (kind, counted), count in tally.tokens.items():
                tokens.add_metric((*labels, kind, counted), count)
            for counted, count in tally.prompts.items():
                prompts.add_metric((*labels, counted), count)
        yield from (info, requests, tokens, prompts)
        yield _histogram(
            "llmlab_provider_time_to_first_token_seconds",
            "From a place in the replica to the first token. A stream that failed before is infinite.",
            _LABELS,
            [(labels, tally.first_token, tally.without_token) for labels, tally in self._replicas],
        )
        yield _histogram(
            "llmlab_provider_time_per_output_token_seconds",
            "Mean of a complete stream after its first token.",
            _LABELS,
            [(labels, tally.per_token, 0) for labels, tally in self._replicas],
        )
        yield _histogram(
            "llmlab_provider_request_duration_seconds",
            "From a place in the replica to the last event of a complete answer.",
            _LABELS,
            [(labels, tally.duration, 0) for labels, tally in self._replicas],
        )


class OllamaMetrics(Collector):
    """Series of replicas that are Ollama, which has no metrics.

    Its OpenAI API lacks the durations that the last chunk of its own API has, so the
    times are those of the gateway's clock.
    """

    def __init__(self, replicas: Sequence[Replica], model: str) -> None:
        self._replicas = [((one.name, model), one) for one in replicas]

    def collect(self) -> Iterator[Metric]:
        histograms: tuple[tuple[str, str, Callable[[Tally], Seconds]], ...] = (
            ("request_duration", "From a request to the last event of its answer.", lambda tally: tally.duration),
            ("time_to_first_token", "From a request to its first token.", lambda tally: tally.first_token),
            ("time_per_output_token", "Mean of a stream after its first token.", lambda tally: tally.per_token),
        )
        for name, text, seconds in histograms:
            values = [(labels, seconds(one.tally), 0) for labels, one in self._replicas]
            yield _histogram(f"ollama_derived_{name}_seconds", f"{text} By the gateway's clock.", _OLLAMA, values)
        counters: tuple[tuple[str, str, Callable[[Tally], int]], ...] = (
            ("prompt_tokens", "Tokens of prompts, by usage.", lambda tally: tally.tokens["input", "usage"]),
            ("output_tokens", "Tokens of answers, by usage, else by events.", _output),
            ("requests_done", "Complete answers.", lambda tally: tally.ended[Outcome.OK]),
        )
        for name, text, count in counters:
            counter = CounterMetricFamily(f"ollama_derived_{name}", text, labels=_OLLAMA)
            for labels, one in self._replicas:
                counter.add_metric(labels, count(one.tally))
            yield counter
        running = GaugeMetricFamily(
            "ollama_derived_requests_running", "Requests that wait or run in Ollama.", labels=_OLLAMA
        )
        for labels, one in self._replicas:
            running.add_metric(labels, one.in_flight)
        yield running


_OLLAMA = ("replica", "model")


def _output(tally: Tally) -> int:
    return tally.tokens["output", "usage"] + tally.tokens["output", "events"]


def _histogram(
    name: str, text: str, labels: Sequence[str], values: Sequence[tuple[Sequence[str], Seconds, int]]
) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels)
    for one, seconds, infinite in values:
        family.add_metric(one, seconds.buckets(infinite), seconds.sum_s)
    return family
