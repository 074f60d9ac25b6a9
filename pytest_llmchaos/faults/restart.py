"""Forced restart of a container, as by a deploy or an operator."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pytest_llmchaos.faults.base import ActFault
from pytest_llmchaos.faults.compositions import Target, on_targets

if TYPE_CHECKING:
    from pytest_llmchaos.model import CanRestart, Fault


class Restart(ActFault):
    """A restart without a grace period. The container comes back by itself."""

    kind: ClassVar[str] = "restart"
    needs: ClassVar[frozenset[str]] = frozenset({"restart", "start", "events"})
    expects: ClassVar[str] = "process_start_time_seconds resets; a short error burst"

    def inject(self, runtime: CanRestart, victim: str) -> None:
        runtime.restart(victim)


def restart(target: Target) -> Fault:
    """Restart a service's container at once, without a grace period.

    Requests in flight are lost. The container comes back by itself.

    - Ends: when the container runs again (`lasting`).
    - Fidelity: `real`.
    - Expected signal: `process_start_time_seconds` resets, with a short burst of
      errors.

    Args:
        target: Service name, `model-*` for one service drawn by the seed, or a list of
            these. All services of a list are hit at once.

    Returns:
        A fault for `experiment(fault=...)` and `lab.inject`.

    Raises:
        BadScenario: `target` is not a service name or pattern.
    """
    return on_targets(Restart(), target)
