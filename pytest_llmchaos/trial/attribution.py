"""Detection and repair, attributed from events, alerts and the audit log."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from pytest_llmchaos.errors import Inconclusive
from pytest_llmchaos.evidence.trial_result import Coincidence, DetectionSource, EventNote, ReadySpan
from pytest_llmchaos.model import UNREADABLE, DeclaresSignals
from pytest_llmchaos.runtime.json_log import at_of
from pytest_llmchaos.trial.signals import Incident, Signal
from pytest_llmchaos.trial.trial import Action

if TYPE_CHECKING:
    from pytest_llmchaos.evidence.trial_record import Record
    from pytest_llmchaos.lab.injector import Injected
    from pytest_llmchaos.model import EventGap, RuntimeEvent, ServiceState
    from pytest_llmchaos.prometheus.queries import FiredAlert
    from pytest_llmchaos.trial.trial import Repairer

Audit = Sequence[Mapping[str, object]]
"""Lines of the remediator's audit log, oldest first."""

# Runtime and remediator use one clock. The slack is the time from a call to its record.
CLOCK_SLACK_S = 0.05
# Assumed length of an act without an end, whose writer died.
ACTION_LIMIT_S = 10.0
# The runtime reports a start within this time.
HEARD_WITHIN_S = 2.0
# Before the reason of an act that the remediator refused, as its owner is another.
NOT_DONE = "not done:"
SIGNAL_MISSING = "signal missing: the fault is proven, but no alert fired and no rule of the remediator matched"


def events_of(
    record: Record,
    injected: Injected,
    events: Sequence[RuntimeEvent],
    audit: Audit,
    fired: Sequence[FiredAlert],
    *,
    services: Collection[str] = (),
) -> list[EventNote]:
    """Return events of the runtime, the remediator and Prometheus in order of time."""
    notes = [_runtime_event(record, event, is_own=injected.is_own(event)) for event in events]
    notes += [_remediator_event(record, line) for line in audit]
    notes += [
        EventNote(
            at_s=record.at_s(alert.at_unix_s),
            source="prometheus",
            what=f"alert {alert.name} fires" + (" in the user's Prometheus" if alert.theirs else ""),
            service=service_of(alert, services, injected.victims),
        )
        for alert in fired
        if not alert.before
    ]
    return sorted(notes, key=lambda note: note.at_s)


def _runtime_event(record: Record, event: RuntimeEvent, *, is_own: bool) -> EventNote:
    detail = " ".join(f"{k}={v}" for k, v in sorted(event.attributes.items()) if k != "execID")
    what = f"{event.service} {event.action} {detail}".strip() + (" (by the instrument)" if is_own else "")
    return EventNote(at_s=record.at_s(event.at_unix_s), source="runtime", what=what, service=event.service)


def _remediator_event(record: Record, line: Mapping[str, object]) -> EventNote:
    about = line.get("rule") or line.get("reason") or ""
    what = " ".join(f"{line.get('event')} {line.get('action') or ''} {line.get('service') or ''}: {about}".split())
    service = str(line.get("service") or "")
    return EventNote(at_s=record.at_s(at_of(line)), source="remediator", what=what, service=service)


def signals_of(
    record: Record,
    from_s: float,
    audit: Audit,
    fired: Sequence[FiredAlert],
    *,
    until_unix_s: float | None = None,
    blinded: str | None = None,
    services: Collection[str] = (),
    victims: Collection[str] = (),
) -> tuple[Signal, ...]:
    """Return the signals from `from_s` until `until_unix_s`, in order of time.

    `blinded` is the service of a Prometheus that the fault kept from firing alerts. It
    goes on with our revert, so later alerts about itself are signals too.
    """
    to_s = math.inf if until_unix_s is None else record.at_s(until_unix_s) - from_s
    found = [
        Signal(
            after_s=record.at_s(a.at_unix_s) - from_s,
            kind="alert",
            name=a.name,
            service=service_of(a, services, victims),
            severity=a.labels.get("severity", ""),
        )
        for a in fired
        if not a.before
    ]
    found += [
        Signal(
            after_s=record.at_s(at_of(line)) - from_s,
            kind="rule",
            name=str(line.get("rule") or ""),
            service=str(line.get("service") or ""),
        )
        for line in audit
        if line.get("event") == "detected"
    ]

    def is_in_time(one: Signal) -> bool:
        is_late_report = blinded is not None and one.kind == "alert" and one.service == blinded
        return one.after_s >= 0 and (one.after_s < to_s or is_late_report)

    after = [replace(one, after_s=round(one.after_s, 3)) for one in found if is_in_time(one)]
    return tuple(sorted(after, key=lambda one: (one.after_s, one.kind, one.name, one.service)))


