"""A hot GPU with lowered clocks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from lab_common.values import require
from lab_engine.faults.base import Fault, register

if TYPE_CHECKING:
    from lab_engine.effects import Effects


@register
@dataclass(frozen=True, kw_only=True, slots=True)
class Thermal(Fault):
    """Clocks at a share of their maximum."""

    kind: ClassVar[str] = "thermal_throttling"
    clock_ratio: float = 0.5

    def __post_init__(self) -> None:
        require("clock_ratio", self.clock_ratio, above=0.05, at_most=0.99)

    def effects(self, others: Effects) -> Effects:
        return replace(others, slowdown=others.slowdown / self.clock_ratio, clock_ratio=self.clock_ratio)
