"""Less processor time for a service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.faults.base import RestrictionFault
from pytest_llmchaos.faults.compositions import Target, on_targets

if TYPE_CHECKING:
    from pytest_llmchaos.model import CanLimitCpu, Fault


@dataclass(frozen=True, kw_only=True)
class LimitCpu(RestrictionFault):
    """A limit of processor time, enforced by the kernel.

    Attributes:
        cores: Cores that the service may use. 0.1 is a tenth of one.
    """

    kind: ClassVar[str] = "limit_cpu"
    needs: ClassVar[frozenset[str]] = frozenset({"limit_cpu", "events"})
    expects: ClassVar[str] = "time to first token and gaps between tokens grow; nothing is restarted"
    undo_op: ClassVar[str] = "ensure_cpu"
    cores: float

    @property
    def amount(self) -> float:
        return self.cores

    def inject(self, runtime: CanLimitCpu, victim: str) -> None:
        runtime.limit_cpu(victim, self.cores)


def limit_cpu(target: Target, *, cores: float) -> Fault:
    """Limit the processor time of a service.

    The kernel throttles it, so everything it does takes longer. The revert restores the
    limit it had.

    - Ends: after `fault_s` (`passing`).
    - Fidelity: `kernel`.
    - Expected signal: time to first token and gaps between tokens grow. Nothing is
      restarted.

    Args:
        target: Service name, `model-*` for one service drawn by the seed, or a list of
            these. All services of a list are hit at once.
        cores: Cores that the service may use, 0.01 to 1024. 0.1 is a tenth of one.

    Returns:
        A fault for `experiment(fault=...)` and `lab.inject`.

    Raises:
        BadScenario: `target` is not a service name or pattern, or `cores` is out of
            bounds.
    """
    return on_targets(LimitCpu(cores=_share(cores)), target)


def _share(cores: object) -> float:
    if isinstance(cores, bool) or not isinstance(cores, int | float) or not 0.01 <= cores <= 1024:
        raise BadScenario(f"faults.limit_cpu(cores=...) must be a number from 0.01 to 1024, got {cores!r}")
    return float(cores)
