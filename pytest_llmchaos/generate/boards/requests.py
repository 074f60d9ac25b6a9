"""Dashboard of requests and errors."""

from __future__ import annotations

from pytest_llmchaos.generate.boards.panels import REPLICA, Board, Panel, Query
from pytest_llmchaos.model import CLIENT_GOOD, CLIENT_OFFERED, CLIENT_REQUESTS

REQUESTS = Board(
    uid="llmchaos-requests",
    title="LLM lab: requests and errors",
    description="Requests that clients sent, their outcomes, and the api's own counts.",
    rows=(
        (
            "What clients saw",
            (
                Panel(
                    title="Offered and answered",
                    description="Offered counts every request that was due, sent or not. A gap between the lines: "
                    "requests without an answer, or with a slow one.",
                    kind="lines",
                    unit="reqps",
                    queries=(
                        Query(expr=f"sum(rate({CLIENT_OFFERED}_total[$__rate_interval]))", legend="offered"),
                        Query(
                            expr=f'sum(rate({CLIENT_REQUESTS}_total{{outcome="ok"}}[$__rate_interval]))', legend="ok"
                        ),
                        Query(expr=f"sum(rate({CLIENT_GOOD}_total[$__rate_interval]))", legend="within every bound"),
                    ),
                ),
                Panel(
                    title="Failures by kind",
                    description="Failures that clients saw. Refused or timeout: no server answers. "
                    "Truncated or stalled: an answer broke off.",
                    kind="stacked",
                    unit="reqps",
                    queries=(
                        Query(
                            expr=f'sum by (outcome) (rate({CLIENT_REQUESTS}_total{{outcome!~"ok|cancelled"}}[$__rate_interval]))',
                            legend="{{outcome}}",
                        ),
                    ),
                ),
                Panel(
                    title="Availability that clients saw",
                    description="Share of good answers over the last 5 s. Below the line, the error budget burns too "
                    "fast.",
                    kind="lines",
                    unit="percentunit",
                    queries=(Query(expr="lab:clients_availability:rate5s", legend="availability"),),
                    bad_below=0.995,
                    highest=1,
                    width=24,
                    height=6,
                ),
            ),
        ),
        (
            "The api's own counts",
            (
                Panel(
                    title="Requests by outcome",
                    description="The api's own count. A dead api counts nothing, so compare it with the clients above.",
                    kind="stacked",
                    unit="reqps",
                    queries=(
                        Query(
                            expr="sum by (outcome) (rate(llmlab_requests_total[$__rate_interval])) > 0",
                            legend="{{outcome}}",
                        ),
                    ),
                ),
                Panel(
                    title="Tries per replica",
                    description="First tries and retries. More tries than requests: retries amplify the load. One line "
                    "at zero: that replica gets no requests.",
                    kind="stacked",
                    unit="reqps",
                    queries=(
                        Query(
                            expr='sum by (replica, reason) (rate(llmlab_upstream_attempts_total{replica=~"$replica"}'
                            "[$__rate_interval]))",
                            legend="{{replica}} {{reason}}",
                        ),
                    ),
                ),
                Panel(
                    title="Failed tries per replica",
                    description="Counted at the replica that failed. A retry on another may have hidden it from the "
                    "client.",
                    kind="stacked",
                    unit="reqps",
                    queries=(
                        Query(
                            expr='sum by (replica, reason) (rate(llmlab_upstream_failures_total{replica=~"$replica"}'
                            "[$__rate_interval])) > 0",
                            legend="{{replica}} {{reason}}",
                        ),
                    ),
                    may_be_empty=True,
                ),
                Panel(
                    title="Wasted tokens per second",
                    description="Tokens computed for clients that left or for answers that broke off.",
                    kind="lines",
                    unit="short",
                    queries=(
                        Query(
                            expr="sum by (reason) (rate(llmlab_wasted_tokens_total[$__rate_interval]))",
                            legend="{{reason}}",
                        ),
                    ),
                ),
                Panel(
                    title="Retries left in the budget",
                    description="At zero the api stops retrying, so that retries cannot overload healthy replicas.",
                    kind="lines",
                    unit="percentunit",
                    queries=(Query(expr="llmlab_retry_budget_ratio", legend="left"),),
                    highest=1,
                ),
            ),
        ),
    ),
    variables=(REPLICA,),
)
