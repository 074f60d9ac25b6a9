"""The engine dies at every start for a while, as with a broken driver or a missing file. Trying once is not enough."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

from pytest_llmchaos.faults.compositions import Target, on_targets
from pytest_llmchaos.faults.engine_faults import LEASE_S, DeathByFault, check_number
from pytest_llmchaos.model import CanReachEngine, CanRestart

if TYPE_CHECKING:
    from pytest_llmchaos.model import Fault


class RestartsEngine(CanReachEngine, CanRestart, Protocol):
    """A runtime that reaches a simulated engine and restarts it."""


class CrashOnBoot(DeathByFault):
    kind: ClassVar[str] = "crash_on_boot"
    needs: ClassVar[frozenset[str]] = frozenset({"engine", "start", "restart", "events"})
    expects: ClassVar[str] = (
        "the process exits with 1 at each start; ServiceDown fires, repairs are tried again and again with growing pauses"
    )

    def inject(self, runtime: RestartsEngine, victim: str) -> None:
        """The cause first, then the restart that meets it."""
        self.start(runtime, victim)
        runtime.restart(victim)


def crash_on_boot(target: Target, *, for_s: float = 6) -> Fault:
    """Restart the engine, and let every start of the next `for_s` seconds end with exit status 1. Then its cause is gone."""
    lease_s = check_number("crash_on_boot(for_s=...)", for_s, above=0, at_most=LEASE_S)
    return on_targets(CrashOnBoot(lease_s=lease_s), target)
