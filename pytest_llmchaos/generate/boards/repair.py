"""Dashboard of outages and repairs."""

from __future__ import annotations

from pytest_llmchaos.generate.boards.panels import Board, Panel, Query, firing_alerts

REPAIR = Board(
    uid="llmchaos-repair",
    title="LLM lab: restarts and repairs",
    description="Which services were down, who restarted them, and how long the repair took.",
    rows=(
        (
            "Outages",
            (
                Panel(
                    title="Services",
                    description="State from the lab's own signals: the scrape of the api, and the api's probe of each "
                    "replica.",
                    kind="states",
                    unit="none",
                    queries=(Query(expr="lab:service_up", legend="{{service}}"),),
                    width=24,
                    height=6,
                    highest=1,
                ),
                firing_alerts(),
            ),
        ),
        (
            "Repairs",
            (
                Panel(
                    title="Container restarts",
                    description="Starts after the first one, by cause: a rule of the remediator, or another process.",
                    kind="stacked",
                    unit="short",
                    queries=(
                        Query(
                            expr="sum by (service, reason) (service_container_restarts_total) > 0",
                            legend="{{service}}: {{reason}}",
                        ),
                    ),
                    may_be_empty=True,
                ),
                Panel(
                    title="Remediation actions",
                    description="Actions done, failed, or refused by a guard (cool-down, grace period, one replica at "
                    "a time).",
                    kind="stacked",
                    unit="short",
                    queries=(
                        Query(
                            expr="sum by (action, service, result) (remediation_actions_total) > 0",
                            legend="{{action}} {{service}}: {{result}}",
                        ),
                    ),
                    may_be_empty=True,
                ),
                Panel(
                    title="Mean time to recover",
                    description="From the remediator's detection until the service was healthy again.",
                    kind="number",
                    unit="s",
                    queries=(
                        Query(
                            expr="sum(remediation_time_to_recover_seconds_sum) / "
                            "(sum(remediation_time_to_recover_seconds_count) > 0)",
                            legend="mean",
                        ),
                    ),
                    width=8,
                    height=5,
                    may_be_empty=True,
                ),
                Panel(
                    title="Waiting for a human",
                    description="Quarantined services: the remediator stopped after too many attempts. Repair them by "
                    "hand. Zero is good.",
                    kind="number",
                    unit="short",
                    queries=(Query(expr="sum(remediation_quarantined)", legend="quarantined"),),
                    width=8,
                    height=5,
                    bad_from=1,
                ),
                Panel(
                    title="Failed queries of the remediator",
                    description="Queries to Prometheus and Docker without a usable answer. The remediator does not act "
                    "meanwhile.",
                    kind="lines",
                    unit="reqps",
                    queries=(
                        Query(
                            expr='sum by (source) (rate(remediation_answers_total{result="failed"}[$__rate_interval]))',
                            legend="{{source}}",
                        ),
                    ),
                    width=8,
                    height=5,
                ),
            ),
        ),
    ),
)
