"""A frozen container (cgroup freezer): it accepts connections and never answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pytest_llmchaos.faults.base import event_proof, first_event
from pytest_llmchaos.faults.compositions import Target, on_targets
from pytest_llmchaos.model import Fidelity, Lifetime, Proof, Undo

if TYPE_CHECKING:
    from pytest_llmchaos.model import CanPause, Fault, HasEvents, Runtime


@dataclass(frozen=True)
class Pause:
    """A freeze of all processes of a container."""

    kind: ClassVar[str] = "pause"
    needs: ClassVar[frozenset[str]] = frozenset({"pause", "unpause", "events"})
    lifetime: ClassVar[Lifetime] = "passing"
    fidelity: ClassVar[Fidelity] = "real"
    expects: ClassVar[str] = "scrapes time out, requests hang, no connection is refused"

    def inject(self, runtime: CanPause, victim: str) -> None:
        runtime.pause(victim)

    def undo(self, victim: str) -> Undo:
        return Undo(op="ensure_unpaused", service=victim)

    def observed(self, runtime: HasEvents, victim: str, since_unix_s: float) -> Proof | None:
        return event_proof(
            "injected", first_event(runtime.events(since_unix_s, float("inf")), victim, frozenset({"pause"}))
        )

    def healed(self, runtime: Runtime, victim: str, since_unix_s: float) -> Proof | None:
        state = runtime.state(victim)
        if state.paused or not state.running:
            return None
        event = first_event(runtime.events(since_unix_s, float("inf")), victim, frozenset({"unpause", "start"}))
        at_rest = Proof(step="healed", witness="runtime state running, not paused", at_unix_s=state.started_unix_s)
        return event_proof("healed", event) or at_rest


def pause(target: Target) -> Fault:
    """Freeze a service's container.

    The kernel still accepts connections for it, and no answer comes.

    - Ends: after `fault_s` (`passing`).
    - Fidelity: `real`.
    - Expected signal: scrapes time out, requests hang, no connection is refused.

    Args:
        target: Service name, `model-*` for one service drawn by the seed, or a list of
            these. All services of a list are hit at once.

    Returns:
        A fault for `experiment(fault=...)` and `lab.inject`.

    Raises:
        BadScenario: `target` is not a service name or pattern.
    """
    return on_targets(Pause(), target)
