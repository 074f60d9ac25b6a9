"""One fault of each kind of the catalogue."""

from __future__ import annotations

from pytest_llmchaos import faults

# Options that a fault requires besides its target.
REQUIRED: dict[str, dict[str, float | str]] = {
    "limit_cpu": {"cores": 0.1},
    "limit_memory": {"mebibytes": 64},
    "latency": {"delay_s": 0.5},
    "bandwidth": {"bytes_per_s": 1000},
    "late_first_token": {"delay_s": 2},
    "slow_drip": {"every_s": 0.1},
    "slow_error": {"delay_s": 5},
    "scrape_gap": {"of": "autoscaler"},
    "stale_metrics": {"of": "judge"},
    "tool": {"how": "error"},
}
ON_WIRE = [
    faults.latency("model-1", delay_s=0.5),
    faults.bandwidth("model-1", bytes_per_s=1000),
    faults.black_hole("model-1"),
    faults.reset("model-1"),
    faults.reject("model-1"),
    faults.late_first_token("model-1", delay_s=2),
    faults.stall("model-1"),
    faults.slow_drip("model-1", every_s=0.1),
    faults.truncate("model-1"),
    faults.inband_error("model-1"),
    faults.empty_answer("model-1"),
    faults.malformed("model-1"),
    faults.duplicate("model-1"),
    faults.reorder("model-1"),
    faults.wrong_model("model-1"),
    faults.flaky("model-1"),
    faults.slow_error("model-1", delay_s=5),
    faults.scrape_gap("model-1", of="judge"),
    faults.stale_metrics("model-1", of="autoscaler"),
    faults.tool("model-1.refund", how="lost_answer"),
]
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
    *ON_WIRE,
    faults.partition("model-1", how="drop"),
    faults.partition("model-1", how="reject"),
]