@dataclass(frozen=True, kw_only=True)
class Detection:
    """The first signal that the fault caused, and the signals that it did not."""

    after_s: float | None = None
    by: str | None = None
    source: DetectionSource | None = None
    coincident: tuple[Coincidence, ...] = ()


def detection(
    record: Record,
    injected: Injected,
    services: Collection[str],
    audit: Audit,
    fired: Sequence[FiredAlert],
    *,
    declared: Collection[str] = (),
    brings_judge: bool = False,
) -> Detection:
    """Return the first signal after the fault that the fault explains.

    Such a signal began after the fault and before our revert. It is about a victim,
    about no service (as an SLO alert is), or declared by a fault or by the subject.

    Args:
        record: The trial's record, for its clock.
        injected: The injected faults and their times.
        services: Names of all services.
        audit: The remediator's audit log.
        fired: Alerts that fired.
        declared: Signals about other services that the subject expects.
        brings_judge: True if the run added a Prometheus of its own to the stack.
    """
    start_unix_s = injected.start_unix_s
    if start_unix_s is None:
        return Detection()
    by_faults = (act.fault.signals for act in injected.acts if isinstance(act.fault, DeclaresSignals))
    expected = {*declared, *(name for names in by_faults for name in names)}
    judge: DetectionSource = "run_prometheus" if brings_judge else "stack_prometheus"
    found = [*_alerts(fired, services, injected.victims, judge), *_rules(audit)]
    caused: list[_Signal] = []
    coincident: list[Coincidence] = []
    for one in sorted(found, key=lambda signal: (signal.at_unix_s, signal.what)):
        why = _why_not_caused(one, injected, start_unix_s, expected)
        if why is None:
            caused.append(one)
        elif one.at_unix_s >= start_unix_s:
            after_s = round(one.at_unix_s - start_unix_s, 3)
            coincident.append(Coincidence(what=one.what, after_s=after_s, service=one.service, why=why))
    if not caused:
        return Detection(coincident=tuple(coincident))
    after_s = round(record.at_s(caused[0].at_unix_s) - record.at_s(start_unix_s), 3)
    return Detection(after_s=after_s, by=caused[0].what, source=caused[0].source, coincident=tuple(coincident))


@dataclass(frozen=True, kw_only=True)
class _Signal:
    at_unix_s: float
    name: str
    what: str
    service: str
    source: DetectionSource
    before: bool = False


def service_of(alert: FiredAlert, services: Collection[str], victims: Collection[str]) -> str:
    """Return the service that an alert is about, a victim before others.

    A label holds its name, or an address with it as the host. An alert about a service
    outside this stack is not about clients, for which the result is empty.
    """
    named = {value.partition(":")[0] for value in alert.labels.values()} & set(services)
    return min(named, key=lambda name: (name not in victims, name), default=alert.labels.get("service", ""))


def _alerts(
    fired: Sequence[FiredAlert], services: Collection[str], victims: Collection[str], judge: DetectionSource
) -> Iterator[_Signal]:
    for alert in fired:
        yield _Signal(
            at_unix_s=alert.at_unix_s,
            name=alert.name,
            what=f"alert {alert.name}",
            service=service_of(alert, services, victims),
            source="user_prometheus" if alert.theirs else judge,
            before=alert.before,
        )


def _rules(audit: Audit) -> Iterator[_Signal]:
    for line in audit:
        if line.get("event") == "detected":
            rule, service = str(line.get("rule") or ""), str(line.get("service") or "")
            what = f"remediator rule {rule}"
            yield _Signal(at_unix_s=at_of(line), name=rule, what=what, service=service, source="remediator")


def _why_not_caused(signal: _Signal, injected: Injected, start_unix_s: float, declared: Collection[str]) -> str | None:
    """Return why the fault did not cause the signal, or None if it did."""
    if signal.before or signal.at_unix_s < start_unix_s:
        return "it was pending or firing before the fault"
    if injected.reverted_unix_s is not None and signal.at_unix_s >= injected.reverted_unix_s:
        return "it began after the instrument's own revert"
    if signal.service and signal.service not in injected.victims and signal.name not in declared:
        return f"{signal.service} is not a victim, and the fault does not declare the signal"
    return None


