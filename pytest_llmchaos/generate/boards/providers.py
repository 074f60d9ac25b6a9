"""Dashboard of providers side by side."""

from __future__ import annotations

from pytest_llmchaos.generate.boards.panels import Board, Panel, Query
from pytest_llmchaos.generate.prices import COST_PER_1000
from pytest_llmchaos.model import CLIENT_REPLICA_GOOD, CLIENT_REPLICA_REQUESTS, CLIENT_REPLICA_TTFT

_BY = "gen_ai_provider_name"
_NAME = "{{gen_ai_provider_name}}"
_INFO = f"max by (replica, {_BY}) (llmlab_provider_info)"
# A server's own series have its service, which is the replica's name.
_SERVICE = f'max by (service, {_BY}) (label_join(llmlab_provider_info, "service", "", "replica"))'
_WINDOW = "[$__rate_interval]"
_FAILED = 'outcome!~"ok|client_cancelled|upstream_4xx"'
_MISSING = 'counted="missing"'
_COUNTED = 'outcome!~"client_cancelled|upstream_4xx"'


def _rate(metric: str, matchers: str = "") -> str:
    return f"sum by ({_BY}) (rate({metric}{matchers and '{' + matchers + '}'}{_WINDOW}))"


def _gateway(q: float, metric: str) -> str:
    return f"histogram_quantile({q}, sum by (le, {_BY}) (rate({metric}_bucket{_WINDOW})))"


def _clients(q: float, metric: str) -> str:
    joined = f"rate({metric}_bucket{_WINDOW}) * on (replica) group_left ({_BY}) {_INFO}"
    return f"histogram_quantile({q}, sum by (le, {_BY}) ({joined}))"


def _server(q: float, metric: str) -> str:
    """A canonical histogram. Those of servers have the label `server`."""
    joined = f'rate({metric}_bucket{{server!=""}}{_WINDOW}) * on (service) group_left ({_BY}) {_SERVICE}'
    return f"histogram_quantile({q}, sum by (le, {_BY}, server) ({joined}))"


def _both(metric: str) -> tuple[Query, ...]:
    return tuple(Query(expr=_gateway(q, metric), legend=f"{_NAME} p{round(100 * q)}") for q in (0.5, 0.95))


TTFT = "llmlab_provider_time_to_first_token_seconds"
PER_TOKEN = "llmlab_provider_time_per_output_token_seconds"
SERVER_TTFT = "gen_ai_server_time_to_first_token_seconds"
SERVER_PER_TOKEN = "gen_ai_server_time_per_output_token_seconds"

