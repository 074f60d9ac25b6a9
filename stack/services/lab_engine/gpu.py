"""Simulated GPU readings: use, memory, clocks, power, temperature."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab_common.values import require

if TYPE_CHECKING:
    from lab_engine.effects import Effects

MEBIBYTE = 1 << 20

# Bits of DCGM_FI_DEV_CLOCK_THROTTLE_REASONS, from nvml.h (nvmlClocksThrottleReasons).
IDLE, SW_THERMAL, HW_SLOWDOWN, HW_THERMAL = 0x1, 0x20, 0x8, 0x40
SAMPLE_S = 1.0  # DCGM's default sampling interval
WARMING_S = 20.0  # time constant of the heat sink


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuModel:
    """Data sheet of one GPU."""

    name: str
    memory_bytes: int
    bandwidth_bytes_per_s: float
    flops: float  # dense, at the model's precision
    idle_power_w: float
    max_power_w: float
    sm_clock_mhz: int
    memory_clock_mhz: int
    slowdown_c: float  # temperature at which clocks are lowered

    def __post_init__(self) -> None:
        for name in ("memory_bytes", "bandwidth_bytes_per_s", "flops", "max_power_w", "sm_clock_mhz", "slowdown_c"):
            require(name, getattr(self, name), above=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """Readings in DCGM's units: percent, MiB, °C, watts, MHz, millijoules."""

    lost: bool = False
    xid: int = 0
    utilisation_percent: float = 0.0
    memory_used_mib: float = 0.0
    memory_free_mib: float = 0.0
    temperature_c: float = 0.0
    power_w: float = 0.0
    energy_mj: float = 0.0
    sm_clock_mhz: float = 0.0
    memory_clock_mhz: float = 0.0
    throttle_reasons: int = 0


class Gpu:
    """Computes a GPU's readings from the engine's busy time."""

    def __init__(self, model: GpuModel, now_s: float) -> None:
        self.model = model
        self._sampled_s = now_s
        self._busy_s = 0.0
        self._busy_ratio = 0.0
        self._temperature_c = 35.0
        self._energy_j = 0.0

    def read(self, now_s: float, busy_s: float, *, reserved_bytes: int, effects: Effects) -> Reading:
        """The readings now.

        Args:
            now_s: seconds on the engine's clock.
            busy_s: the engine's total busy seconds so far.
            reserved_bytes: device memory that the engine holds.
            effects: the faults' combined effects.
        """
        model = self.model
        if effects.gpu_lost:
            return Reading(lost=True, xid=effects.xid)
        self._sample(now_s, busy_s)
        ours = 0.0 if effects.on_cpu else self._busy_ratio
        ratio = ours + (1 - ours) * effects.neighbour_share
        power_w = self._power_w(ratio * effects.clock_ratio)
        throttled = effects.clock_ratio < 1
        temperature_c = model.slowdown_c + 1 if throttled else self._temperature_c
        used = 0 if effects.on_cpu else reserved_bytes
        used = model.memory_bytes if effects.memory_taken else used
        return Reading(
            xid=effects.xid,
            utilisation_percent=round(100 * ratio),
            memory_used_mib=used // MEBIBYTE,
            memory_free_mib=(model.memory_bytes - used) // MEBIBYTE,
            temperature_c=round(temperature_c),
            power_w=round(power_w, 3),
            energy_mj=round(self._energy_j * 1000),
            sm_clock_mhz=round(model.sm_clock_mhz * effects.clock_ratio),
            memory_clock_mhz=model.memory_clock_mhz,
            throttle_reasons=(SW_THERMAL | HW_SLOWDOWN | HW_THERMAL) if throttled else (0 if ratio else IDLE),
        )

    def _sample(self, now_s: float, busy_s: float) -> None:
        span_s = now_s - self._sampled_s
        if span_s < SAMPLE_S:
            return
        self._busy_ratio = min(1.0, max(0.0, busy_s - self._busy_s) / span_s)
        self._busy_s, self._sampled_s = busy_s, now_s
        power_w = self._power_w(self._busy_ratio)
        self._energy_j += power_w * span_s
        # At full power a well cooled card settles about ten degrees below throttling.
        settled_c = 35.0 + (self.model.slowdown_c - 45.0) * power_w / self.model.max_power_w
        self._temperature_c += (settled_c - self._temperature_c) * (1 - math.exp(-span_s / WARMING_S))

    def _power_w(self, ratio: float) -> float:
        return self.model.idle_power_w + (self.model.max_power_w - self.model.idle_power_w) * ratio
