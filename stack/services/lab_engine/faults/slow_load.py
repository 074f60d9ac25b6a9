"""Slow loading of the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lab_common.values import require, require_one_of
from lab_engine.faults.base import LONGEST_LEASE_S, Fault, Struck, register

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable


@register
@dataclass(frozen=True, kw_only=True, slots=True)
class SlowLoad(Fault):
    """Slow loading at once, after dropping the model, or at starts within the lease."""

    kind: ClassVar[str] = "slow_load"
    load_s: float = 60.0
    when: str = "now"

    def __post_init__(self) -> None:
        require("load_s", self.load_s, above=0, at_most=LONGEST_LEASE_S)
        require_one_of("when", self.when, ("now", "next_start"))

    @property
    def at_boot(self) -> bool:
        return self.when == "next_start"

    def strike(self, engine: Struck, counters: Counter[str]) -> Callable[[], None]:
        if self.when == "now":
            counters["requests_failed"] += engine.drop_model(self.load_s)
        return engine.restore_load_time

    def boot(self) -> float:
        return self.load_s
