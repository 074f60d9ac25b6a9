"""Whether silence is evidence: alerts that could not have fired, and a remediator that could not have acted. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmchaos.errors import Inconclusive, NoData

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_llmchaos.model import ServiceState
    from pytest_llmchaos.prometheus.queries import Rule


def of_alerts(rules: Sequence[Rule], since_unix_s: float) -> Inconclusive | None:
    """Why it means nothing that no alert fired since then; None where every rule was evaluated."""
    if not any(rule.is_alert for rule in rules):
        return NoData("Prometheus has no alert rules, so none could have fired: add its rule files, or drop the claim")
    for rule in rules:
        if rule.error:
            return Inconclusive(
                f"Prometheus cannot evaluate its rule {rule.name} ({rule.error}), so its silence means nothing: mend the rule"
            )
        if rule.evaluated_unix_s < since_unix_s:
            return Inconclusive(
                f"Prometheus has not evaluated its rule {rule.name} since the fault began, so its silence means nothing: "
                "set a shorter evaluation_interval"
            )
    return None


def of_remediator(name: str | None, state: ServiceState | None, *, no_log_at: str | None = None) -> Inconclusive | None:
    """Why it means nothing that the remediator did not act; None where it could have.

    Args:
      state: its state after the trial; None in a trial that has no use for it: it was stopped, or was the victim.
      no_log_at: where its audit log should be and is not; None where it is, or where the remediator was stopped.
    """
    if name is None:
        return NoData(
            "no service is known to be the remediator, so what acted is not recorded: set llmchaos_remediator, or drop the claim"
        )
    if no_log_at is not None:
        return Inconclusive(
            f"{name} has no audit log at {no_log_at}, so its silence means nothing: set llmchaos_audit_file to the path in its "
            "container, and let it create the file when it starts"
        )
    if state is None:
        return None
    trouble = (
        "is paused"
        if state.paused
        else "does not run"
        if not state.running
        else "fails its own health check"
        if state.healthy is False
        else ""
    )
    return Inconclusive(f"{name} {trouble} after the trial, so its silence means nothing") if trouble else None
