"""Chaos experiments for LLM inference services, as pytest tests."""

from pytest_llmchaos import faults, loads
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
from pytest_llmchaos.marks import experiment

__all__ = [
    "BadScenario",
    "HealFailed",
    "LlmchaosError",
    "NotDetected",
    "NotReady",
    "NotRecovered",
    "ProvesNothing",
    "Unsupported",
    "experiment",
    "faults",
    "loads",
]
