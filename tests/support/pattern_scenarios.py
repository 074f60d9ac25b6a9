"""Experiments of scenarios/patterns/."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from pytest_llmchaos.plan.experiment import Experiment

FOLDER = Path(__file__).parents[2] / "scenarios" / "patterns"


def experiment_of(pattern: str) -> Experiment:
    """The experiment of a pattern's scenario, such as `breaker`."""
    mark = runpy.run_path(str(FOLDER / f"test_{pattern}.py"))["pytestmark"]
    return cast("Experiment", mark.kwargs["experiment"])
