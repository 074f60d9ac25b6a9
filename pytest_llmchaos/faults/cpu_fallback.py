"""An engine that lost its GPU and computes on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pytest_llmchaos.faults.compositions import Target, on_targets
from pytest_llmchaos.faults.engine_faults import EngineFault
from pytest_llmchaos.faults.option_checks import check_number

if TYPE_CHECKING:
    from pytest_llmchaos.model import Fault, Lifetime


class CpuFallback(EngineFault):
    """An engine on the CPU. Answers are right and many times slower."""

    kind: ClassVar[str] = "cpu_fallback"
    lifetime: ClassVar[Lifetime] = "passing"
    expects: ClassVar[str] = (
        "status 200 throughout, tokens come slower, the GPU is idle and empty; nothing is restarted"
    )

    def witness(self, victim: str) -> str:
        return f'DCGM_FI_DEV_FB_USED{{service="{victim}"}} == 0'


def cpu_fallback(target: Target, *, slowdown: float = 20) -> Fault:
    """Make an engine compute on the CPU, as after losing its GPU.

    Answers stay right. Every step takes `slowdown` times as long, and the GPU's memory
    is empty.

    - Ends: after `fault_s` (`passing`).
    - Fidelity: `simulated`. The victim must be a simulated engine.
    - Expected signal: status 200 throughout, tokens come slower, the GPU is idle and
      empty. Nothing is restarted.

    Args:
        target: Service name, `model-*` for one service drawn by the seed, or a list of
            these. All services of a list are hit at once.
        slowdown: Factor by which every step is longer, above 1, at most 1000.

    Returns:
        A fault for `experiment(fault=...)` and `lab.inject`.

    Raises:
        BadScenario: `target` is not a service name or pattern, or `slowdown` is out of
            bounds.
    """
    factor = check_number("cpu_fallback(slowdown=...)", slowdown, above=1, at_most=1000)
    return on_targets(CpuFallback(options=(("slowdown", factor),)), target)
