"""A lost GPU: answers from the CPU are right, and late."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from lab_common.values import require
from lab_engine.faults.base import Fault, register

if TYPE_CHECKING:
    from lab_engine.effects import Effects


@register
@dataclass(frozen=True, kw_only=True, slots=True)
class CpuFallback(Fault):
    """Computation on the CPU."""

    kind: ClassVar[str] = "cpu_fallback"
    slowdown: float = 20.0

    def __post_init__(self) -> None:
        require("slowdown", self.slowdown, above=1, at_most=1000)

    def effects(self, others: Effects) -> Effects:
        return replace(others, slowdown=others.slowdown * self.slowdown, on_cpu=True)
