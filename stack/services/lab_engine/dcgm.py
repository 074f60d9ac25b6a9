"""GPU metrics under the names and units of NVIDIA's dcgm-exporter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import GaugeMetricFamily

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Metric

    from lab_engine.engine import Engine

LABELS = ("gpu", "UUID", "device", "modelName")


class GpuCollector:
    """Collector of the GPU's readings."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        name = f"{engine.settings.profile.gpu.name} (simulated)"
        self._labels = ("0", "GPU-00000000-0000-0000-0000-000000000000", "nvidia0", name)

    def collect(self) -> Iterator[Metric]:
        reading = self._engine.gpu()
        # A gauge of the last code, as in the exporter: repeats of a code are invisible.
        yield self._gauge("XID_ERRORS", "Value of the last XID error encountered.", reading.xid)
        if reading.lost:
            return
        for name, text, value in (
            ("GPU_UTIL", "GPU utilization (in %).", reading.utilisation_percent),
            ("FB_USED", "Framebuffer memory used (in MiB).", reading.memory_used_mib),
            ("FB_FREE", "Framebuffer memory free (in MiB).", reading.memory_free_mib),
            ("GPU_TEMP", "GPU temperature (in C).", reading.temperature_c),
            ("POWER_USAGE", "Power draw (in W).", reading.power_w),
            ("SM_CLOCK", "SM clock frequency (in MHz).", reading.sm_clock_mhz),
            ("MEM_CLOCK", "Memory clock frequency (in MHz).", reading.memory_clock_mhz),
            ("CLOCK_THROTTLE_REASONS", "Current clock throttle reasons (bitmask).", reading.throttle_reasons),
            # A counter, but the exporter's name lacks the client library's `_total`.
            ("TOTAL_ENERGY_CONSUMPTION", "Total energy consumption since boot (in mJ).", reading.energy_mj),
        ):
            yield self._gauge(name, text, value)

    def _gauge(self, name: str, text: str, value: float) -> Metric:
        family = GaugeMetricFamily(f"DCGM_FI_DEV_{name}", text, labels=LABELS)
        family.add_metric(self._labels, value)
        return family
