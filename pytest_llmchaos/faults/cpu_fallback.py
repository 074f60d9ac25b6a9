"""The engine lost its GPU and computes on the CPU: every answer is right, and many times slower."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pytest_llmchaos.faults.compositions import Target, on_targets
from pytest_llmchaos.faults.engine_faults import EngineFault, check_number

if TYPE_CHECKING:
    from pytest_llmchaos.model import Fault, Lifetime


class CpuFallback(EngineFault):
    kind: ClassVar[str] = "cpu_fallback"
    lifetime: ClassVar[Lifetime] = "passing"
    expects: ClassVar[str] = (
        "status 200 throughout, tokens come slower, the GPU is idle and empty; nothing is restarted"
    )

    def witness(self, victim: str) -> str:
        return f'DCGM_FI_DEV_FB_USED{{service="{victim}"}} == 0'


def cpu_fallback(target: Target, *, slowdown: float = 20) -> Fault:
    """Stretch every step by `slowdown` for the fault phase, with the GPU's memory empty."""
    factor = check_number("cpu_fallback(slowdown=...)", slowdown, above=1, at_most=1000)
    return on_targets(CpuFallback(options=(("slowdown", factor),)), target)
