"""The dashboard of latencies, as a value."""

from __future__ import annotations

from pytest_llmchaos.generate.boards.panels import Board, Panel, Query, quantiles
from pytest_llmchaos.model import CLIENT_DURATION, CLIENT_TTFT

SERVER = "gen_ai_server"


def _heat(title: str, description: str, metric: str) -> Panel:
    return Panel(
        title=title,
        description=f"{description} Each column is one step of time, the darker the more requests.",
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
                    "From the moment a request was due. Requests that failed stand in the topmost row: they never came.",
                    CLIENT_DURATION,
                ),
                Panel(
                    title="Whole answers, quantiles",
                    description="Failed requests count as slower than any answer, so an outage shows as the highest "
                    "edge of the histogram.",
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
                    "From the moment a request was due. Requests that never got one stand in the topmost row.",
                    CLIENT_TTFT,
                ),
                Panel(
                    title="Time to first token, quantiles",
                    description="The wait that people feel. It grows with the queue, long before anything fails.",
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
                    description="Only what the api lived to see. Much lower than the clients' figure: the wait is before it.",
                    kind="lines",
                    unit="s",
                    log=True,
                    queries=quantiles(f"{SERVER}_request_duration_seconds", '{error_type=~"(|.*_timeout)"}'),
                    width=8,
                ),
                Panel(
                    title="Largest silence inside a stream",
                    description="Between data events; keep-alive comments do not count. A stall shows here and nowhere else.",
                    kind="lines",
                    unit="s",
                    log=True,
                    queries=quantiles("llmlab_stream_max_gap_seconds"),
                    width=8,
                ),
                Panel(
                    title="Time per output token",
                    description="Of whole streams. It grows when a replica decodes for many at once, or on a lesser device.",
                    kind="lines",
                    unit="s",
                    log=True,
                    queries=quantiles(f"{SERVER}_time_per_output_token_seconds"),
                    width=8,
                ),
            ),
        ),
    ),
)
