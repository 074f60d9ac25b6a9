"""Decision core: rules, observations and memory to decisions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lab_remediator.guards import Moment, refusal
from lab_remediator.model import Decision, Evidence, Incident, ServiceState, State
from lab_remediator.windows import View, holds, looks_good, remember, triggered

if TYPE_CHECKING:
    from lab_remediator.model import Observations
    from lab_remediator.rules import Policy, Rule


def decide(policy: Policy, observed: Observations, state: State, now: float) -> tuple[tuple[Decision, ...], State]:
    """Decisions to record and act on now.

    An `act` is in flight until `finished` reports its end.
    """
    state = remember(policy, observed, state)
    decisions: list[Decision] = []
    for service in policy.services:
        if state.of(service).in_flight:
            continue
        view = View(policy=policy, observed=observed, state=state, now=now)
        said, memory = _one_service(service, view)
        decisions.extend(said)
        state = _with(state, service, memory)
    return tuple(decisions), state


def finished(state: State, service: str, now: float) -> State:
    """Record the end of the action on the service, successful or not.

    Earlier readings concern the container before it.
    """
    return _with(state, service, replace(state.of(service), in_flight=False, settled_at=now))


def _one_service(service: str, view: View) -> tuple[list[Decision], ServiceState]:
    found = [(rule, triggered(rule, service, view)) for rule in view.policy.of(service)]
    bad = [(rule, fact) for rule, fact in found if fact is not None]
    if not bad:
        return _quiet(service, view)

    verdicts = [_judge(Moment(view=view, rule=rule, service=service), fact) for rule, fact in bad]
    # The first rule with evidence counts: the next one must not bypass its guards.
    verdict = next((one for one in verdicts if one.result != "no_evidence"), verdicts[0])
    memory = view.state.of(service)
    since = view.now if memory.suspected_since is None else memory.suspected_since
    memory = replace(memory, healthy_since=None, suspected_since=since)
    said: list[Decision] = []
    if memory.incident is None:
        if verdict.result == "no_evidence" and view.now - since < view.policy.guards.glitch_s:
            return [], memory  # one lost scrape on a busy machine is not an incident
        incident = Incident(id=f"{service}-{round(view.now * 1000)}", rule=verdict.rule or "", detected_at=view.now)
        memory = replace(memory, incident=incident)
        said.append(_detected(incident, verdict))
    verdict = replace(verdict, incident=memory.incident.id if memory.incident else "")
    if verdict.event == "act":
        rule = next(rule for rule, _ in bad if rule.name == verdict.rule)
        return [*said, verdict], _acting(memory, rule, view.now)
    news, memory = _told_once(verdict, memory, view)
    return [*said, *news], memory


def _detected(incident: Incident, verdict: Decision) -> Decision:
    return Decision(
        event="detected",
        service=verdict.service,
        incident=incident.id,
        rule=incident.rule,
        evidence=verdict.evidence[:1],
        reason=f"{verdict.evidence[0].signal} = {verdict.evidence[0].value}",
    )


def _judge(moment: Moment, fact: Evidence) -> Decision:
    """Act, or the reason not to."""
    rule, service, view = moment.rule, moment.service, moment.view
    blank = Decision(
        event="suppressed",
        service=service,
        incident="",
        rule=rule.name,
        action=rule.action,
        evidence=(fact,),
    )
    facts = [holds(condition, service, view, rule.guards) for condition in rule.evidence]
    evidence = (fact, *(found for found in facts if found is not None))
    blank = replace(blank, evidence=evidence)
    if None in facts:
        return replace(blank, result="no_evidence", reason="one signal alone: no rule has its evidence, no action")
    vetoes = (holds(condition, service, view, rule.guards) for condition in rule.unless)
    veto = next((found for found in vetoes if found is not None), None)
    if veto is not None:
        return replace(
            blank,
            evidence=(*evidence, veto),
            result="vetoed",
            reason=f"{veto.signal} contradicts it: busy, not dead",
        )
    no = refusal(moment)
    if no is None:
        return replace(blank, event="act", reason=" and ".join(f"{one.signal} = {one.value}" for one in evidence))
    if no.escalate is not None:
        return replace(blank, event="escalated", action=no.escalate, result=no.result, reason=no.reason)
    return replace(blank, result=no.result, reason=no.reason)


def _told_once(no: Decision, memory: ServiceState, view: View) -> tuple[list[Decision], ServiceState]:
    """Record each reason not to act once per incident.

    A lack of evidence is recorded only if it lasts.
    """
    incident = memory.incident
    if incident is None:
        return [], memory
    if no.result == "no_evidence" and (
        incident.acted_at is not None or view.now - incident.detected_at < view.policy.guards.evidence_wait_s
    ):
        return [], memory  # evidence takes time, and so does the signal after a repair
    key = no.result if no.event == "escalated" or no.result == "no_evidence" else no.reason
    if key in incident.said:
        return [], memory
    memory = replace(
        memory,
        incident=replace(incident, said=incident.said | {key}),
        quarantined=memory.quarantined or no.action == "quarantine",
    )
    return [no], memory


def _quiet(service: str, view: View) -> tuple[list[Decision], ServiceState]:
    """No signal is bad.

    The service is good if a signal shows it. Without readings nothing changes.
    """
    memory = view.state.of(service)
    if not looks_good(service, view):
        return [], replace(memory, healthy_since=None, suspected_since=None)
    since = view.now if memory.healthy_since is None else memory.healthy_since
    memory = replace(memory, healthy_since=since, suspected_since=None)
    said: list[Decision] = []
    if memory.incident is not None and view.now - since >= view.policy.guards.recovered_s:
        said.append(_recovered(service, memory.incident, since))
        memory = replace(memory, incident=None)
    if view.now - since >= view.policy.guards.healthy_s:
        memory = replace(memory, attempts=0, quarantined=False)
    return said, memory


def _recovered(service: str, incident: Incident, since: float) -> Decision:
    took_s = since - incident.detected_at if incident.acted_at is not None else None
    how = "without an action of the remediator" if took_s is None else f"{took_s:.3f} s after its detection"
    return Decision(
        event="recovered",
        service=service,
        incident=incident.id,
        rule=incident.rule,
        action=incident.acted,
        reason=f"good again since {since:.3f}, {how}",
        took_s=took_s,
    )


def _acting(memory: ServiceState, rule: Rule, now: float) -> ServiceState:
    incident = memory.incident
    return replace(
        memory,
        incident=replace(incident, rule=rule.name, acted_at=now, acted=rule.action) if incident else None,
        in_flight=True,
        attempts=memory.attempts + 1,
        actions_at=(*(at for at in memory.actions_at if now - at < rule.guards.window_s), now),
    )


def _with(state: State, service: str, memory: ServiceState) -> State:
    return replace(state, services={**state.services, service: memory})
