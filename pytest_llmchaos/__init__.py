"""Chaos experiments for LLM inference services, as pytest tests."""

import importlib
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import (
    BadScenario,
    HealFailed,
    LlmchaosError,
    NotDetected,
    NotReady,
    NotRecovered,
    ProvesNothing,
    Unsupported,
)

if TYPE_CHECKING:
    from pytest_llmchaos import faults, loads
    from pytest_llmchaos.experiment_mark import experiment
    from pytest_llmchaos.plan.arms import arm

__all__ = [
    "BadScenario",
    "HealFailed",
    "LlmchaosError",
    "NotDetected",
    "NotReady",
    "NotRecovered",
    "ProvesNothing",
    "Unsupported",
    "arm",
    "experiment",
    "faults",
    "loads",
]

if not TYPE_CHECKING:  # type checkers would accept every name

    def __getattr__(name: str) -> object:
        """Import `faults`, `loads`, `experiment` and `arm` on first use.

        Every pytest run imports this package for its plugin. Only scenarios need these.
        """
        if name in {"faults", "loads"}:
            return importlib.import_module(f"{__name__}.{name}")
        if name == "experiment":
            return importlib.import_module(f"{__name__}.experiment_mark").experiment
        if name == "arm":
            return importlib.import_module(f"{__name__}.plan.arms").arm
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
