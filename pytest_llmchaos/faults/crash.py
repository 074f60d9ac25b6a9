"""Death of a service's own process, as by a bug or the OOM killer."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pytest_llmchaos.faults.base import ActFault
from pytest_llmchaos.faults.compositions import Target, on_targets
from pytest_llmchaos.faults.timed import at_message

if TYPE_CHECKING:
    from pytest_llmchaos.model import CanCrash, Fault


class Crash(ActFault):
    """Death of the main process. A restart policy answers it if the service has one."""

    kind: ClassVar[str] = "crash"
    needs: ClassVar[frozenset[str]] = frozenset({"crash", "start", "events"})

    def inject(self, runtime: CanCrash, victim: str) -> None:
        runtime.crash(victim)


def crash(target: Target, *, at: str | None = None, on: str | None = None, within_s: float = 30.0) -> Fault:
    """Kill a service's main process, so that Docker sees it die by itself.

    A restart policy answers it, as it answers a bug or the OOM killer.

    - Ends: when the system repairs it (`lasting`).
    - Fidelity: `real`.
    - Expected signal: `up == 0` or a failing health probe. In the lab `ServiceDown`
      fires.

    Args:
        target: Service name, `model-*` for one service drawn by the seed, or a list of
            these. All services of a list are hit at once.
        at: The message at which it begins, as of `faults.timed`. None for at once.
        on: Service whose messages count, as of `faults.timed`.
        within_s: Seconds within which the message must come, as of `faults.timed`.

    Returns:
        A fault for `experiment(fault=...)` and `lab.inject`.

    Raises:
        BadScenario: `target` is not a service name or pattern, or
            `faults.timed` refuses `at`, `on` or `within_s`.
    """
    return at_message(on_targets(Crash(), target), at=at, on=on, within_s=within_s)
