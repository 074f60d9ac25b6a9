"""Dashboard of the autoscaler: what it wants, what there is, and what it costs."""

from __future__ import annotations

from pytest_llmchaos.generate.boards.panels import Board, Query, optional_panel

_WINDOW = "[$__rate_interval]"
_STATES = 'lab_autoscaler_replicas{state="%s"}'


def _attained(histogram: str, edge: str) -> str:
    within = f'sum(rate({histogram}_bucket{{job="api",error_type="",le=~"{edge}"}}{_WINDOW}))'
    every = f'sum(rate({histogram}_count{{job="api",error_type!="client_cancelled"}}{_WINDOW}))'
    return f'{within} / ({every} > 0) and on () count(up{{job="autoscaler"}})'


AUTOSCALING = Board(
    uid="llmchaos-autoscaling",
    title="LLM lab: autoscaling",
    description="The autoscaler's decisions, the replicas, their cost, and what clients got for it. Empty in a lab without "
    "an autoscaler.",
    rows=(
        (
            "Replicas",
            (
                optional_panel(
                    "Wanted and ready replicas",
                    "Ready below wanted: replicas start, or a ready one is dead. The gap is what a cold start costs.",
                    "lines",
                    "short",
                    Query(expr="max(lab_autoscaler_desired_replicas)", legend="wanted"),
                    Query(expr=f"max({_STATES % 'ready'})", legend="ready"),
                ),
                optional_panel(
                    "Replicas by phase",
                    "cold: started, not yet good by the gateway's probe. draining: no new request, the rest is answered.",
                    "stacked",
                    "short",
                    Query(expr="max by (state) (lab_autoscaler_replicas)", legend="{{state}}"),
                ),
                optional_panel(
                    "Cost in replica-seconds a second",
                    "Replicas that run, cold and draining ones included.",
                    "lines",
                    "short",
                    Query(expr=f"sum(rate(lab_autoscaler_replica_seconds_total{_WINDOW}))", legend="replicas"),
                ),
                optional_panel(
                    "Changes and flaps",
                    "Decisions that changed the wanted count, since the autoscaler's start. A flap is a change of "
                    "direction soon after the last change.",
                    "lines",
                    "short",
                    Query(expr="sum by (direction) (lab_autoscaler_scale_events_total)", legend="{{direction}}"),
                    Query(expr="sum(lab_autoscaler_flaps_total)", legend="flaps"),
                ),
            ),
        ),
        (
            "Load",
            (
                optional_panel(
                    "Waiting requests",
                    "At the gateway and in the engines: what the queue law reads.",
                    "lines",
                    "short",
                    Query(expr='max(llmlab_queue_depth) and on () count(up{job="autoscaler"})', legend="gateway"),
                    Query(
                        expr='sum(llmchaos:requests_waiting) and on () count(up{job="autoscaler"})', legend="engines"
                    ),
                ),
                optional_panel(
                    "Attainment",
                    "Share of streams with a first token within 2 s, and of whole streams with at most 0.1 s for each "
                    "further token, by the gateway. Absent without requests.",
                    "lines",
                    "percentunit",
                    Query(expr=_attained("gen_ai_server_time_to_first_token_seconds", "2|2[.]0"), legend="first token"),
                    Query(expr=_attained("gen_ai_server_time_per_output_token_seconds", "0[.]1"), legend="token gap"),
                ),
            ),
        ),
        (
            "Trust",
            (
                optional_panel(
                    "Decisions by result",
                    "blind: a value is unknown and the count is held. paused: the hold file exists.",
                    "stacked",
                    "short",
                    Query(expr=f"sum by (result) (rate(lab_autoscaler_syncs_total{_WINDOW}))", legend="{{result}}"),
                    width=8,
                ),
                optional_panel(
                    "Blind",
                    "1 while the policy holds because a value that it needs is unknown.",
                    "lines",
                    "short",
                    Query(expr="max(lab_autoscaler_is_blind)", legend="blind"),
                    width=8,
                ),
                optional_panel(
                    "Cut requests",
                    "Requests in flight when a drain's time had ended, since the autoscaler's start.",
                    "lines",
                    "short",
                    Query(expr="sum(lab_autoscaler_cut_requests_total)", legend="cut"),
                    width=8,
                ),
            ),
        ),
    ),
)
