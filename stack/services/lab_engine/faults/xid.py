"""An XID error of the GPU driver."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from lab_common.values import require, require_one_of, require_whole
from lab_engine.faults.base import Fault, Struck, register
from lab_engine.log import log

if TYPE_CHECKING:
    from collections import Counter

    from lab_engine.effects import Effects

LOST_CODES = (79,)  # "GPU has fallen off the bus": the driver can no longer read from it


@register
@dataclass(frozen=True, kw_only=True, slots=True)
class Xid(Fault):
    """The engine survives it, dies of it, or answers every request with 500."""

    kind: ClassVar[str] = "xid"
    refuses: ClassVar[bool] = True
    code: int = 79
    engine: str = "dies"
    linger_s: float = 0.5

    def __post_init__(self) -> None:
        require_whole("code", self.code, at_least=1, at_most=999)
        require_one_of("engine", self.engine, ("survives", "dies", "errors"))
        require("linger_s", self.linger_s, at_most=60)

    def effects(self, others: Effects) -> Effects:
        return replace(others, xid=self.code, gpu_lost=self.code in LOST_CODES, erring=self.engine == "errors")

    def strike(self, engine: Struck, counters: Counter[str]) -> None:
        log("kernel", message=f"NVRM: Xid (PCI:0000:17:00): {self.code}, pid=1, name=python3 (simulated)")
        if self.engine == "dies":
            counters["requests_failed"] += engine.end_process(self.linger_s)
        elif self.engine == "errors":
            counters["requests_failed"] += engine.fail_in_flight()
