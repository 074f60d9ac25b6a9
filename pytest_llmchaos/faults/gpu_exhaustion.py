"""The GPU's memory runs out: of the device, which kills the engine, or of the KV cache, which makes requests wait."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmchaos.faults.engine_faults import EngineDeath, EngineFault, check_choice, check_number, on_engine

if TYPE_CHECKING:
    from pytest_llmchaos.model import Fault


def gpu_exhaustion(target: str, *, what: str = "device_memory", ratio: float = 0.999) -> Fault:
    """Take the GPU's memory away.

    `device_memory`: CUDA out of memory; requests in flight fail, the engine exits, and the system must bring it back.
    `kv_cache`: `ratio` of the cache's blocks are gone for the fault phase; requests are preempted and wait, none is lost.
    """
    chosen = check_choice("gpu_exhaustion(what=...)", what, ("device_memory", "kv_cache"))
    gone = check_number("gpu_exhaustion(ratio=...)", ratio, above=0, at_most=1)
    if chosen == "device_memory":
        death = EngineDeath(
            kind="gpu_exhaustion",
            expects="requests in flight fail, the process exits with 1; ServiceDown fires",
            options=(("what", chosen), ("then", "die")),
        )
        return on_engine(death, target)
    fault = EngineFault(
        kind="gpu_exhaustion",
        lifetime="passing",
        expects="the KV cache is full, requests wait or are preempted; KvCacheFull fires; nothing is restarted",
        options=(("what", chosen), ("ratio", gone)),
        witness=f'vllm:kv_cache_usage_perc{{service="{{victim}}"}} >= {0.99 * gone:g}',
    )
    return on_engine(fault, target)
