"""The GPU is hot and lowers its clocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmchaos.faults.engine_faults import EngineFault, check_number, on_engine

if TYPE_CHECKING:
    from pytest_llmchaos.model import Fault


def thermal_throttling(target: str, *, clock_ratio: float = 0.5) -> Fault:
    """Run the GPU at `clock_ratio` of its clock for the fault phase."""
    ratio = check_number("thermal_throttling(clock_ratio=...)", clock_ratio, above=0.05, at_most=0.99)
    fault = EngineFault(
        kind="thermal_throttling",
        lifetime="passing",
        expects="temperature up, clocks down, throttle reasons set; GpuHot fires; nothing is restarted",
        options=(("clock_ratio", ratio),),
        # Bit 0x1 is «idle»; any other reason is a real one.
        witness='DCGM_FI_DEV_CLOCK_THROTTLE_REASONS{service="{victim}"} > 1',
    )
    return on_engine(fault, target)
