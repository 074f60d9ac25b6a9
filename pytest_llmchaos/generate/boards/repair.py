"""The dashboard of what was down and who repaired it, as a value."""

from __future__ import annotations

from pytest_llmchaos.generate.boards.panels import Board, Panel, Query, firing_alerts

REPAIR = Board(
    uid="llmchaos-repair",
    title="LLM lab: restarts and repairs",
    description="What was down, who brought it back, and how long that took.",
    needs="the remediator",
    rows=(
        (
            "What was down",
            (
                Panel(
                    title="Services",
                    description="Up as far as the lab itself can see: the api by its scrape, a replica by the api's probe.",
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
            "Who brought it back",
            (
                Panel(
                    title="Container restarts",
                    description="Starts after the first one, by who made them: a rule of the remediator, or somebody else.",
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
                    description="Done, failed, or refused by a guard (cool-down, grace, one replica at a time).",
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
                    description="From the remediator's detection until the service was seen good again.",
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
                    description="Services that the remediator gave up on after too many attempts. Zero is good.",
                    kind="number",
                    unit="short",
                    queries=(Query(expr="sum(remediation_quarantined)", legend="quarantined"),),
                    width=8,
                    height=5,
                    bad_from=1,
                ),
                Panel(
                    title="The remediator's questions without an answer",
                    description="Questions to Prometheus and Docker that got no usable answer. It does not act while blind.",
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
