"""Restart a container by force, as a deploy or an impatient operator does. It comes back by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pytest_llmchaos.faults.base import ActFault
from pytest_llmchaos.faults.compositions import Target, on_targets

if TYPE_CHECKING:
    from pytest_llmchaos.model import CanRestart, Fault


class Restart(ActFault):
    kind: ClassVar[str] = "restart"
    needs: ClassVar[frozenset[str]] = frozenset({"restart", "start", "events"})
    expects: ClassVar[str] = "process_start_time_seconds resets; a short error burst"

    def inject(self, runtime: CanRestart, victim: str) -> None:
        runtime.restart(victim)


def restart(target: Target) -> Fault:
    """Restart a service's container at once (no grace)."""
    return on_targets(Restart(), target)
