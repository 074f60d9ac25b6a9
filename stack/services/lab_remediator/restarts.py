"""Counting restarts, whoever made them, from what the runtime says about containers. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab_remediator.model import Container

EXTERNAL = "external"  # an operator, or whoever else asked for it
RUNTIME = "runtime"  # the container's own restart policy
NOT_OURS = (EXTERNAL, RUNTIME)
_CLOCK_SLACK_S = 0.5  # intent and StartedAt come from two programs' clocks on one machine


@dataclass(frozen=True, kw_only=True)
class Restart:
    """One observed restart and whom it belongs to: a rule's name, or one of NOT_OURS."""

    service: str
    reason: str
    count: int
    started_at: float


@dataclass
class Restarts:
    """Remembers the last start seen of each service and the own actions still waiting to be seen."""

    _last: dict[str, Container] = field(default_factory=dict)
    _own: dict[str, tuple[str, float]] = field(default_factory=dict)

    def expect(self, service: str, rule: str, at: float) -> None:
        """An own action begins: the next start after `at` is its doing."""
        self._own[service] = (rule, at)

    def forget(self, service: str) -> None:
        """The own action did not take place."""
        self._own.pop(service, None)

    def seen(self, service: str, container: Container) -> tuple[Restart, ...]:
        """Restarts since the last start that was seen; the first look only sets the base. A container never started is no base.

        A look at a container that is down changes nothing: the engine counts a restart before it performs it.
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
