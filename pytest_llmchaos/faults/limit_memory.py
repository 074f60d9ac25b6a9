"""Give a service less memory: it reclaims, slows down, and dies by the OOM killer when it needs more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.faults.base import RestrictionFault
from pytest_llmchaos.faults.compositions import Target, on_targets

if TYPE_CHECKING:
    from pytest_llmchaos.model import CanLimitMemory, Fault


@dataclass(frozen=True, kw_only=True)
class LimitMemory(RestrictionFault):
    """An engine on cgroup v1 refuses a limit below what is in use; on v2 the OOM killer answers it.

    Processes without a container are limited one by one, and refused what they ask for beyond it: nobody kills them.
    """

    kind: ClassVar[str] = "limit_memory"
    needs: ClassVar[frozenset[str]] = frozenset({"limit_memory", "events"})
    expects: ClassVar[str] = "memory near its limit, latency grows; when it needs more an OOM kill (137), or a refusal"
    undo_op: ClassVar[str] = "ensure_memory"
    mebibytes: int

    @property
    def amount(self) -> float:
        return self.mebibytes

    def inject(self, runtime: CanLimitMemory, victim: str) -> None:
        runtime.limit_memory(victim, self.mebibytes)


def limit_memory(target: Target, *, mebibytes: int) -> Fault:
    """Allow a service this much memory, without swap, for the fault phase, then what it had."""
    if type(mebibytes) is not int or not 6 <= mebibytes <= 2**24:
        raise BadScenario(
            f"faults.limit_memory(mebibytes=...) must be a whole number from 6 (the engine's least) to {2**24}, got {mebibytes!r}"
        )
    return on_targets(LimitMemory(mebibytes=mebibytes), target)
