"""Who noticed, who repaired, and when: read from events, alerts and the audit log, never assumed. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_llmchaos.evidence.trial_record import Record
    from pytest_llmchaos.lab.injector import Injected
    from pytest_llmchaos.model import RuntimeEvent

# The runtime's and the remediator's stamps come from one clock; what is left is the time between a call and its record.
CLOCK_SLACK_S = 0.05
# An intent without an end (its writer died) speaks for this long.
ACTION_LIMIT_S = 10.0
SIGNAL_MISSING = "signal missing: the fault is proven, yet no alert fired and the remediator noticed nothing"


def note_events(
    record: Record, events: Sequence[RuntimeEvent], audit: Sequence[Mapping[str, Any]], fired: Sequence[Any]
) -> None:
    """Runtime, remediator and alerts on the trial's one clock, in the journal."""
    for event in events:
        detail = " ".join(f"{k}={v}" for k, v in sorted(event.attributes.items()) if k != "execID")
        record.event(
            "runtime",
            f"{event.service} {event.action} {detail}".strip(),
            at_s=record.at_s(event.at_unix_s),
            service=event.service,
        )
    for line in audit:
        about = line.get("rule") or line.get("reason") or ""
        what = f"{line.get('event')} {line.get('action') or ''} {line.get('service') or ''}: {about}"
        record.event(
            "remediator",
            " ".join(what.split()),
            at_s=record.at_s(float(line["at"])),
            service=str(line.get("service") or ""),
        )
    for alert in fired:
        if not alert.before:
            name = f"alert {alert.name} fires"
            record.event(
                "prometheus", name, at_s=record.at_s(alert.at_unix_s), service=str(alert.labels.get("service", ""))
            )
    record.events.sort(key=lambda event: event.at_s)


def detected(
    record: Record, fault_s: float, audit: Sequence[Mapping[str, Any]], fired: Sequence[Any]
) -> tuple[float | None, str | None]:
    """The first signal after the fault that the system raised by itself."""
    signals = [(record.at_s(a.at_unix_s), f"alert {a.name}") for a in fired if not a.before]
    signals += [
        (record.at_s(float(line["at"])), f"remediator rule {line.get('rule')}")
        for line in audit
        if line.get("event") == "detected"
    ]
    after = sorted((at, what) for at, what in signals if at >= fault_s)
    return (round(after[0][0] - fault_s, 3), after[0][1]) if after else (None, None)


def unnoticed(injected: Injected, detect_s: float | None) -> bool:
    """Whether a fault that a witness saw raised no signal of the system's own: a finding, for nobody would have been called."""
    return injected.start_unix_s is not None and detect_s is None


def victims_back(record: Record, injected: Injected, events: Sequence[RuntimeEvent]) -> dict[str, float | None]:
    """When each victim ran again before the revert, by the runtime's own events; None for one that did not."""
    from_unix_s, to_unix_s = injected.start_unix_s or 0.0, injected.reverted_unix_s or 0.0
    back: dict[str, float | None] = {}
    for victim in injected.victims:
        up: float | None = None
        for event in events:
            if event.service != victim or not from_unix_s <= event.at_unix_s <= to_unix_s:
                continue
            if event.action in {"die", "pause"}:
                up = None
            elif event.action in {"start", "unpause"}:
                up = event.at_unix_s
        back[victim] = None if up is None else record.at_s(up)
    return back


def repaired_by(injected: Injected, events: Sequence[RuntimeEvent], audit: Sequence[Mapping[str, Any]]) -> str | None:
    """Who brought the victims back, from the runtime's events and the remediator's audit log; never assumed."""
    if not injected.acts or injected.start_unix_s is None:
        return None
    if all(act.fault.kind == "restart" for act in injected.acts):
        return "itself"
    reverted = injected.reverted_unix_s or float("inf")
    names: set[str] = set()
    for victim in injected.victims:
        at_unix_s = _lasting_start(injected, victim, events, reverted)
        if at_unix_s is None:
            continue
        if _acted(audit, victim, at_unix_s):
            names.add("remediator")
        else:
            names.add("instrument" if at_unix_s >= reverted - CLOCK_SLACK_S else "unknown")
    return names.pop() if len(names) == 1 else ("mixed" if names else None)


def _lasting_start(
    injected: Injected, victim: str, events: Sequence[RuntimeEvent], reverted_unix_s: float
) -> float | None:
    """When the victim started for good: after a start that died again before our revert, somebody else's counts."""
    forced = {at for act, at in injected.proven if act.victim == victim and act.fault.kind == "restart"}
    start: float | None = None
    for event in events:
        at = event.at_unix_s
        if event.service != victim or at <= (injected.start_unix_s or 0.0):
            continue
        if event.action == "die" and at <= reverted_unix_s and at not in forced:
            start = None
        elif event.action == "start" and start is None:
            start = at
    return start


def _acted(audit: Sequence[Mapping[str, Any]], service: str, at_unix_s: float) -> bool:
    """Whether the remediator wrote down that it was acting on the service when the runtime saw the service start."""
    for number, line in enumerate(audit):
        if line.get("event") != "intent" or line.get("service") != service:
            continue
        begin_s = float(line["at"])
        ends = (
            float(later["at"])
            for later in audit[number + 1 :]
            if later.get("incident") == line.get("incident") and later.get("event") in {"done", "failed"}
        )
        if begin_s - CLOCK_SLACK_S <= at_unix_s <= next(ends, begin_s + ACTION_LIMIT_S) + CLOCK_SLACK_S:
            return True
    return False


def restarts(events: Sequence[RuntimeEvent]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for event in events:
        if event.action == "start":
            counts[event.service] = counts.get(event.service, 0) + 1
    return counts
