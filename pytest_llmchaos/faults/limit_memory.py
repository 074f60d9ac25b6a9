"""Give a service less memory: it reclaims, slows down, and dies by the OOM killer when it needs more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.faults.base import OnTarget, check_target
from pytest_llmchaos.model import Fidelity, Lifetime, Proof, Undo

if TYPE_CHECKING:
    from pytest_llmchaos.model import Fault


@dataclass(frozen=True, kw_only=True)
class LimitMemory:
    """An engine on cgroup v1 refuses a limit below what is in use; on v2 the OOM killer answers it.

    Processes without a container are limited one by one, and refused what they ask for beyond it: nobody kills them.
    """

    mebibytes: int
    kind: str = "limit_memory"
    needs: frozenset[str] = frozenset({"limit_memory", "events"})
    lifetime: Lifetime = "passing"
    fidelity: Fidelity = "kernel"
    expects: str = "memory near its limit, latency grows; when it needs more an OOM kill (137), or a refusal"

    def inject(self, runtime: Any, victim: str) -> None:
        runtime.limit_memory(victim, self.mebibytes)

    def undo(self, victim: str) -> Undo:
        return Undo(op="ensure_memory", service=victim)

    def observed(self, runtime: Any, victim: str, since_unix_s: float) -> Proof | None:
        seen: Proof | None = runtime.restricted("limit_memory", victim, since_unix_s, self.mebibytes)
        return seen

    def healed(self, runtime: Any, victim: str, since_unix_s: float) -> Proof | None:  # noqa: ARG002 - the protocol's signature
        gone: Proof | None = runtime.released("limit_memory", victim)
        return gone


def limit_memory(target: str, *, mebibytes: int) -> Fault:
    """Allow a service this much memory, without swap, for the fault phase, then what it had."""
    if type(mebibytes) is not int or not 6 <= mebibytes <= 2**24:
        raise BadScenario(
            f"faults.limit_memory(mebibytes=...) must be a whole number from 6 (the engine's least) to {2**24}, got {mebibytes!r}"
        )
    return OnTarget(primitive=LimitMemory(mebibytes=mebibytes), target=check_target("limit_memory", target))
