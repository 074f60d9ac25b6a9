"""The GPU's memory runs out: of the device, which kills the engine, or of the KV cache, which makes requests wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pytest_llmchaos.faults.compositions import Target, on_targets
from pytest_llmchaos.faults.engine_faults import EngineDeath, EngineFault, check_choice, check_number

if TYPE_CHECKING:
    from pytest_llmchaos.model import Fault, Lifetime


class OutOfDeviceMemory(EngineDeath):
    kind: ClassVar[str] = "gpu_exhaustion"


class OutOfKvCache(EngineFault):
    kind: ClassVar[str] = "gpu_exhaustion"
    lifetime: ClassVar[Lifetime] = "passing"
    expects: ClassVar[str] = (
        "the KV cache is full, requests wait or are preempted; KvCacheFull fires; nothing is restarted"
    )

    def witness(self, victim: str) -> str:
        return f'vllm:kv_cache_usage_perc{{service="{victim}"}} >= {0.99 * self.number("ratio"):g}'


def gpu_exhaustion(target: Target, *, what: str = "device_memory", ratio: float = 0.999) -> Fault:
    """Take the GPU's memory away.

    `device_memory`: CUDA out of memory; requests in flight fail, the engine exits, and the system must bring it back.
    `kv_cache`: `ratio` of the cache's blocks are gone for the fault phase; requests are preempted and wait, none is lost.
    """
    chosen = check_choice("gpu_exhaustion(what=...)", what, ("device_memory", "kv_cache"))
    gone = check_number("gpu_exhaustion(ratio=...)", ratio, above=0, at_most=1)
    if chosen == "device_memory":
        return on_targets(OutOfDeviceMemory(options=(("what", chosen), ("then", "die"))), target)
    return on_targets(OutOfKvCache(options=(("what", chosen), ("ratio", gone))), target)