def is_unnoticed(injected: Injected, detect_s: float | None) -> bool:
    """True if a proven fault raised no signal, so no one would have been paged."""
    return injected.start_unix_s is not None and detect_s is None


def actions_of(record: Record, audit: Audit) -> tuple[Action, ...]:
    """Return the remediator's finished acts from its audit log."""
    return tuple(
        Action(
            at_s=record.at_s(at_of(line)),
            action=str(line.get("action") or ""),
            service=str(line.get("service") or ""),
            rule=str(line.get("rule") or ""),
            succeeded=line["event"] == "done",
        )
        for line in audit
        if line.get("event") in {"done", "failed"}
    )


def incidents_of(record: Record, from_s: float, audit: Audit) -> tuple[Incident, ...]:
    """Return the remediator's incidents from its audit log, each with its first end."""

    def after_s(line: Mapping[str, object]) -> float:
        return round(record.at_s(at_of(line)) - from_s, 3)

    return tuple(
        Incident(
            service=str(line.get("service") or ""),
            rule=str(line.get("rule") or ""),
            after_s=after_s(line),
            ended_after_s=None if end is None else after_s(end),
        )
        for line, end in _with_ends(audit, "detected", {"recovered"})
    )


def _with_ends(
    audit: Audit, begin: str, ends: Collection[str]
) -> Iterator[tuple[Mapping[str, object], Mapping[str, object] | None]]:
    """Yield each `begin` line and the first later line that ended its incident."""
    for number, line in enumerate(audit):
        if line.get("event") == begin:
            which = line.get("service"), line.get("incident")
            later = (one for one in audit[number:] if (one.get("service"), one.get("incident")) == which)
            yield line, next((one for one in later if one.get("event") in ends), None)


def repaired_by(
    injected: Injected,
    events: Sequence[RuntimeEvent],
    audit: Audit,
    states: Mapping[str, ServiceState] | None = None,
) -> Repairer | None:
    """Return what repaired the victims, as the records show it.

    Args:
        injected: The injected faults and their times.
        events: The runtime's events.
        audit: The remediator's audit log.
        states: States of the services after the revert.
    """
    start_unix_s = injected.start_unix_s
    if not injected.acts or start_unix_s is None:
        return None
    if all(act.fault.kind == "restart" for act in injected.acts):
        return "itself"
    reverted = injected.reverted_unix_s or float("inf")
    names: set[Repairer] = set()
    for victim in injected.victims:
        at_unix_s = _lasting_start(injected, victim, events, start_unix_s, reverted)
        if at_unix_s is None:
            names |= _ended_in_place(injected, victim, events)
            continue
        restarts = _restarts_at(at_unix_s, (states or {}).get(victim))
        if restarts:
            names.add("runtime")
        elif acted_on(audit, victim, at_unix_s, at_unix_s) == "done":  # after a failed act it is unknown
            names.add("remediator")
        elif at_unix_s >= reverted - CLOCK_SLACK_S:
            names.add("instrument")
        else:
            is_logged = any(line.get("service") == victim and at_of(line) >= start_unix_s for line in audit)
            names.add("unknown" if restarts is None or is_logged else "other")
    return names.pop() if len(names) == 1 else ("mixed" if names else None)


def _restarts_at(at_unix_s: float, state: ServiceState | None) -> int | None:
    """Return how often the restart policy had restarted a victim by this start.

    Docker counts these in a row. A start by its API sets the count to 0. None if the
    state is of another start.
    """
    is_same = state is not None and abs(state.started_unix_s - at_unix_s) <= HEARD_WITHIN_S
    return state.restarts if state is not None and is_same else None


def _ended_in_place(injected: Injected, victim: str, events: Sequence[RuntimeEvent]) -> set[Repairer]:
    """Return what ended a lasting fault of a process that never went down.

    An example is an engine that hung.
    """
    lasts = any(act.victim == victim and act.fault.lifetime == "lasting" for act in injected.acts)
    went_down = any(e.service == victim and e.action == "die" for e in events)
    if not lasts or went_down or injected.reverted_unix_s is None:
        return set()
    return {"instrument" if injected.over_unix_s is None else "unknown"}


