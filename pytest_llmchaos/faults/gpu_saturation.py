"""A neighbour on the same GPU that takes a share of its time."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pytest_llmchaos.faults.compositions import Target, on_targets
from pytest_llmchaos.faults.engine_faults import EngineFault
from pytest_llmchaos.faults.option_checks import check_number

if TYPE_CHECKING:
    from pytest_llmchaos.model import Fault, Lifetime


class GpuSaturation(EngineFault):
    """An engine with less of its GPU's time. Answers are right and late."""

    kind: ClassVar[str] = "gpu_saturation"
    lifetime: ClassVar[Lifetime] = "passing"
    expects: ClassVar[str] = (
        "GPU utilisation near 100 %, tokens come slower; a latency objective burns; nothing is restarted"
    )

    def witness(self, victim: str) -> str:
        return f'DCGM_FI_DEV_GPU_UTIL{{service="{victim}"}} >= {95 * self.number("share"):g}'


def gpu_saturation(target: Target, *, share: float = 0.9) -> Fault:
    """Take a share of the GPU's time from an engine.

    Every step takes 1 / (1 - share) times as long. Answers stay right.

    - Ends: after `fault_s` (`passing`).
    - Fidelity: `simulated`. The victim must be a simulated engine.
    - Expected signal: GPU utilisation near 100 %, tokens come slower, a latency
      objective burns. Nothing is restarted.

    Args:
        target: Service name, `model-*` for one service drawn by the seed, or a list of
            these. All services of a list are hit at once.
        share: Share of the GPU's time that the neighbour takes, above 0, at most 0.99.
            The default of 0.9 makes steps 10 times as long.

    Returns:
        A fault for `experiment(fault=...)` and `lab.inject`.

    Raises:
        BadScenario: `target` is not a service name or pattern, or `share` is out of
            bounds.
    """
    taken = check_number("gpu_saturation(share=...)", share, above=0, at_most=0.99)
    return on_targets(GpuSaturation(options=(("share", taken),)), target)
