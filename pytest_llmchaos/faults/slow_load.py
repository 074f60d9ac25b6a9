"""The model is dropped and takes long to load again."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pytest_llmchaos.faults.compositions import Target, on_targets
from pytest_llmchaos.faults.engine_faults import EngineFault, check_number

if TYPE_CHECKING:
    from pytest_llmchaos.model import Fault, Lifetime


class SlowLoad(EngineFault):
    kind: ClassVar[str] = "slow_load"
    lifetime: ClassVar[Lifetime] = "passing"
    expects: ClassVar[str] = "the replica's health path answers 503, the gateway sends it nothing; ServiceDown fires"

    def witness(self, victim: str) -> str:
        return f'llmlab_upstream_health{{replica="{victim}",probe="shallow"}} == 0'


def slow_load(target: Target, *, load_s: float = 30) -> Fault:
    """Unload the model and take `load_s` to load it. The replica answers 503 until then, or until the fault is ended."""
    seconds = check_number("slow_load(load_s=...)", load_s, above=0, at_most=3600)
    return on_targets(SlowLoad(options=(("load_s", seconds), ("when", "now"))), target)
