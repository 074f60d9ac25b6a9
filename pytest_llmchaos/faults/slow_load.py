"""The model is dropped and takes long to load again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmchaos.faults.engine_faults import EngineFault, check_number, on_engine

if TYPE_CHECKING:
    from pytest_llmchaos.model import Fault


def slow_load(target: str, *, load_s: float = 30) -> Fault:
    """Unload the model and take `load_s` to load it. The replica answers 503 until then, or until the fault is ended."""
    seconds = check_number("slow_load(load_s=...)", load_s, above=0, at_most=3600)
    fault = EngineFault(
        kind="slow_load",
        lifetime="passing",
        expects="the replica's health path answers 503, the gateway sends it nothing; ServiceDown fires",
        options=(("load_s", seconds), ("when", "now")),
        witness='llmlab_upstream_health{replica="{victim}",probe="shallow"} == 0',
    )
    return on_engine(fault, target)
