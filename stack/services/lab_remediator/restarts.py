"""Restarts by cause, counted from the runtime's reports."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab_remediator.model import Container

EXTERNAL = "external"  # by an operator or another program
RUNTIME = "runtime"  # the container's own restart policy
NOT_OURS = (EXTERNAL, RUNTIME)
_CLOCK_SLACK_S = 0.5  # intent and StartedAt come from two programs on one machine


@dataclass(frozen=True, kw_only=True)
class Restart:
    """One restart and its cause: a rule's name, or one of NOT_OURS."""

    service: str
    reason: str
    count: int
    started_at: float


@dataclass
class Restarts:
    """The last start of each service, and own actions not yet seen."""

    _last: dict[str, Container] = field(default_factory=dict)
    _own: dict[str, tuple[str, float]] = field(default_factory=dict)

    def expect(self, service: str, rule: str, at: float) -> None:
        """Announce an own action: the next start after `at` belongs to it."""
        self._own[service] = (rule, at)

    def forget(self, service: str) -> None:
        """Withdraw the announcement of an action that did not take place."""
        self._own.pop(service, None)

    def seen(self, service: str, container: Container) -> tuple[Restart, ...]:
        """Restarts since the last start seen.

        The first look only sets the base. A container never started sets no base. A
        look at a stopped container changes nothing: Docker counts a restart before it
        performs it.
        """
        last = self._last.get(service)
        same = last is not None and container.id == last.id and container.started_at == last.started_at
        if container.started_at <= 0 or same:
            return ()
        self._last[service] = container
        if last is None:
            return ()
        by_policy = container.restart_count - last.restart_count if container.id == last.id else 0
        count, other = max(1, by_policy), RUNTIME if by_policy > 0 else EXTERNAL
        rule, since = self._own.get(service, (other, 0.0))
        if rule == other or container.started_at < since - _CLOCK_SLACK_S:
            return (Restart(service=service, reason=other, count=count, started_at=container.started_at),)
        del self._own[service]
        own = Restart(service=service, reason=rule, count=1, started_at=container.started_at)
        if count == 1:
            return (own,)
        return (own, Restart(service=service, reason=other, count=count - 1, started_at=container.started_at))
