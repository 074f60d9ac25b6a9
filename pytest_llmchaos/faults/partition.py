"""Loss of every network of a service, or of the connections to its port."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pytest_llmchaos.faults.base import RestrictionFault
from pytest_llmchaos.faults.compositions import Target, on_targets
from pytest_llmchaos.faults.option_checks import check_choice
from pytest_llmchaos.faults.wire_faults import WireFault

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


@dataclass(frozen=True, kw_only=True)
class PartitionByAgent(WireFault):
    """Connections to a service that the fault agent drops or rejects.

    Attributes:
        how: `drop` or `reject`.
    """

    kind: ClassVar[str] = "partition"
    expects: ClassVar[str] = Partition.expects
    counts: ClassVar[str] = "connections"
    how: str

    @property
    def agent_kind(self) -> str:
        return {"drop": "black_hole", "reject": "reject"}[self.how]

    @property
    def strength(self) -> Mapping[str, object]:
        return {"how": self.how}


def partition(target: Target, *, how: str | None = None) -> Fault:
    """Cut a service off from the others.

    By default its container leaves all its networks: pooled connections are cut, its
    name no longer resolves, and it reaches no other service. The revert connects it
    again under the same names.

    With `how` the fault agent cuts the connections to its port, open ones included. So
    it also works where the network's own disconnect cannot.

    - Ends: after `fault_s` (`passing`).
    - Fidelity: `kernel`. With `how` it is `proxy`.
    - Expected signal: connects fail or hang, requests in flight time out, `up == 0` or
      a failing health probe.

    Args:
        target: Service name, `model-*` for one service drawn by the seed, or a list of
            these. All services of a list are hit at once.
        how: `drop` lets connections hang, as a firewall that discards packets does.
            `reject` resets open connections and refuses new ones. None disconnects the
            networks.

    Returns:
        A fault for `experiment(fault=...)` and `lab.inject`.

    Raises:
        BadScenario: `target` is not a service name or pattern, or `how` is not one of
            the three.
    """
    if how is None:
        return on_targets(Partition(), target)
    return on_targets(PartitionByAgent(how=check_choice("partition(how=...)", how, ("drop", "reject"))), target)
