"""Make a service's own process die, as a bug or the OOM killer does. A restart policy, where there is one, answers this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_llmchaos.faults.base import OnTarget, check_target, event_proof, first_event
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
        return event_proof(
            "injected", first_event(runtime.events(since_unix_s, float("inf")), victim, frozenset({"die"}))
        )

    def healed(self, runtime: Any, victim: str, since_unix_s: float) -> Proof | None:
        state = runtime.state(victim)
        if not state.running or state.paused or state.started_unix_s < since_unix_s:
            return None
        return Proof(step="healed", witness="runtime state running", at_unix_s=state.started_unix_s)


def crash(target: str) -> Fault:
    """Kill the service's main process from outside the engine, so that the engine sees it die by itself."""
    return OnTarget(primitive=Crash(), target=check_target("crash", target))
