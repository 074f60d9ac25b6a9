"""The control arm: no fault."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from pytest_llmchaos.model import Fidelity, Injection, Lifetime

if TYPE_CHECKING:
    from pytest_llmchaos.model import Fault


@dataclass(frozen=True)
class NoFault:
    """A fault without acts. The trial must show no alert and no action."""

    target: ClassVar[str] = ""
    needs: ClassVar[frozenset[str]] = frozenset()
    lifetime: ClassVar[Lifetime] = "none"
    fidelity: ClassVar[Fidelity] = "real"
    expects: ClassVar[str] = "nothing"
    blast_radius: ClassVar[int] = 0
    last_act_s: ClassVar[float] = 0.0
    strength: ClassVar[Mapping[str, object]] = MappingProxyType({})

    def __str__(self) -> str:
        return "none"

    def named_by(self, options: Sequence[str]) -> NoFault:  # noqa: ARG002 - the protocol's signature
        return self

    def with_lease(self, for_s: float) -> NoFault:  # noqa: ARG002 - the protocol's signature
        return self

    def plan(self, rng: Random, services: Sequence[str]) -> tuple[Injection, ...]:  # noqa: ARG002 - the protocol's signature
        return ()


def none() -> Fault:
    """Return the control arm: the same load and phases without a fault.

    - Ends: after `fault_s` or `stable_s`, whichever is longer.
    - Fidelity: `real`.
    - Expected signal: none. Alerts and remediator actions in it refute claims.

    Returns:
        A fault for `experiment(fault=...)`.
    """
    return NoFault()
