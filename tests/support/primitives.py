"""One fault of each kind of the catalogue."""

from __future__ import annotations

from pytest_llmchaos import faults

PRIMITIVES = [
    faults.kill("api"),
    faults.crash("api"),
    faults.stop("api"),
    faults.pause("api"),
    faults.restart("api"),
    faults.partition("api"),
    faults.limit_cpu("api", cores=0.1),
    faults.limit_memory("api", mebibytes=64),
    faults.overload("api"),
    faults.hang("model-1"),
    faults.gpu_saturation("model-1"),
    faults.gpu_exhaustion("model-1"),
    faults.gpu_exhaustion("model-1", what="kv_cache"),
    faults.xid("model-1"),
    faults.xid("model-1", code=48, engine="errors"),
    faults.xid("model-1", code=13, engine="survives"),
    faults.cpu_fallback("model-1"),
    faults.thermal_throttling("model-1"),
    faults.corrupted_output("model-1"),
    faults.slow_load("model-1"),
    faults.crash_on_boot("model-1"),
    faults.memory_leak("model-1"),
]