def _lasting_start(
    injected: Injected, victim: str, events: Sequence[RuntimeEvent], start_unix_s: float, reverted_unix_s: float
) -> float | None:
    """Return when the victim started for good.

    A start that died again before our revert does not count.
    """
    forced = {at for act, at in injected.proven if act.victim == victim and act.fault.kind == "restart"}
    start: float | None = None
    for event in events:
        at = event.at_unix_s
        if event.service != victim or at <= start_unix_s:
            continue
        if event.action == "die" and at <= reverted_unix_s and at not in forced:
            start = None
        elif event.action == "start" and start is None:
            start = at
    return start


def acted_on(audit: Audit, service: str, from_unix_s: float, to_unix_s: float) -> Literal["done", "perhaps", "no"]:
    """Return whether the remediator acted on the service in this time.

    An act logged as failed is "perhaps". A restart can time out and still succeed. One
    that the remediator refused does not count. An act without an end lasts
    ACTION_LIMIT_S, because its writer died.
    """
    found: Literal["perhaps", "no"] = "no"
    for line, end in sent(audit):
        end_s = at_of(line) + ACTION_LIMIT_S if end is None else at_of(end)
        if (
            line.get("service") != service
            or at_of(line) - CLOCK_SLACK_S > to_unix_s
            or from_unix_s > end_s + CLOCK_SLACK_S
        ):
            continue
        if end is None or end.get("event") != "failed":
            return "done"
        found = "perhaps"
    return found


def sent(audit: Audit) -> Iterator[tuple[Mapping[str, object], Mapping[str, object] | None]]:
    """Yield the intent and the end of each act that the remediator did not refuse."""
    for line, end in _with_ends(audit, "intent", {"done", "failed"}):
        if end is None or not str(end.get("reason") or "").startswith(NOT_DONE):
            yield line, end


def restarts(injected: Injected, events: Sequence[RuntimeEvent]) -> dict[str, int]:
    """Return the number of starts of each service, without the instrument's own.

    The instrument's own starts are its revert and the start in a restart fault.
    """
    counts: dict[str, int] = {}
    for event in events:
        if event.action == "start" and not injected.is_own(event):
            counts[event.service] = counts.get(event.service, 0) + 1
    return counts


def readiness_events(spans: Sequence[ReadySpan], service: str) -> list[EventNote]:
    """Return one event for each change of the readiness path's answer."""
    return [
        EventNote(
            at_s=span.from_s,
            source="instrument",
            what=f"{'ready' if span.ready else 'not ready'} ({span.status or 'no answer'})",
            service=service,
        )
        for span in spans[1:]
    ]


def require_heard(
    record: Record, events: Sequence[RuntimeEvent], states: Mapping[str, ServiceState], until_unix_s: float
) -> None:
    """Require that the runtime's events contain every start since the load began.

    A stream of events that went silent looks like a system in which nothing happened.

    Raises:
        Inconclusive: A service started, and the events lack that start.
    """
    for service, state in sorted(states.items()):
        started_unix_s = state.started_unix_s
        if not record.anchor_unix_s <= started_unix_s <= until_unix_s - HEARD_WITHIN_S:
            continue
        starts = (event.at_unix_s for event in events if (event.service, event.action) == (service, "start"))
        if not any(abs(at_unix_s - started_unix_s) <= HEARD_WITHIN_S for at_unix_s in starts):
            raise Inconclusive(
                f"{service} was started {record.at_s(started_unix_s):.1f} s into the trial, but the runtime's events lack "
                "that start, so others can be missing too: its stream of events went silent"
            )


def require_whole_records(record: Record, gaps: Sequence[EventGap], audit: Audit) -> None:
    """Require that runtime events and the remediator's audit log are complete.

    In a gap, the absence of an event proves nothing.

    Raises:
        Inconclusive: Events are missing, or a line of the log cannot be read.
    """
    if gaps:
        gap = gaps[0]
        raise Inconclusive(
            f"the runtime's record has a gap from {record.at_s(gap.from_unix_s):.1f} s to {record.at_s(gap.to_unix_s):.1f} s "
            f"of the trial, and what happened in it is unknown: {gap.why}"
        )
    torn = next((line for line in audit if line.get("event") == UNREADABLE), None)
    if torn is not None:
        raise Inconclusive(
            f"a line of the remediator's audit log cannot be read ({torn.get('reason')}), so its log is incomplete"
        )
