"""Memory and open intents from the audit log of an earlier process."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast, get_args

from lab_remediator.model import Action, Incident, ServiceState, State

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lab_remediator.rules import Policy


@dataclass(frozen=True, kw_only=True)
class Intent:
    """An action that was recorded without an end."""

    at: float
    incident: str
    rule: str
    service: str
    action: Action


def replayed(entries: Iterable[dict[str, Any]], policy: Policy) -> tuple[State, tuple[Intent, ...]]:
    """State of each service from the log, and the intents that a crash left open."""
    services: dict[str, ServiceState] = {}
    pending: dict[str, Intent] = {}
    for entry in entries:
        service, event, at = entry.get("service"), entry["event"], float(entry["at"])
        if service not in policy.services:
            continue
        memory = services.get(service, ServiceState())
        if event == "intent" and entry.get("action") in get_args(Action):
            pending[service] = Intent(
                at=at,
                incident=str(entry.get("incident")),
                rule=str(entry.get("rule")),
                service=service,
                action=cast("Action", entry["action"]),
            )
        elif event in ("done", "failed"):
            pending.pop(service, None)
        services[service] = _after(memory, entry, at, policy)
    return State(services=services), tuple(pending.values())


def _after(memory: ServiceState, entry: dict[str, Any], at: float, policy: Policy) -> ServiceState:
    event, incident = entry["event"], memory.incident
    healed = memory.healthy_since is not None and at - memory.healthy_since >= policy.guards.healthy_s
    if event == "detected":
        return replace(
            memory,
            quarantined=memory.quarantined and not healed,
            incident=Incident(id=str(entry.get("incident")), rule=str(entry.get("rule")), detected_at=at),
        )
    if event == "intent":
        return replace(
            memory,
            quarantined=False,  # no action is recorded in quarantine
            attempts=1 if healed else memory.attempts + 1,
            actions_at=(*memory.actions_at, at),
            healthy_since=None,
            incident=replace(incident, rule=str(entry.get("rule")), acted_at=at, acted=entry.get("action"))
            if incident
            else None,
        )
    if event in ("done", "failed"):
        return replace(memory, settled_at=at)
    if event == "escalated" and entry.get("action") == "quarantine":
        return replace(memory, quarantined=True)
    if event == "recovered":
        return replace(memory, incident=None, healthy_since=at)
    return memory
