"""The engine dies at every start for a while, as with a broken driver or a missing file. Trying once is not enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_llmchaos.faults.engine_faults import LEASE_S, EngineDeath, check_number, on_engine

if TYPE_CHECKING:
    from pytest_llmchaos.model import Fault


@dataclass(frozen=True, kw_only=True)
class CrashOnBoot(EngineDeath):
    needs: frozenset[str] = frozenset({"engine", "start", "restart", "events"})

    def inject(self, runtime: Any, victim: str) -> None:
        """The cause first, then the restart that meets it."""
        super().inject(runtime, victim)
        runtime.restart(victim)


def crash_on_boot(target: str, *, for_s: float = 6) -> Fault:
    """Restart the engine, and let every start of the next `for_s` seconds end with exit status 1. Then its cause is gone."""
    lease_s = check_number("crash_on_boot(for_s=...)", for_s, above=0, at_most=LEASE_S)
    expects = "the process exits with 1 at each start; ServiceDown fires, repairs are tried again and again with growing pauses"
    return on_engine(CrashOnBoot(kind="crash_on_boot", expects=expects, lease_s=lease_s), target)
