"""Views of one service and of the remediator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pytest_llmchaos.model import ServiceState

if TYPE_CHECKING:
    pass

if TYPE_CHECKING:
    from pytest_llmchaos.lab.lab import Lab


class ServiceView:
    """One service of the stack: its state now, and its address."""

    def __init__(self, lab: Lab, name: str) -> None:
        self._lab, self.name = lab, name

    def __repr__(self) -> str:
        state = self.state
        return f"<service {self.name}: {'running' if state.running else 'down'}>"

    @property
    def state(self) -> ServiceState:
        state: ServiceState = self._lab.runtime.state(self.name)
        return state

    @property
    def url(self) -> str:
        return str(self._lab.runtime.url(self.name))


class RemediatorView:
    """The sidecar that repairs. It can be stopped for a control arm and started again."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def __repr__(self) -> str:
        return f"<remediator: {'running' if self.running else 'stopped'}>"

    @property
    def running(self) -> bool:
        name = self._lab.subject.remediator
        return bool(name) and self._lab.runtime.state(name).running

    def ensure(self, on: bool) -> None:
        if on and not self.running:
            self._lab.runtime.start_remediator()
        elif not on and self.running:
            self._lab.runtime.stop_remediator()

    def audit(self, since_unix_s: float = 0.0) -> list[Mapping[str, Any]]:
        """What it saw and did since then, oldest first."""
        return [line for line in self._lab.runtime.audit() if float(line.get("at", 0)) >= since_unix_s]
