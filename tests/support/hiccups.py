"""Retries of trials that a busy machine disturbed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import LoadNotHeld, PartialScrape, PrometheusUnreachable, StaleData
from pytest_llmchaos.trial.perform import perform

if TYPE_CHECKING:
    from pytest_llmchaos.lab.lab import Lab
    from pytest_llmchaos.plan.experiment import TrialPlan
    from pytest_llmchaos.trial.trial import Trial

# Errors that are about the machine, not verdicts on the service.
BUSY = (LoadNotHeld, PartialScrape)
HICCUPS = (*BUSY, StaleData, PrometheusUnreachable)
PERFORMANCES = 3


def perform_measured(lab: Lab, plan: TrialPlan, *, performances: int = PERFORMANCES) -> Trial:
    """Perform a trial, and again if the machine was too busy to measure it.

    A verdict is not retried. The last error is raised if every try was disturbed.
    """
    for left in reversed(range(performances)):
        performed = perform(lab, plan)
        if not left or not isinstance(performed.error, BUSY):
            return performed.require()
        sys.stderr.write(f"performed again: {type(performed.error).__name__}: {performed.error}\n")
    raise AssertionError("never reached")
