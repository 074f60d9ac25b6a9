"""A neighbour on the same GPU takes a share of its time: everything is right, and late."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pytest_llmchaos.faults.compositions import Target, on_targets
from pytest_llmchaos.faults.engine_faults import EngineFault, check_number

if TYPE_CHECKING:
    from pytest_llmchaos.model import Fault, Lifetime


class GpuSaturation(EngineFault):
    kind: ClassVar[str] = "gpu_saturation"
    lifetime: ClassVar[Lifetime] = "passing"
    expects: ClassVar[str] = (
        "GPU utilisation near 100 %, tokens come slower; a latency objective burns; nothing is restarted"
    )

    def witness(self, victim: str) -> str:
        return f'DCGM_FI_DEV_GPU_UTIL{{service="{victim}"}} >= {95 * self.number("share"):g}'


def gpu_saturation(target: Target, *, share: float = 0.9) -> Fault:
    """Leave the engine `1 - share` of its GPU for the fault phase: every step is stretched by 1 / (1 - share)."""
    taken = check_number("gpu_saturation(share=...)", share, above=0, at_most=0.99)
    return on_targets(GpuSaturation(options=(("share", taken),)), target)
