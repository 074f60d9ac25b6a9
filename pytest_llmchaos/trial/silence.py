"""Reasons why alerts or the remediator could not have reacted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmchaos.errors import Inconclusive, NoData

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_llmchaos.model import ServiceState
    from pytest_llmchaos.prometheus.queries import Rule


def of_alerts(rules: Sequence[Rule], since_unix_s: float) -> Inconclusive | None:
    """Return why alerts could not have fired since then, or None if they could.

    They could if Prometheus evaluated every rule.
    """
    if not any(rule.is_alert for rule in rules):
        return NoData("Prometheus has no alert rules, so none could have fired: add its rule files, or drop the claim")
    for rule in rules:
        if rule.error:
            return Inconclusive(
                f"Prometheus cannot evaluate its rule {rule.name} ({rule.error}), so its silence proves nothing: fix the rule"
            )
        if rule.evaluated_unix_s < since_unix_s:
            return Inconclusive(
                f"Prometheus has not evaluated its rule {rule.name} since the fault began, so its silence proves nothing: "
                "set a shorter evaluation_interval"
            )
    return None


def of_remediator(name: str | None, state: ServiceState | None, *, no_log_at: str | None = None) -> Inconclusive | None:
    """Return why the remediator could not have acted, or None if it could.

    Args:
        name: The remediator's service, or None if the configuration names none.
        state: Its state after the trial. None if it was stopped or was the victim.
        no_log_at: The path at which its audit log is missing. None if the log exists or
            the remediator was stopped.
    """
    if name is None:
        return NoData(
            "the configuration names no remediator, so its acts are not recorded: set llmchaos_remediator, or drop the claim"
        )
    if no_log_at is not None:
        return Inconclusive(
            f"{name} has no audit log at {no_log_at}, so its silence proves nothing: set llmchaos_audit_file to the path in its "
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
    return Inconclusive(f"{name} {trouble} after the trial, so its silence proves nothing") if trouble else None
