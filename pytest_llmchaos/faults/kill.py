"""Kill a container the way an operator does: SIGKILL through the engine, which no restart policy answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_llmchaos.faults.base import OnTarget, check_target, died, runs_again
from pytest_llmchaos.model import Fidelity, Lifetime, Proof, Undo

if TYPE_CHECKING:
    from pytest_llmchaos.model import Fault


@dataclass(frozen=True, kw_only=True)
class Kill:
    kind: str = "kill"
    needs: frozenset[str] = frozenset({"kill", "start", "events"})
    lifetime: Lifetime = "lasting"
    fidelity: Fidelity = "real"
    expects: str = "up == 0 or a failing health probe; ServiceDown fires"

    def inject(self, runtime: Any, victim: str) -> None:
        runtime.kill(victim)

    def undo(self, victim: str) -> Undo:
        return Undo(op="ensure_running", service=victim)

    def observed(self, runtime: Any, victim: str, since_unix_s: float) -> Proof | None:
        return died(runtime, victim, since_unix_s, exitCode="137")

    def healed(self, runtime: Any, victim: str, since_unix_s: float) -> Proof | None:
        return runs_again(runtime, victim, since_unix_s)


def kill(target: str) -> Fault:
    """Kill a service's container (SIGKILL). It stays down until somebody starts it: that is what the remediator must do."""
    return OnTarget(primitive=Kill(), target=check_target("kill", target))
