"""Reports of a run: `run.json`, `report.html` and `summary.md`."""

from __future__ import annotations

from pytest_llmchaos.evidence.trial_result import read_run
from pytest_llmchaos.report.builder import build
from pytest_llmchaos.report.fold import fold
from pytest_llmchaos.report.summary import junit_properties, summary_lines

__all__ = ["build", "fold", "junit_properties", "read_run", "summary_lines"]
