"""A neighbour on the same GPU takes a share of its time: everything is right, and late."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmchaos.faults.engine_faults import EngineFault, check_number, on_engine

if TYPE_CHECKING:
    from pytest_llmchaos.model import Fault


def gpu_saturation(target: str, *, share: float = 0.9) -> Fault:
    """Leave the engine `1 - share` of its GPU for the fault phase: every step is stretched by 1 / (1 - share)."""
    taken = check_number("gpu_saturation(share=...)", share, above=0, at_most=0.99)
    fault = EngineFault(
        kind="gpu_saturation",
        lifetime="passing",
        expects="GPU utilisation near 100 %, tokens come slower; a latency objective burns; nothing is restarted",
        options=(("share", taken),),
        witness=f'DCGM_FI_DEV_GPU_UTIL{{service="{{victim}}"}} >= {95 * taken:g}',
    )
    return on_engine(fault, target)
