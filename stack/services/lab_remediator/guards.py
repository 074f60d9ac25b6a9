"""Guards that can stop a repair, one function each, in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lab_remediator.model import STOPPED
from lab_remediator.windows import View, triggered

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab_remediator.rules import Rule


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Input of every guard."""

    view: View
    rule: Rule
    service: str


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Reason not to act.

    `escalate` calls a human: "quarantine" also stops repairs of the service, "page"
    only pages.
    """

    result: str
    reason: str
    escalate: Literal["quarantine", "page"] | None = None


def refusal(moment: Moment) -> Refusal | None:
    """The first guard that refuses, or None."""
    return next((no for guard in _GUARDS if (no := guard(moment)) is not None), None)


def _hold(moment: Moment) -> Refusal | None:
    if not {"*", moment.service} & moment.view.observed.held:
        return None
    return Refusal(
        result="held", reason=f"operator hold on {moment.service}: remove it from the hold file to let repairs go on"
    )


def _unknown(moment: Moment) -> Refusal | None:
    if moment.view.container(moment.service, moment.rule.guards) is not None:
        return None
    return Refusal(
        result="suppressed_unknown", reason=f"the runtime has no container of {moment.service}: nothing to repair"
    )


def _quarantine(moment: Moment) -> Refusal | None:
    if not moment.view.state.of(moment.service).quarantined:
        return None
    return Refusal(
        result="quarantined",
        reason=f"{moment.service} is in quarantine until it has been healthy for {moment.rule.guards.healthy_s:g} s",
    )


def _grace(moment: Moment) -> Refusal | None:
    """A running container gets time to start. A stopped one needs no time."""
    container = moment.view.container(moment.service, moment.rule.guards)
    if container is None or container.state in STOPPED:
        return None
    age_s = moment.view.now - container.started_at
    grace_s = moment.rule.guards.startup_grace_s
    if age_s >= grace_s:
        return None
    return Refusal(result="suppressed_grace", reason=f"started less than {grace_s:g} s ago: it may still be starting")


def _cooldown(moment: Moment) -> Refusal | None:
    """A pause between actions.

    It does not apply over the cap, as waiting would not help: `_cap` has the reason.
    """
    service, guards = moment.view.state.of(moment.service), moment.rule.guards
    if not service.actions_at or _cap(moment) is not None:
        return None
    wait_s = min(guards.cooldown_max_s, guards.cooldown_s * guards.backoff ** max(0, service.attempts - 1))
    if moment.view.now - service.actions_at[-1] >= wait_s:
        return None
    return Refusal(result="suppressed_cooldown", reason=f"action {service.attempts} is less than {wait_s:g} s ago")


def _detector(moment: Moment) -> Refusal | None:
    """Suspect the detector first if every replica is bad at once.

    Unless the runtime itself reports them stopped.
    """
    replicas = [one for one in moment.view.policy.replicas if one not in moment.view.observed.elsewhere]
    container = moment.view.container(moment.service, moment.rule.guards)
    proven = container is not None and container.state in STOPPED
    if moment.service not in replicas or len(replicas) < 2 or proven:
        return None
    if not all(_looks_bad(replica, moment.view) for replica in replicas):
        return None
    return Refusal(
        result="suppressed_detector",
        reason=f"{', '.join(replicas)} look bad at once: suspect the detector (probe, gateway, Prometheus) first",
        escalate="page",
    )


def _one_at_a_time(moment: Moment) -> Refusal | None:
    if moment.service not in moment.view.policy.replicas:
        return None
    for other in moment.view.policy.replicas:
        if other != moment.service and _occupied(other, moment):
            return Refusal(result="suppressed_budget", reason=f"{other} is being repaired: one replica at a time")
    return None


def _occupied(replica: str, moment: Moment) -> bool:
    """An action runs, or a replica taken down on purpose is not yet good again."""
    service = moment.view.state.of(replica)
    incident = service.incident
    if service.in_flight:
        return True
    if incident is None or incident.acted_at is None or incident.acted == "start":
        return False
    return moment.view.now - incident.acted_at < moment.rule.guards.verify_s


def _cap(moment: Moment) -> Refusal | None:
    service, guards = moment.view.state.of(moment.service), moment.rule.guards
    recent = sum(1 for at in service.actions_at if moment.view.now - at < guards.window_s)
    if service.attempts < guards.max_attempts and recent < guards.max_actions:
        return None
    return Refusal(
        result="quarantined",
        reason=(
            f"{service.attempts} actions without {guards.healthy_s:g} healthy seconds (at most {guards.max_attempts}), "
            f"{recent} in {guards.window_s:g} s (at most {guards.max_actions}): repairs do not help, a human must look"
        ),
        escalate="quarantine",
    )


def _dry_run(moment: Moment) -> Refusal | None:
    if not moment.view.policy.dry_run:
        return None
    return Refusal(result="dry_run", reason=f"dry run: would {moment.rule.action} {moment.service}")


def _looks_bad(replica: str, view: View) -> bool:
    return any(triggered(rule, replica, view) is not None for rule in view.policy.of(replica))


_GUARDS: tuple[Callable[[Moment], Refusal | None], ...] = (
    _hold, _unknown, _quarantine, _grace, _cooldown, _detector, _one_at_a_time, _cap, _dry_run,
)  # fmt: skip
