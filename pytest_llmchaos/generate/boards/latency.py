"""Dashboard of latencies."""

from __future__ import annotations

from pytest_llmchaos.generate.boards.panels import Board, Panel, Query, quantiles
from pytest_llmchaos.model import CLIENT_DURATION, CLIENT_TTFT

SERVER = "gen_ai_server"
# Recorded metrics of the engines have the same names.
OF_THE_API = 'job="api"'


def _heat(title: str, description: str, metric: str) -> Panel:
    return Panel(
        title=title,
        description=f"{description} Each column is one time step. Darker cells hold more requests.",
        kind="heatmap",
        unit="s",
        queries=(Query(expr=f"sum by (le) (increase({metric}_bucket[$__rate_interval]))", legend="{{le}}"),),
    )


LATENCY = Board(
    uid="llmchaos-latency",
    title="LLM lab: latency",
    description="How long clients wait for the first token, for each next one, and for the whole answer.",
    rows=(
        (
            "Whole answers",
            (
                _heat(
                    "Whole answers, as clients saw them",
                    "Counted from when a request was due. Failed requests are in the topmost row.",
                    CLIENT_DURATION,
                ),
                Panel(
                    title="Whole answers, quantiles",
                    description="Failed requests count as slower than any answer. A line at the highest edge of the "
                    "histogram: requests fail.",
                    kind="lines",
                    unit="s",
                    log=True,
                    queries=quantiles(CLIENT_DURATION),
                ),
            ),
        ),
        (
            "First token",
            (
                _heat(
                    "Time to first token, as clients saw it",
                    "Counted from when a request was due. Requests without a token are in the topmost row.",
                    CLIENT_TTFT,
                ),
                Panel(
                    title="Time to first token, quantiles",
                    description="The wait before an answer begins. It grows with the queue, before requests fail. "
                    "Above the red line it breaks its bound.",
                    kind="lines",
                    unit="s",
                    log=True,
                    queries=quantiles(CLIENT_TTFT),
                    bad_from=2,
                ),
            ),
        ),
        (
            "Inside the api",
            (
                Panel(
                    title="Whole answers, as the api saw them",
                    description="Requests that reached the api and ended there. Much lower than the clients' figure: "
                    "the wait is in front of the api.",
                    kind="lines",
                    unit="s",
                    log=True,
                    queries=quantiles(
                        f"{SERVER}_request_duration_seconds", f'{{{OF_THE_API},error_type=~"(|.*_timeout)"}}'
                    ),
                    width=8,
                ),
                Panel(
                    title="Largest silence inside a stream",
                    description="Longest gap between two data events. Keep-alive comments do not count. "
                    "A stalled stream shows here only.",
                    kind="lines",
                    unit="s",
                    log=True,
                    queries=quantiles("llmlab_stream_max_gap_seconds"),
                    width=8,
                ),
                Panel(
                    title="Time per output token",
                    description="Of complete streams. It grows with the batch of a replica, or if the replica lost "
                    "its GPU.",
                    kind="lines",
                    unit="s",
                    log=True,
                    queries=quantiles(f"{SERVER}_time_per_output_token_seconds", f"{{{OF_THE_API}}}"),
                    width=8,
                ),
            ),
        ),
    ),
)
