"""Stop a container as a deploy or a drained node does: SIGTERM, a grace period, then SIGKILL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pytest_llmchaos.faults.base import ActFault, first_event
from pytest_llmchaos.faults.compositions import Target, on_targets
from pytest_llmchaos.faults.engine_faults import check_whole
from pytest_llmchaos.model import Proof, Undo

if TYPE_CHECKING:
    from pytest_llmchaos.model import CanStop, Fault, HasEvents

GRACE_S = 10  # Docker's own default (`docker stop`)
LONGEST_GRACE_S = 60


@dataclass(frozen=True, kw_only=True)
class Stop(ActFault):
    kind: ClassVar[str] = "stop"
    needs: ClassVar[frozenset[str]] = frozenset({"stop", "start", "events"})
    expects: ClassVar[str] = "streams under way end whole or with an error, new ones go elsewhere; ServiceDown fires"
    grace_s: int = GRACE_S

    def inject(self, runtime: CanStop, victim: str) -> None:
        runtime.stop(victim, self.grace_s)

    def undo(self, victim: str) -> Undo:
        """The grace stands in the journal: a process that undoes it after a crash must not come before the stop's end."""
        return Undo(op="ensure_running", service=victim, args={"grace_s": self.grace_s})

    def observed(self, runtime: HasEvents, victim: str, since_unix_s: float) -> Proof | None:
        """The fault begins with SIGTERM, and is proven by the death after it."""
        events = runtime.events(since_unix_s, float("inf"))
        asked = first_event(events, victim, frozenset({"kill"}), signal="15")
        died = first_event(events, victim, frozenset({"die"}))
        if asked is None or died is None:
            return None
        took_s = max(0.0, died.at_unix_s - asked.at_unix_s)
        code = died.attributes.get("exitCode", "unknown")
        witness = f"runtime events kill signal=15, then die exitCode={code} after {took_s:.2f} s"
        return Proof(step="injected", witness=witness, at_unix_s=asked.at_unix_s)


def stop(target: Target, *, grace_s: int = GRACE_S) -> Fault:
    """Stop a service's container: SIGTERM, and SIGKILL where it still runs after `grace_s` whole seconds (1 to 60).

    It stays down until the remediator or an operator starts it.
    """
    return on_targets(
        Stop(grace_s=check_whole("stop(grace_s=...)", grace_s, at_least=1, at_most=LONGEST_GRACE_S)), target
    )
