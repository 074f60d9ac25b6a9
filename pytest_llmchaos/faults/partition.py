"""Loss of every network of a service."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pytest_llmchaos.faults.base import RestrictionFault
from pytest_llmchaos.faults.compositions import Target, on_targets

if TYPE_CHECKING:
    from pytest_llmchaos.model import CanPartition, Fault


class Partition(RestrictionFault):
    """Disconnection from all networks, pooled connections included."""

    kind: ClassVar[str] = "partition"
    needs: ClassVar[frozenset[str]] = frozenset({"partition", "events"})
    expects: ClassVar[str] = "connects fail or hang, requests in flight time out; up == 0 or a failing health probe"
    undo_op: ClassVar[str] = "ensure_connected"

    def inject(self, runtime: CanPartition, victim: str) -> None:
        runtime.partition(victim)


def partition(target: Target) -> Fault:
    """Disconnect a service from all its networks.

    Pooled connections are cut too, and its name no longer resolves. The revert connects
    it again under the same names.

    - Ends: after `fault_s` (`passing`).
    - Fidelity: `kernel`.
    - Expected signal: connects fail or hang, requests in flight time out, `up == 0` or
      a failing health probe.

    Args:
        target: Service name, `model-*` for one service drawn by the seed, or a list of
            these. All services of a list are hit at once.

    Returns:
        A fault for `experiment(fault=...)` and `lab.inject`.

    Raises:
        BadScenario: `target` is not a service name or pattern.
    """
    return on_targets(Partition(), target)
