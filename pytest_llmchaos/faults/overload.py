"""Flood a service with more requests than it can serve: an open loop of further callers, beside the ones that are judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.faults.base import OnTarget, check_target
from pytest_llmchaos.model import Fidelity, Lifetime, Proof, Undo

if TYPE_CHECKING:
    from pytest_llmchaos.model import Fault


@dataclass(frozen=True, kw_only=True)
class Overload:
    """`times` the most that the backend serves, in answers of `max_tokens`."""

    times: float
    max_tokens: int
    kind: str = "overload"
    needs: frozenset[str] = frozenset({"overload"})
    lifetime: Lifetime = "passing"
    fidelity: Fidelity = "real"
    expects: str = "queue depth rises, 429 and 503 are given; QueueBacklog or a burn alert fires; nothing is restarted"

    def inject(self, runtime: Any, victim: str) -> None:
        runtime.overload(victim, self.times, self.max_tokens)

    def undo(self, victim: str) -> Undo:
        return Undo(op="stop_overload", service=victim)

    def observed(self, runtime: Any, victim: str, since_unix_s: float) -> Proof | None:
        seen: Proof | None = runtime.overload_seen(victim, since_unix_s)
        return seen

    def healed(self, runtime: Any, victim: str, since_unix_s: float) -> Proof | None:  # noqa: ARG002 - the protocol's
        gone: Proof | None = runtime.overload_gone(victim)
        return gone


def overload(target: str = "api", *, times: float = 2.5, max_tokens: int = 64) -> Fault:
    """Offer `times` the most that the backend serves to a service, on top of the trial's own load."""
    factor = _factor(times)
    if type(max_tokens) is not int or not 1 <= max_tokens <= 4096:
        raise BadScenario(f"faults.overload(max_tokens=...) must be a whole number from 1 to 4096, got {max_tokens!r}")
    return OnTarget(primitive=Overload(times=factor, max_tokens=max_tokens), target=check_target("overload", target))


def _factor(times: object) -> float:
    if isinstance(times, bool) or not isinstance(times, int | float) or not 1 < float(times) <= 10:
        raise BadScenario(f"faults.overload(times=...) must be above 1 and at most 10, got {times!r}")
    return float(times)
