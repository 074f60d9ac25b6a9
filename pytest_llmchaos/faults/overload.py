"""More requests than a service can serve, from further clients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.faults.compositions import Target, on_targets
from pytest_llmchaos.model import Fidelity, Lifetime, Proof, Undo

if TYPE_CHECKING:
    from pytest_llmchaos.model import CanOverload, Fault


@dataclass(frozen=True, kw_only=True)
class Overload:
    """An open loop of further clients, next to the ones that are judged.

    Attributes:
        times: Multiple of the backend's peak throughput that is offered.
        max_tokens: Length of each answer, in tokens.
    """

    kind: ClassVar[str] = "overload"
    needs: ClassVar[frozenset[str]] = frozenset({"overload"})
    lifetime: ClassVar[Lifetime] = "passing"
    fidelity: ClassVar[Fidelity] = "real"
    expects: ClassVar[str] = (
        "queue depth rises, 429 and 503 are given; QueueBacklog or a burn alert fires; nothing is restarted"
    )
    # A queue has to grow and to be scraped, on a user's own stack through rules.
    proof_within_s: ClassVar[float] = 10.0
    times: float
    max_tokens: int

    def inject(self, runtime: CanOverload, victim: str) -> None:
        runtime.overload(victim, self.times, self.max_tokens)

    def undo(self, victim: str) -> Undo:
        return Undo(op="stop_overload", service=victim)

    def observed(self, runtime: CanOverload, victim: str, since_unix_s: float) -> Proof | None:
        return runtime.overload_seen(victim, since_unix_s)

    def counted(self, runtime: CanOverload, victim: str) -> str:
        return runtime.overload_report(victim)

    def healed(self, runtime: CanOverload, victim: str, since_unix_s: float) -> Proof | None:  # noqa: ARG002 - the protocol's
        return runtime.overload_gone(victim)


def overload(target: Target = "api", *, times: float = 2.5, max_tokens: int = 64) -> Fault:
    """Offer a multiple of the backend's peak throughput to a service.

    Further clients send it in an open loop, on top of the trial's own load. Only the
    trial's own clients are judged. The further ones send none of the load's `headers`.

    The flood is proven once more requests wait than before it, at the lab's gateway or
    at your engines. A flood that is served is an error, which names the tokens per
    second that the engines generate.

    - Ends: after `fault_s` (`passing`).
    - Fidelity: `real`.
    - Expected signal: the queue grows, the service answers 429 and 503. `QueueBacklog`
      or a burn alert fires. Nothing is restarted.

    Args:
        target: Service name (default `api`), `model-*` for one service drawn by the
            seed, or a list of these. All services of a list are hit at once.
        times: Multiple of the backend's peak tokens per second, above 1, at most 10.
            The peak is a number per backend in the lab, and `llmchaos_tokens_per_s` on
            your own stack. The default of 2.5 exceeds the real peak even if that is
            twice the declared one.
        max_tokens: Length of each answer, in tokens, 1 to 4096.

    Returns:
        A fault for `experiment(fault=...)` and `lab.inject`.

    Raises:
        BadScenario: `target` is not a service name or pattern, `times` or `max_tokens`
            is out of bounds.
    """
    factor = _factor(times)
    if type(max_tokens) is not int or not 1 <= max_tokens <= 4096:
        raise BadScenario(f"faults.overload(max_tokens=...) must be a whole number from 1 to 4096, got {max_tokens!r}")
    return on_targets(Overload(times=factor, max_tokens=max_tokens), target)


def _factor(times: object) -> float:
    if not isinstance(times, int | float) or not 1 < times <= 10:
        raise BadScenario(f"faults.overload(times=...) must be above 1 and at most 10, got {times!r}")
    return float(times)
