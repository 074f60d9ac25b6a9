"""An engine that stops making progress while its health path answers 200."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pytest_llmchaos.faults.compositions import Target, on_targets
from pytest_llmchaos.faults.engine_faults import EngineFault

if TYPE_CHECKING:
    from pytest_llmchaos.model import Fault, Lifetime


class Hang(EngineFault):
    """An engine that takes requests and writes no token."""

    kind: ClassVar[str] = "hang"
    lifetime: ClassVar[Lifetime] = "lasting"
    expects: ClassVar[str] = (
        "the step counter stands still, clients wait at the gateway; RequestStuck and EngineStalled fire"
    )


def hang(target: Target) -> Fault:
    """Stop an engine's progress while `/health` still returns 200.

    It accepts requests and writes no token. Only a restart ends it.

    - Ends: when the system repairs it (`lasting`).
    - Fidelity: `simulated`. The victim must be a simulated engine.
    - Expected signal: the step counter stands still, clients wait at the gateway. In
      the lab `RequestStuck` and `EngineStalled` fire.

    Args:
        target: Service name, `model-*` for one service drawn by the seed, or a list of
            these. All services of a list are hit at once.

    Returns:
        A fault for `experiment(fault=...)` and `lab.inject`.

    Raises:
        BadScenario: `target` is not a service name or pattern.
    """
    return on_targets(Hang(), target)
