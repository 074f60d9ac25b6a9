"""Cut a service off from every network: no packet in or out, no pooled connection that lives on, names that resolve to nobody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_llmchaos.faults.base import OnTarget, check_target
from pytest_llmchaos.model import Fidelity, Lifetime, Proof, Undo

if TYPE_CHECKING:
    from pytest_llmchaos.model import Fault


@dataclass(frozen=True, kw_only=True)
class Partition:
    kind: str = "partition"
    needs: frozenset[str] = frozenset({"partition", "events"})
    lifetime: Lifetime = "passing"
    fidelity: Fidelity = "kernel"
    expects: str = "connects fail or hang, requests in flight time out; up == 0 or a failing health probe"

    def inject(self, runtime: Any, victim: str) -> None:
        runtime.partition(victim)

    def undo(self, victim: str) -> Undo:
        return Undo(op="ensure_connected", service=victim)

    def observed(self, runtime: Any, victim: str, since_unix_s: float) -> Proof | None:
        seen: Proof | None = runtime.restricted("partition", victim, since_unix_s)
        return seen

    def healed(self, runtime: Any, victim: str, since_unix_s: float) -> Proof | None:  # noqa: ARG002 - the protocol's signature
        gone: Proof | None = runtime.released("partition", victim)
        return gone


def partition(target: str) -> Fault:
    """Take a service off all its networks for the fault phase, then connect it again under the same names."""
    return OnTarget(primitive=Partition(), target=check_target("partition", target))
