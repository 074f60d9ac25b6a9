"""Give a service less processor time: the kernel throttles it, and everything it does takes longer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.faults.base import OnTarget, check_target
from pytest_llmchaos.model import Fidelity, Lifetime, Proof, Undo

if TYPE_CHECKING:
    from pytest_llmchaos.model import Fault


@dataclass(frozen=True, kw_only=True)
class LimitCpu:
    """`cores` is a share of one core, or several."""

    cores: float
    kind: str = "limit_cpu"
    needs: frozenset[str] = frozenset({"limit_cpu", "events"})
    lifetime: Lifetime = "passing"
    fidelity: Fidelity = "kernel"
    expects: str = "time to first token and gaps between tokens grow; nothing is restarted"

    def inject(self, runtime: Any, victim: str) -> None:
        runtime.limit_cpu(victim, self.cores)

    def undo(self, victim: str) -> Undo:
        return Undo(op="ensure_cpu", service=victim)

    def observed(self, runtime: Any, victim: str, since_unix_s: float) -> Proof | None:
        seen: Proof | None = runtime.restricted("limit_cpu", victim, since_unix_s, self.cores)
        return seen

    def healed(self, runtime: Any, victim: str, since_unix_s: float) -> Proof | None:  # noqa: ARG002 - the protocol's signature
        gone: Proof | None = runtime.released("limit_cpu", victim)
        return gone


def limit_cpu(target: str, *, cores: float) -> Fault:
    """Allow a service this many cores (0.1 is a tenth of one) for the fault phase, then what it had."""
    return OnTarget(primitive=LimitCpu(cores=_share(cores)), target=check_target("limit_cpu", target))


def _share(cores: object) -> float:
    if isinstance(cores, bool) or not isinstance(cores, int | float) or not 0.01 <= float(cores) <= 1024:
        raise BadScenario(f"faults.limit_cpu(cores=...) must be a number from 0.01 to 1024, got {cores!r}")
    return float(cores)
