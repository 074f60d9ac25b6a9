"""No fault at all: the control arm. Zero alerts and zero actions are what it must show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from pytest_llmchaos.model import Fidelity, Injection, Lifetime

if TYPE_CHECKING:
    from pytest_llmchaos.model import Fault


@dataclass(frozen=True, kw_only=True)
class NoFault:
    target: str = ""
    needs: frozenset[str] = frozenset()
    lifetime: Lifetime = "none"
    fidelity: Fidelity = "real"
    expects: str = "nothing"
    blast_radius: int = 0

    def __str__(self) -> str:
        return "none"

    def plan(self, rng: Random, services: Sequence[str]) -> tuple[Injection, ...]:  # noqa: ARG002 - the protocol's signature
        return ()


def none() -> Fault:
    """The control arm: the same load and phases, and no fault."""
    return NoFault()
