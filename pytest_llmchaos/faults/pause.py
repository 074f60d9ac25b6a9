"""Freeze a container: it accepts connections and never answers. SIGSTOP's big brother, the cgroup freezer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_llmchaos.faults.base import OnTarget, check_target, event_proof, first_event
from pytest_llmchaos.model import Fidelity, Lifetime, Proof, Undo

if TYPE_CHECKING:
    from pytest_llmchaos.model import Fault


@dataclass(frozen=True, kw_only=True)
class Pause:
    kind: str = "pause"
    needs: frozenset[str] = frozenset({"pause", "unpause", "events"})
    lifetime: Lifetime = "passing"
    fidelity: Fidelity = "real"
    expects: str = "scrapes time out, requests hang, no connection is refused"

    def inject(self, runtime: Any, victim: str) -> None:
        runtime.pause(victim)

    def undo(self, victim: str) -> Undo:
        return Undo(op="ensure_unpaused", service=victim)

    def observed(self, runtime: Any, victim: str, since_unix_s: float) -> Proof | None:
        return event_proof(
            "injected", first_event(runtime.events(since_unix_s, float("inf")), victim, frozenset({"pause"}))
        )

    def healed(self, runtime: Any, victim: str, since_unix_s: float) -> Proof | None:
        state = runtime.state(victim)
        if state.paused or not state.running:
            return None
        event = first_event(runtime.events(since_unix_s, float("inf")), victim, frozenset({"unpause", "start"}))
        at_rest = Proof(step="healed", witness="runtime state running, not paused", at_unix_s=state.started_unix_s)
        return event_proof("healed", event) or at_rest


def pause(target: str) -> Fault:
    """Freeze a service's container for the fault phase, then thaw it."""
    return OnTarget(primitive=Pause(), target=check_target("pause", target))
