"""Views of one service and of the remediator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import InvalidExperiment
from pytest_llmchaos.runtime.json_log import at_of

if TYPE_CHECKING:
    from pytest_llmchaos.model import Runtime, ServiceState


class ServiceView:
    """One service of the stack: its state now, and its address."""

    def __init__(self, runtime: Runtime, name: str) -> None:
        self._runtime, self.name = runtime, name

    def __repr__(self) -> str:
        state = self.state
        return f"<service {self.name}: {'running' if state.running else 'down'}>"

    @property
    def state(self) -> ServiceState:
        return self._runtime.state(self.name)

    @property
    def url(self) -> str:
        return self._runtime.url(self.name)


class RemediatorView:
    """The sidecar that repairs. It can be stopped for a control arm and started again."""

    def __init__(self, runtime: Runtime, name: str | None) -> None:
        self._runtime, self._name = runtime, name

    def __repr__(self) -> str:
        return f"<remediator: {'running' if self.running else 'stopped'}>"

    @property
    def running(self) -> bool:
        return self._name is not None and self._runtime.state(self._name).running

    def ensure(self, on: bool) -> None:
        """Start or stop it. Raises InvalidExperiment where it would not be so afterwards."""
        if self._name is None:
            if not on:
                raise InvalidExperiment(
                    "remediator=False cannot be had, because no service is known to be the remediator: set llmchaos_remediator"
                )
            return
        if on and self._runtime.state(self._name).paused:
            raise InvalidExperiment(f"{self._name} is paused, so it could repair nothing: unpause it")
        if on and not self.running:
            self._runtime.start_remediator()
        elif not on and self.running:
            self._runtime.stop_remediator()

    def audit(self, since_unix_s: float = 0.0) -> list[Mapping[str, object]] | None:
        """What it saw and did since then, oldest first; None where no service is known to be it, or it has no log."""
        lines = None if self._name is None else self._runtime.audit()
        return None if lines is None else [line for line in lines if at_of(line) >= since_unix_s]
