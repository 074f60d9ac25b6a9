"""A hot GPU that lowers its clocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pytest_llmchaos.faults.compositions import Target, on_targets
from pytest_llmchaos.faults.engine_faults import EngineFault
from pytest_llmchaos.faults.option_checks import check_number

if TYPE_CHECKING:
    from pytest_llmchaos.model import Fault, Lifetime


class ThermalThrottling(EngineFault):
    """An engine on a GPU with lowered clocks."""

    kind: ClassVar[str] = "thermal_throttling"
    lifetime: ClassVar[Lifetime] = "passing"
    expects: ClassVar[str] = "temperature up, clocks down, throttle reasons set; GpuHot fires; nothing is restarted"

    def witness(self, victim: str) -> str:
        # Bit 0x1 is "idle". Any other bit is a reason to throttle.
        return f'DCGM_FI_DEV_CLOCK_THROTTLE_REASONS{{service="{victim}"}} > 1'


def thermal_throttling(target: Target, *, clock_ratio: float = 0.5) -> Fault:
    """Lower the GPU's clock, as heat does.

    - Ends: after `fault_s` (`passing`).
    - Fidelity: `simulated`. The victim must be a simulated engine.
    - Expected signal: temperature up, clocks down, throttle reasons set. In the lab
      `GpuHot` fires. Nothing is restarted.

    Args:
        target: Service name, `model-*` for one service drawn by the seed, or a list of
            these. All services of a list are hit at once.
        clock_ratio: Ratio of the lowered clock to the normal one, above 0.05, at most
            0.99.

    Returns:
        A fault for `experiment(fault=...)` and `lab.inject`.

    Raises:
        BadScenario: `target` is not a service name or pattern, or `clock_ratio` is out
            of bounds.
    """
    ratio = check_number("thermal_throttling(clock_ratio=...)", clock_ratio, above=0.05, at_most=0.99)
    return on_targets(ThermalThrottling(options=(("clock_ratio", ratio),)), target)
