"""A neighbour that takes a share of the GPU's time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from lab_common.values import require
from lab_engine.faults.base import Fault, register

if TYPE_CHECKING:
    from lab_engine.effects import Effects


@register
@dataclass(frozen=True, kw_only=True, slots=True)
class Saturation(Fault):
    """Every step takes 1 / (1 - share) as long."""

    kind: ClassVar[str] = "gpu_saturation"
    share: float = 0.8

    def __post_init__(self) -> None:
        require("share", self.share, above=0, at_most=0.99)

    def effects(self, others: Effects) -> Effects:
        return replace(others, slowdown=others.slowdown / (1 - self.share), neighbour_share=self.share)
