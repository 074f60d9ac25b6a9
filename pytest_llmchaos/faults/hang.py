"""The engine stops taking steps while its health path goes on answering 200."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmchaos.faults.engine_faults import EngineFault, on_engine

if TYPE_CHECKING:
    from pytest_llmchaos.model import Fault


# A caller of the gateway has waited this long for a first token, or in a silent stream, and nothing of it is the engine's word.
_WAITING = (
    'max(llmlab_oldest_inflight_seconds{replica="{victim}",phase="prefill"}'
    ' or llmlab_oldest_silence_seconds{replica="{victim}"}) > 0.5'
)


def hang(target: str) -> Fault:
    """Hang the engine: requests go in, no token comes out, and `/health` stays green. Only a restart ends it."""
    fault = EngineFault(
        kind="hang",
        lifetime="lasting",
        expects="the step counter stands still, callers wait at the gateway; RequestStuck and EngineStalled fire",
        witness=_WAITING,
    )
    return on_engine(fault, target)
