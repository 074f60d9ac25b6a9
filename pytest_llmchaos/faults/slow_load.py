"""A dropped model that takes long to load again."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pytest_llmchaos.faults.compositions import Target, on_targets
from pytest_llmchaos.faults.engine_faults import EngineFault
from pytest_llmchaos.faults.option_checks import check_number

if TYPE_CHECKING:
    from pytest_llmchaos.model import Fault, Lifetime


class SlowLoad(EngineFault):
    """An engine whose model is being loaded."""

    kind: ClassVar[str] = "slow_load"
    lifetime: ClassVar[Lifetime] = "passing"
    expects: ClassVar[str] = "the replica's health path answers 503, the gateway sends it nothing; ServiceDown fires"


def slow_load(target: Target, *, load_s: float = 30) -> Fault:
    """Drop an engine's model and load it again slowly.

    The replica answers 503 until the model is loaded or the fault is reverted.

    - Ends: after `fault_s` (`passing`).
    - Fidelity: `simulated`. The victim must be a simulated engine.
    - Expected signal: the replica's health path answers 503, the gateway sends it no
      requests. In the lab `ServiceDown` fires.

    Args:
        target: Service name, `model-*` for one service drawn by the seed, or a list of
            these. All services of a list are hit at once.
        load_s: Seconds that loading takes, above 0, at most 3600.

    Returns:
        A fault for `experiment(fault=...)` and `lab.inject`.

    Raises:
        BadScenario: `target` is not a service name or pattern, or `load_s` is out of
            bounds.
    """
    seconds = check_number("slow_load(load_s=...)", load_s, above=0, at_most=3600)
    return on_targets(SlowLoad(options=(("load_s", seconds), ("when", "now"))), target)
