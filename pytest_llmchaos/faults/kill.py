"""Kill a container the way an operator does: SIGKILL through the engine, which no restart policy answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pytest_llmchaos.faults.base import ActFault
from pytest_llmchaos.faults.compositions import Target, on_targets

if TYPE_CHECKING:
    from pytest_llmchaos.model import CanKill, Fault


class Kill(ActFault):
    kind: ClassVar[str] = "kill"
    needs: ClassVar[frozenset[str]] = frozenset({"kill", "start", "events"})
    exit_code: ClassVar[str] = "137"

    def inject(self, runtime: CanKill, victim: str) -> None:
        runtime.kill(victim)


def kill(target: Target) -> Fault:
    """Kill a service's container (SIGKILL). It stays down until the remediator or an operator starts it."""
    return on_targets(Kill(), target)
