"""Exhausted memory, of the KV cache or of the device."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from lab_common.values import require, require_one_of
from lab_engine.faults.base import Fault, Struck, register
from lab_engine.log import log

if TYPE_CHECKING:
    from collections import Counter

    from lab_engine.effects import Effects


@register
@dataclass(frozen=True, kw_only=True, slots=True)
class Exhaustion(Fault):
    """Without KV cache the engine preempts and queues. Without device memory it dies.

    `then` and `linger_s` are for device memory. The process exits after `linger_s`
    seconds, or the engine reloads its model once the lease has ended, and with it the
    neighbour that holds the memory.
    """

    kind: ClassVar[str] = "gpu_exhaustion"
    refuses: ClassVar[bool] = True
    what: str = "kv_cache"
    ratio: float = 0.95  # of the KV blocks
    then: str = "die"
    linger_s: float = 0.5

    def __post_init__(self) -> None:
        require_one_of("what", self.what, ("kv_cache", "device_memory"))
        require_one_of("then", self.then, ("die", "recover"))
        require("ratio", self.ratio, above=0, at_most=1)
        require("linger_s", self.linger_s, at_most=60)

    def effects(self, others: Effects) -> Effects:
        if self.what == "kv_cache":
            return replace(others, withheld_ratio=self.ratio)
        return replace(others, memory_taken=True)

    def strike(self, engine: Struck, counters: Counter[str]) -> None:
        if self.what != "device_memory":
            return
        message = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 0 bytes free."
        log("torch.OutOfMemoryError", message=message)
        failed = engine.end_process(self.linger_s) if self.then == "die" else engine.crash_and_load()
        counters["requests_failed"] += failed
