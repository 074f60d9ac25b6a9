"""Cut a service off from every network: no packet in or out, no pooled connection that lives on, names that resolve to nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pytest_llmchaos.faults.base import RestrictionFault
from pytest_llmchaos.faults.compositions import Target, on_targets

if TYPE_CHECKING:
    from pytest_llmchaos.model import CanPartition, Fault


class Partition(RestrictionFault):
    kind: ClassVar[str] = "partition"
    needs: ClassVar[frozenset[str]] = frozenset({"partition", "events"})
    expects: ClassVar[str] = "connects fail or hang, requests in flight time out; up == 0 or a failing health probe"
    undo_op: ClassVar[str] = "ensure_connected"

    def inject(self, runtime: CanPartition, victim: str) -> None:
        runtime.partition(victim)


def partition(target: Target) -> Fault:
    """Take a service off all its networks for the fault phase, then connect it again under the same names."""
    return on_targets(Partition(), target)
