"""A runtime in memory: states, events and abilities behave as the real ones do, so that contracts can be tested in no time."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pytest_llmchaos.errors import HealFailed, NotReady
from pytest_llmchaos.model import RuntimeEvent, ServiceState, Undo

ALL = frozenset({"kill", "start", "restart", "pause", "unpause", "crash", "events", "exec"})


class FakeRuntime:
    """`deaf` drops events (no witness), `broken` refuses undos, `touched` records every service that was acted on."""

    name = "fake"
    project = "llmchaos-fake"

    def __init__(
        self, services: Sequence[str] = ("api", "model-1", "model-2"), *, deaf: bool = False, broken: bool = False
    ) -> None:
        self._clock = itertools.count(1000)
        self._states = {s: ServiceState(service=s, running=True, healthy=True, started_unix_s=1.0) for s in services}
        self._events: list[RuntimeEvent] = []
        self.deaf = deaf
        self.broken = broken
        self.touched: list[str] = []
        self.abilities = ALL

    def now(self) -> float:
        return float(next(self._clock))

    def targets(self) -> tuple[str, ...]:
        return tuple(self._states)

    def state(self, service: str) -> ServiceState:
        return self._states.get(service, ServiceState(service=service, running=False))

    def states(self) -> Mapping[str, ServiceState]:
        return dict(self._states)

    def events(self, since_unix_s: float, until_unix_s: float) -> Sequence[RuntimeEvent]:
        return [e for e in self._events if since_unix_s <= e.at_unix_s <= until_unix_s]

    def remove(self, service: str) -> None:
        """Somebody else removes the container."""
        del self._states[service]

    def _change(self, service: str, action: str, attributes: Mapping[str, str] | None = None, **changes: Any) -> None:
        if service not in self._states:
            raise NotReady(f"no container for {service}")
        self.touched.append(service)
        at = self.now()
        if "started_unix_s" in changes:
            changes["started_unix_s"] = at
        self._states[service] = replace(self._states[service], **changes)
        if not self.deaf:
            self._events.append(RuntimeEvent(at_unix_s=at, service=service, action=action, attributes=attributes or {}))

    def kill(self, service: str) -> None:
        self._change(service, "kill", {"signal": "9"})
        self._change(service, "die", {"exitCode": "137"}, running=False, paused=False, exit_code=137)

    def crash(self, service: str) -> None:
        self._change(service, "die", {"exitCode": "137"}, running=False, paused=False, exit_code=137)

    def start(self, service: str) -> None:
        self._change(service, "start", running=True, exit_code=None, started_unix_s=0.0)

    def restart(self, service: str) -> None:
        self.crash(service)
        self.start(service)

    def pause(self, service: str) -> None:
        self._change(service, "pause", paused=True)

    def unpause(self, service: str) -> None:
        self._change(service, "unpause", paused=False)

    def undo(self, undo: Undo) -> None:
        if self.broken:
            raise HealFailed(f"the fake refuses {undo.op} {undo.service}")
        if undo.service not in self._states:
            return
        state = self._states[undo.service]
        if state.paused:
            self.unpause(undo.service)
        if undo.op == "ensure_running" and not self._states[undo.service].running:
            self.start(undo.service)
