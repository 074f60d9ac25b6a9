"""An engine that dies at every start for a while."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Protocol

from pytest_llmchaos.faults.compositions import Target, on_targets
from pytest_llmchaos.faults.engine_faults import DeathByFault
from pytest_llmchaos.faults.leases import LEASE_S
from pytest_llmchaos.faults.option_checks import check_number
from pytest_llmchaos.model import CanReachEngine, CanRestart

if TYPE_CHECKING:
    from pytest_llmchaos.model import Fault


class RestartsEngine(CanReachEngine, CanRestart, Protocol):
    """A runtime that reaches a simulated engine and restarts it."""


class CrashOnBoot(DeathByFault):
    """A cause of death at start, such as a broken driver. One retry is not enough."""

    kind: ClassVar[str] = "crash_on_boot"
    needs: ClassVar[frozenset[str]] = frozenset({"engine", "start", "restart", "events"})
    expects: ClassVar[str] = (
        "the process exits with 1 at each start; ServiceDown fires, repairs are tried again and again with growing pauses"
    )

    @property
    def strength(self) -> Mapping[str, object]:
        return {"for_s": self.lease_s}

    def inject(self, runtime: RestartsEngine, victim: str) -> None:
        """Set the cause, then restart the engine so that it meets the cause."""
        self.start(runtime, victim)
        runtime.restart(victim)


def crash_on_boot(target: Target, *, for_s: float = 6) -> Fault:
    """Restart an engine and make every start fail for a while.

    Each start within `for_s` seconds exits with status 1, as with a broken driver or a
    missing file. One repair attempt is not enough.

    - Ends: its cause is gone after `for_s`. The system must start the engine
      again (`lasting`).
    - Fidelity: `simulated`. The victim must be a simulated engine.
    - Expected signal: the process exits with 1 at each start, repairs are retried with
      growing pauses. In the lab `ServiceDown` fires.

    Args:
        target: Service name, `model-*` for one service drawn by the seed, or a list of
            these. All services of a list are hit at once.
        for_s: Seconds during which every start fails, above 0, at most 300.

    Returns:
        A fault for `experiment(fault=...)` and `lab.inject`.

    Raises:
        BadScenario: `target` is not a service name or pattern, or `for_s` is out of
            bounds.
    """
    lease_s = check_number("crash_on_boot(for_s=...)", for_s, above=0, at_most=LEASE_S)
    return on_targets(CrashOnBoot(lease_s=lease_s), target)
