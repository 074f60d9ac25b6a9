"""State of one service and of the remediator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import InvalidExperiment
from pytest_llmchaos.runtime.json_log import at_of

if TYPE_CHECKING:
    from pytest_llmchaos.model import Runtime, ServiceState


class ServiceView:
    """One service of the stack.

    Attributes:
        name: the service's name.
    """

    def __init__(self, runtime: Runtime, name: str) -> None:
        self._runtime, self.name = runtime, name

    def __repr__(self) -> str:
        state = self.state
        return f"<service {self.name}: {'running' if state.running else 'down'}>"

    @property
    def state(self) -> ServiceState:
        """The service's state now."""
        return self._runtime.state(self.name)

    @property
    def url(self) -> str:
        """The service's address from this machine, such as `http://127.0.0.1:18000`."""
        return self._runtime.url(self.name)


class RemediatorView:
    """The service that repairs the stack. Control arms run without it."""

    def __init__(self, runtime: Runtime, name: str | None) -> None:
        self._runtime, self._name = runtime, name

    def __repr__(self) -> str:
        return f"<remediator: {'running' if self.running else 'stopped'}>"

    @property
    def running(self) -> bool:
        """True if the stack has a remediator and it runs."""
        return self._name is not None and self._runtime.state(self._name).running

    def ensure(self, on: bool) -> None:
        """Start or stop the remediator.

        Args:
            on: True to start, False to stop.

        Raises:
            InvalidExperiment: the stack has no remediator to stop, or it is paused.
        """
        if self._name is None:
            if not on:
                raise InvalidExperiment(
                    "remediator=False needs the name of the service that repairs the stack: set llmchaos_remediator"
                )
            return
        if on and self._runtime.state(self._name).paused:
            raise InvalidExperiment(f"{self._name} is paused and cannot repair: unpause it")
        if on and not self.running:
            self._runtime.start_remediator()
        elif not on and self.running:
            self._runtime.stop_remediator()

    def audit(self, since_unix_s: float = 0.0) -> list[Mapping[str, object]] | None:
        """Return the remediator's audit log.

        Args:
            since_unix_s: Unix time of the earliest line.

        Returns:
            The lines, oldest first, or None if the stack has no remediator or no log.
        """
        lines = None if self._name is None else self._runtime.audit()
        return None if lines is None else [line for line in lines if at_of(line) >= since_unix_s]
