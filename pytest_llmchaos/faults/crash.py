"""Make a service's own process die, as a bug or the OOM killer does. A restart policy, where there is one, answers this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_llmchaos.faults.base import OnTarget, check_target, died, runs_again
from pytest_llmchaos.model import Fidelity, Lifetime, Proof, Undo

if TYPE_CHECKING:
    from pytest_llmchaos.model import Fault


@dataclass(frozen=True, kw_only=True)
class Crash:
    kind: str = "crash"
    needs: frozenset[str] = frozenset({"crash", "start", "events"})
    lifetime: Lifetime = "lasting"
    fidelity: Fidelity = "real"
    expects: str = "up == 0 or a failing health probe; ServiceDown fires"

    def inject(self, runtime: Any, victim: str) -> None:
        runtime.crash(victim)

    def undo(self, victim: str) -> Undo:
        return Undo(op="ensure_running", service=victim)

    def observed(self, runtime: Any, victim: str, since_unix_s: float) -> Proof | None:
        return died(runtime, victim, since_unix_s)

    def healed(self, runtime: Any, victim: str, since_unix_s: float) -> Proof | None:
        return runs_again(runtime, victim, since_unix_s)


def crash(target: str) -> Fault:
    """Kill the service's main process from outside the engine, so that the engine sees it die by itself."""
    return OnTarget(primitive=Crash(), target=check_target("crash", target))
