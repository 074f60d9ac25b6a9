"""SIGTERM, a grace period, then SIGKILL, as a deploy or a drained node sends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pytest_llmchaos.faults.base import ActFault, first_event
from pytest_llmchaos.faults.compositions import Target, on_targets
from pytest_llmchaos.faults.option_checks import check_whole
from pytest_llmchaos.model import Proof, Undo

if TYPE_CHECKING:
    from pytest_llmchaos.model import CanStop, Fault, HasEvents

GRACE_S = 10  # Docker's own default (`docker stop`)
LONGEST_GRACE_S = 60


@dataclass(frozen=True, kw_only=True)
class Stop(ActFault):
    """A stop with a grace period.

    Attributes:
        grace_s: Seconds from SIGTERM to SIGKILL.
    """

    kind: ClassVar[str] = "stop"
    needs: ClassVar[frozenset[str]] = frozenset({"stop", "start", "events"})
    expects: ClassVar[str] = "streams under way end whole or with an error, new ones go elsewhere; ServiceDown fires"
    grace_s: int = GRACE_S

    def inject(self, runtime: CanStop, victim: str) -> None:
        runtime.stop(victim, self.grace_s)

    def undo(self, victim: str) -> Undo:
        """Return the `Undo` with `grace_s`, for which a later process waits."""
        return Undo(op="ensure_running", service=victim, args={"grace_s": self.grace_s})

    def observed(self, runtime: HasEvents, victim: str, since_unix_s: float) -> Proof | None:
        """Prove the stop by SIGTERM, at which it begins, and the death."""
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
    """Stop a service's container: SIGTERM, then SIGKILL after a grace period.

    The service stays down until the remediator or an operator starts it.

    - Ends: when the system repairs it (`lasting`).
    - Fidelity: `real`.
    - Expected signal: streams in flight end whole or with an error, new ones go
      elsewhere. In the lab `ServiceDown` fires.

    Args:
        target: Service name, `model-*` for one service drawn by the seed, or a list of
            these. All services of a list are hit at once.
        grace_s: Whole seconds from SIGTERM to SIGKILL, 1 to 60. The default is Docker's
            own, 10 (`docker stop`).

    Returns:
        A fault for `experiment(fault=...)` and `lab.inject`.

    Raises:
        BadScenario: `target` is not a service name or pattern, or `grace_s` is out of
            bounds.
    """
    return on_targets(
        Stop(grace_s=check_whole("stop(grace_s=...)", grace_s, at_least=1, at_most=LONGEST_GRACE_S)), target
    )
