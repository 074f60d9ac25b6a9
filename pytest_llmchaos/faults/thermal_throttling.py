"""The GPU is hot and lowers its clocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pytest_llmchaos.faults.compositions import Target, on_targets
from pytest_llmchaos.faults.engine_faults import EngineFault, check_number

if TYPE_CHECKING:
    from pytest_llmchaos.model import Fault, Lifetime


class ThermalThrottling(EngineFault):
    kind: ClassVar[str] = "thermal_throttling"
    lifetime: ClassVar[Lifetime] = "passing"
    expects: ClassVar[str] = "temperature up, clocks down, throttle reasons set; GpuHot fires; nothing is restarted"

    def witness(self, victim: str) -> str:
        # Bit 0x1 is «idle»; any other reason is a real one.
        return f'DCGM_FI_DEV_CLOCK_THROTTLE_REASONS{{service="{victim}"}} > 1'


def thermal_throttling(target: Target, *, clock_ratio: float = 0.5) -> Fault:
    """Run the GPU at `clock_ratio` of its clock for the fault phase."""
    ratio = check_number("thermal_throttling(clock_ratio=...)", clock_ratio, above=0.05, at_most=0.99)
    return on_targets(ThermalThrottling(options=(("clock_ratio", ratio),)), target)
