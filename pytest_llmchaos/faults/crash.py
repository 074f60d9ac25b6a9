"""Make a service's own process die, as a bug or the OOM killer does. A restart policy, where there is one, answers this."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pytest_llmchaos.faults.base import ActFault
from pytest_llmchaos.faults.compositions import Target, on_targets

if TYPE_CHECKING:
    from pytest_llmchaos.model import CanCrash, Fault


class Crash(ActFault):
    kind: ClassVar[str] = "crash"
    needs: ClassVar[frozenset[str]] = frozenset({"crash", "start", "events"})

    def inject(self, runtime: CanCrash, victim: str) -> None:
        runtime.crash(victim)


def crash(target: Target) -> Fault:
    """Kill the service's main process from outside the engine, so that the engine sees it die by itself."""
    return on_targets(Crash(), target)
