"""The engine stops taking steps while its health path goes on answering 200."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pytest_llmchaos.faults.compositions import Target, on_targets
from pytest_llmchaos.faults.engine_faults import EngineFault

if TYPE_CHECKING:
    from pytest_llmchaos.model import Fault, Lifetime


class Hang(EngineFault):
    kind: ClassVar[str] = "hang"
    lifetime: ClassVar[Lifetime] = "lasting"
    expects: ClassVar[str] = (
        "the step counter stands still, clients wait at the gateway; RequestStuck and EngineStalled fire"
    )


def hang(target: Target) -> Fault:
    """Hang the engine: requests go in, no token comes out, and `/health` stays green. Only a restart ends it."""
    return on_targets(Hang(), target)
