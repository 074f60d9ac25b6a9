"""The dashboard of load in flight, as a value."""

from __future__ import annotations

from pytest_llmchaos.generate.boards.panels import REPLICA, Board, Panel, Query, quantiles
from pytest_llmchaos.model import CLIENT_INFLIGHT

SATURATION = Board(
    uid="llmchaos-saturation",
    title="LLM lab: load in flight",
    description="How full the lab is: what waits, what runs, and what has run for too long.",
    variables=(REPLICA,),
    rows=(
        (
            "In flight",
            (
                Panel(
                    title="Requests in flight per replica",
                    description="What the api has sent and not got back. One line up and one down: a replica was taken out.",
                    kind="lines",
                    unit="short",
                    queries=(Query(expr='llmlab_inflight_requests{replica=~"$replica"}', legend="{{replica}}"),),
                ),
                Panel(
                    title="Requests in flight at the clients",
                    description="Sent and not answered. It keeps growing while nothing comes back.",
                    kind="lines",
                    unit="short",
                    queries=(Query(expr=f"sum({CLIENT_INFLIGHT})", legend="clients"),),
                ),
                Panel(
                    title="Oldest request in flight",
                    description="A hang shows here first: no histogram holds a request that has not ended.",
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
                    title="What the api thinks of its replicas",
                    description="Shallow is its probe of the health path, passive is what its own requests met. "
                    "Good health and a bad passive state is a replica that lies.",
                    kind="states",
                    unit="none",
                    queries=(
                        Query(expr='llmlab_upstream_health{replica=~"$replica"}', legend="{{replica}} {{probe}}"),
                    ),
                    highest=1,
                ),
            ),
        ),
        (
            "Queue",
            (
                Panel(
                    title="Requests that wait",
                    description="At the api, for a place in a replica. It ends in 429 when full.",
                    kind="lines",
                    unit="short",
                    queries=(Query(expr="llmlab_queue_depth", legend="waiting"),),
                    width=8,
                    bad_from=8,
                ),
                Panel(
                    title="Wait for a place",
                    description="Of the requests that got one.",
                    kind="lines",
                    unit="s",
                    queries=quantiles("llmlab_queue_wait_seconds", '{outcome="admitted"}'),
                    width=8,
                ),
                Panel(
                    title="Circuit: 0 closed, 1 open, 2 half-open",
                    description="Closed takes requests, open takes none, half-open takes one to see.",
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
