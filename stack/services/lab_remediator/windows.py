"""Conditions over the recent marks of a signal. Absent data is no mark."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from lab_remediator.model import Evidence, Observations, State
from lab_remediator.rules import ContainerCondition, Guards, Policy, SignalCondition

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab_remediator.model import Container
    from lab_remediator.rules import Condition, Rule

_TICK_SLACK = 2  # late or lost polls at the far end of a window that still count as covered


@dataclass(frozen=True, kw_only=True)
class View:
    """One moment as a condition sees it."""

    policy: Policy
    observed: Observations
    state: State
    now: float

    def container(self, service: str, guards: Guards) -> Container | None:
        """The container since the last action, or None after too old a look."""
        seen = self.observed.containers.get(service)
        if (
            seen is None
            or seen.seen_at <= self.state.of(service).settled_at
            or self.now - seen.seen_at > guards.stale_s
        ):
            return None
        return seen

    def patience_s(self, signal: str, guards: Guards) -> float:
        """Largest age of the newest mark, in seconds.

        A slow probe's answers cannot come faster than its timeout.
        """
        return max(guards.stale_s, _TICK_SLACK * self.policy.signals[signal].period_s)

    def marks(self, signal: str, service: str, guards: Guards) -> tuple[tuple[float, bool, float], ...]:
        """Marks since the service's last action. Empty if the newest is stale."""
        settled_at = self.state.of(service).settled_at
        marks = tuple(mark for mark in self.state.marks.get((signal, service), ()) if mark[0] > settled_at)
        return marks if marks and self.now - marks[-1][0] <= self.patience_s(signal, guards) else ()


def remember(policy: Policy, observed: Observations, state: State) -> State:
    """The state with every new reading added, and marks that no rule needs dropped."""
    keep_s = _longest_window_s(policy)
    marks = dict(state.marks)
    for (name, service), reading in observed.readings.items():
        signal = policy.signals.get(name)
        if signal is None:
            continue
        old = marks.get((name, service), ())
        if old and reading.at <= old[-1][0]:
            continue  # the same answer again is not a second observation
        horizon = reading.at - keep_s.get(name, 0.0) - (_TICK_SLACK + 1) * signal.period_s
        new = (reading.at, signal.fires(reading.value), reading.value)
        marks[name, service] = (*(mark for mark in old if mark[0] >= horizon), new)
    return replace(state, marks=marks)


def holds(condition: Condition, service: str, view: View, guards: Guards) -> Evidence | None:
    """The fact that makes the condition true, or None."""
    if isinstance(condition, ContainerCondition):
        container = view.container(service, guards)
        if container is None or container.condition not in condition.container:
            return None
        return Evidence(signal="container", value=str(container), at=container.seen_at)
    marks = view.marks(condition.signal, service, guards)
    if not marks or not marks[-1][1]:
        return None
    at, _, value = marks[-1]
    if condition.for_s:
        slack_s = _TICK_SLACK * view.policy.signals[condition.signal].period_s
        window = [mark for mark in marks if mark[0] >= at - condition.for_s - slack_s]
        patience_s = view.patience_s(condition.signal, guards)
        covered = at - window[0][0] >= condition.for_s
        gaps = any(later[0] - earlier[0] > patience_s for earlier, later in pairwise(window))
        if not covered or gaps or sum(mark[1] for mark in window) < condition.share * len(window):
            return None
    return Evidence(signal=condition.signal, value=value, at=at)


def triggered(rule: Rule, service: str, view: View) -> Evidence | None:
    """The first of the rule's signals that is bad for the service."""
    found = (holds(condition, service, view, rule.guards) for condition in rule.signal)
    return next((fact for fact in found if fact is not None), None)


def looks_good(service: str, view: View) -> bool:
    """Proof of health, or None.

    The container runs, no signal of the service is bad, and at least one is freshly
    good.
    """
    container = view.container(service, view.policy.guards)
    if container is None or container.condition != "running":
        return False
    names = {condition.signal for rule in view.policy.of(service) for condition in rule.signal}
    latest = [marks[-1] for name in names if (marks := view.marks(name, service, view.policy.guards))]
    return bool(latest) and not any(bad for _, bad, _ in latest)


def _longest_window_s(policy: Policy) -> Mapping[str, float]:
    longest: dict[str, float] = {}
    for rule in policy.rules:
        for condition in (*rule.signal, *rule.evidence, *rule.unless):
            if isinstance(condition, SignalCondition):
                longest[condition.signal] = max(condition.for_s, longest.get(condition.signal, 0.0))
    return longest
