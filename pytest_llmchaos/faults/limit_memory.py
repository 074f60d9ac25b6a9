"""Less memory for a service."""

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
    """A limit of memory without swap, enforced by the kernel.

    On cgroup v1, Docker refuses a limit below what is in use. On v2 the OOM killer ends
    the service. Processes without a container are limited one by one. The kernel
    refuses them what exceeds the limit and does not kill them.

    Attributes:
        mebibytes: Memory that the service may use, in MiB.
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
    """Limit the memory of a service, without swap.

    It reclaims and slows down. A container that needs more is killed by the OOM killer
    (exit status 137). A process without a container is refused the memory. The revert
    restores the limit it had.

    - Ends: after `fault_s` (`passing`).
    - Fidelity: `kernel`.
    - Expected signal: memory near its limit, latency grows. At the limit an OOM kill or
      a refusal.

    Args:
        target: Service name, `model-*` for one service drawn by the seed, or a list of
            these. All services of a list are hit at once.
        mebibytes: Memory that the service may use, in MiB (whole number), from 6
            (Docker's minimum) to 16,777,216.

    Returns:
        A fault for `experiment(fault=...)` and `lab.inject`.

    Raises:
        BadScenario: `target` is not a service name or pattern, or `mebibytes` is out of
            bounds.
    """
    if type(mebibytes) is not int or not 6 <= mebibytes <= 2**24:
        raise BadScenario(
            f"faults.limit_memory(mebibytes=...) must be a whole number from 6 (the engine's least) to {2**24}, got {mebibytes!r}"
        )
    return on_targets(LimitMemory(mebibytes=mebibytes), target)
