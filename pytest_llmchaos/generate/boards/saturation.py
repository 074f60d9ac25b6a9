"""Dashboard of load in flight."""

from __future__ import annotations

from pytest_llmchaos.generate.boards.panels import REPLICA, Board, Panel, Query, quantiles
from pytest_llmchaos.model import CLIENT_INFLIGHT

SATURATION = Board(
    uid="llmchaos-saturation",
    title="LLM lab: load in flight",
    description="Requests that wait, requests that run, and requests that have run for too long.",
    variables=(REPLICA,),
    rows=(
        (
            "In flight",
            (
                Panel(
                    title="Requests in flight per replica",
                    description="Requests that the api sent and that have not ended. One line rises while another "
                    "falls: the api took a replica out of rotation.",
                    kind="lines",
                    unit="short",
                    queries=(Query(expr='llmlab_inflight_requests{replica=~"$replica"}', legend="{{replica}}"),),
                ),
                Panel(
                    title="Requests in flight at the clients",
                    description="Requests sent and not yet answered. Steady growth: no answers return.",
                    kind="lines",
                    unit="short",
                    queries=(Query(expr=f"sum({CLIENT_INFLIGHT})", legend="clients"),),
                ),
                Panel(
                    title="Oldest request in flight",
                    description="A hang shows here first, because a histogram counts a request only when it ends.",
                    kind="lines",
                    unit="s",
                    queries=(
                        Query(
                            expr='max by (replica, phase) (llmlab_oldest_inflight_seconds{replica=~"$replica"})',
                            legend="{{replica}} {{phase}}",
                        ),
                        Query(
                            expr='max by (replica) (llmlab_oldest_silence_seconds{replica=~"$replica"})',
                            legend="{{replica}} silence",
                        ),
                    ),
                ),
                Panel(
                    title="Replica health as the api sees it",
                    description="Shallow: the probe of the health path. Passive: the outcomes of real requests. "
                    "Shallow good and passive bad: the replica reports healthy but fails requests.",
                    kind="states",
                    unit="none",
                    queries=(
                        Query(expr='llmlab_upstream_health{replica=~"$replica"}', legend="{{replica}} {{probe}}"),
                    ),
                    highest=1,
                ),
                Panel(
                    title="Duration of health checks",
                    description="The last health check by the api that succeeded. Slow: the network or the machine of "
                    "the replica, while it still gets requests.",
                    kind="lines",
                    unit="s",
                    queries=(Query(expr='llmlab_probe_duration_seconds{replica=~"$replica"}', legend="{{replica}}"),),
                    bad_from=0.2,
                ),
            ),
        ),
        (
            "Queue",
            (
                Panel(
                    title="Queued requests",
                    description="Requests in the api's queue for a free replica. A full queue returns 429.",
                    kind="lines",
                    unit="short",
                    queries=(Query(expr="llmlab_queue_depth", legend="waiting"),),
                    width=8,
                    bad_from=8,
                ),
                Panel(
                    title="Time in the queue",
                    description="Of the requests that reached a replica.",
                    kind="lines",
                    unit="s",
                    queries=quantiles("llmlab_queue_wait_seconds", '{outcome="admitted"}'),
                    width=8,
                ),
                Panel(
                    title="Circuit: 0 closed, 1 open, 2 half-open",
                    description="Closed takes requests, open rejects them, half-open lets one through as a test.",
                    kind="lines",
                    unit="none",
                    queries=(Query(expr='llmlab_circuit_state{replica=~"$replica"}', legend="{{replica}}"),),
                    width=8,
                    highest=2,
                ),
            ),
        ),
    ),
)
