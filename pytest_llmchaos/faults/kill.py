"""SIGKILL to a container, as an operator sends it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pytest_llmchaos.faults.base import ActFault
from pytest_llmchaos.faults.compositions import Target, on_targets
from pytest_llmchaos.faults.timed import at_message

if TYPE_CHECKING:
    from pytest_llmchaos.model import CanKill, Fault


class Kill(ActFault):
    """SIGKILL through the runtime. A restart policy does not answer it."""

    kind: ClassVar[str] = "kill"
    needs: ClassVar[frozenset[str]] = frozenset({"kill", "start", "events"})
    exit_code: ClassVar[str] = "137"

    def inject(self, runtime: CanKill, victim: str) -> None:
        runtime.kill(victim)


def kill(target: Target, *, at: str | None = None, on: str | None = None, within_s: float = 30.0) -> Fault:
    """Kill a service's container with SIGKILL.

    Docker treats the kill as intended, so no restart policy answers it. The service
    stays down until the remediator or an operator starts it.

    - Ends: when the system repairs it (`lasting`).
    - Fidelity: `real`. The proof is exit status 137.
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
    return at_message(on_targets(Kill(), target), at=at, on=on, within_s=within_s)
