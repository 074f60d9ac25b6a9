"""The engine lost its GPU and computes on the CPU: every answer is right, and many times slower."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmchaos.faults.engine_faults import EngineFault, check_number, on_engine

if TYPE_CHECKING:
    from pytest_llmchaos.model import Fault


def cpu_fallback(target: str, *, slowdown: float = 20) -> Fault:
    """Stretch every step by `slowdown` for the fault phase, with the GPU's memory empty."""
    factor = check_number("cpu_fallback(slowdown=...)", slowdown, above=1, at_most=1000)
    fault = EngineFault(
        kind="cpu_fallback",
        lifetime="passing",
        expects="status 200 throughout, tokens come slower, the GPU is idle and empty; nothing is restarted",
        options=(("slowdown", factor),),
        witness='DCGM_FI_DEV_FB_USED{service="{victim}"} == 0',
    )
    return on_engine(fault, target)
