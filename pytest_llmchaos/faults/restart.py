"""Restart a container by force, as a deploy or an impatient operator does. It comes back by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_llmchaos.faults.base import OnTarget, check_target, died, runs_again
from pytest_llmchaos.model import Fidelity, Lifetime, Proof, Undo

if TYPE_CHECKING:
    from pytest_llmchaos.model import Fault


@dataclass(frozen=True, kw_only=True)
class Restart:
    kind: str = "restart"
    needs: frozenset[str] = frozenset({"restart", "start", "events"})
    lifetime: Lifetime = "lasting"
    fidelity: Fidelity = "real"
    expects: str = "process_start_time_seconds resets; a short error burst"

    def inject(self, runtime: Any, victim: str) -> None:
        runtime.restart(victim)

    def undo(self, victim: str) -> Undo:
        return Undo(op="ensure_running", service=victim)

    def observed(self, runtime: Any, victim: str, since_unix_s: float) -> Proof | None:
        return died(runtime, victim, since_unix_s)

    def healed(self, runtime: Any, victim: str, since_unix_s: float) -> Proof | None:
        return runs_again(runtime, victim, since_unix_s)


def restart(target: str) -> Fault:
    """Restart a service's container at once (no grace)."""
    return OnTarget(primitive=Restart(), target=check_target("restart", target))