PROVIDERS = Board(
    uid="llmchaos-providers",
    title="LLM lab: providers side by side",
    description="The providers behind one gateway by one definition, next to what callers and servers measured.",
    rows=(
        (
            "By the gateway, one definition for all",
            (
                Panel(
                    title="Time to first token by provider",
                    description="From a place in the provider's replica to its first token. A stream that failed "
                    "before is infinite, so the line is at the highest edge while a provider fails.",
                    kind="lines",
                    unit="s",
                    log=True,
                    queries=_both(TTFT),
                ),
                Panel(
                    title="Time per output token by provider",
                    description="Mean of each complete stream after its first token. Tokens are those of usage, "
                    "without it the events: a server with several tokens an event looks slower than it is.",
                    kind="lines",
                    unit="s",
                    log=True,
                    queries=_both(PER_TOKEN),
                ),
                Panel(
                    title="Output tokens per second by provider",
                    description="Tokens of all answers, also of cut ones. It follows the load: compare it at the same "
                    "load only.",
                    kind="lines",
                    unit="short",
                    queries=(
                        Query(
                            expr=_rate("llmlab_provider_tokens_total", 'gen_ai_token_type="output"'),
                            legend=_NAME,
                        ),
                    ),
                ),
                Panel(
                    title="Share of failed attempts by provider",
                    description="Attempts that failed, also those that a retry hid from callers. Requests that callers "
                    "gave up or that were wrong do not count.",
                    kind="lines",
                    unit="percentunit",
                    queries=(
                        Query(
                            expr=f"{_rate('llmlab_provider_requests_total', _FAILED)} "
                            f"/ ({_rate('llmlab_provider_requests_total', _COUNTED)} > 0)",
                            legend=_NAME,
                        ),
                    ),
                    highest=1,
                ),
                Panel(
                    title="Cost of 1,000 good answers by provider",
                    description="In the currency of the price file. Clients: answers inside every latency bound of "
                    "the load. Gateway: complete answers. Empty without `llmchaos generate --prices`, and for a provider "
                    "with a price of prompts whose answers have no usage.",
                    kind="lines",
                    unit="short",
                    queries=(Query(expr=COST_PER_1000, legend=f"{_NAME} {{{{currency}}}}, by {{{{counted}}}}"),),
                    may_be_empty=True,
                ),
                Panel(
                    title="Share of prompts without a count by provider",
                    description="Answers without usage, for example because they were cut before it. The cost takes "
                    "the mean of the other prompts for these. At 1 there is no mean, and no cost.",
                    kind="lines",
                    unit="percentunit",
                    queries=(
                        Query(
                            expr=f"{_rate('llmlab_provider_prompts_total', _MISSING)} "
                            f"/ ({_rate('llmlab_provider_prompts_total')} > 0)",
                            legend=_NAME,
                        ),
                    ),
                    highest=1,
                ),
            ),
        ),
        (
            "Callers, gateway and servers",
            (
                Panel(
                    title="First token, p95: callers, gateway and each server's own",
                    description="Callers count from the due time, the gateway from a place in the replica, a server "
                    "from the request's arrival. Callers far above the gateway: requests wait before it or in it. "
                    "The gateway far above a server: the network, or the server does not count its queue.",
                    kind="lines",
                    unit="s",
                    log=True,
                    queries=(
                        Query(expr=_clients(0.95, CLIENT_REPLICA_TTFT), legend=f"{_NAME} callers"),
                        Query(expr=_gateway(0.95, TTFT), legend=f"{_NAME} gateway"),
                        Query(expr=_server(0.95, SERVER_TTFT), legend=f"{_NAME} own ({{{{server}}}})"),
                    ),
                    width=24,
                    height=10,
                ),
                Panel(
                    title="Time per output token, p95: gateway and each server's own",
                    description="Both are means of an answer. The edges of the histograms differ, and so do quantiles "
                    "inside one bucket.",
                    kind="lines",
                    unit="s",
                    log=True,
                    queries=(
                        Query(expr=_gateway(0.95, PER_TOKEN), legend=f"{_NAME} gateway"),
                        Query(expr=_server(0.95, SERVER_PER_TOKEN), legend=f"{_NAME} own ({{{{server}}}})"),
                    ),
                ),
                Panel(
                    title="Answers per second: callers, gateway and each server's own",
                    description="Whole answers. Callers below the gateway: answers are cut behind it. Good ones are "
                    "inside every latency bound of the load.",
                    kind="lines",
                    unit="reqps",
                    queries=(
                        Query(
                            expr=f'sum by ({_BY}) (rate({CLIENT_REPLICA_REQUESTS}_total{{outcome="ok"}}{_WINDOW}) '
                            f"* on (replica) group_left ({_BY}) {_INFO})",
                            legend=f"{_NAME} callers",
                        ),
                        Query(
                            expr=f"sum by ({_BY}) (rate({CLIENT_REPLICA_GOOD}_total{_WINDOW}) "
                            f"* on (replica) group_left ({_BY}) {_INFO})",
                            legend=f"{_NAME} callers, good",
                        ),
                        Query(expr=_rate("llmlab_provider_requests_total", 'outcome="ok"'), legend=f"{_NAME} gateway"),
                        Query(
                            expr=f'sum by ({_BY}, server) (rate(llmchaos:requests_done_total{{server!=""}}{_WINDOW}) '
                            f"* on (service) group_left ({_BY}) {_SERVICE})",
                            legend=f"{_NAME} own ({{{{server}}}})",
                        ),
                    ),
                ),
            ),
        ),
    ),
)
