"""What a machine with other work does to a trial that measures; and trials that are performed again for it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import LoadNotHeld, PartialScrape, PrometheusUnreachable, StaleData
from pytest_llmchaos.trial.perform import perform

if TYPE_CHECKING:
    from pytest_llmchaos.lab.lab import Lab
    from pytest_llmchaos.plan.experiment import TrialPlan
    from pytest_llmchaos.trial.trial import Trial

# Each of these names the machine in its message, and none is a verdict on the service.
BUSY = (LoadNotHeld, PartialScrape)
HICCUPS = (*BUSY, StaleData, PrometheusUnreachable)
PERFORMANCES = 3


def perform_measured(lab: Lab, plan: TrialPlan, *, performances: int = PERFORMANCES) -> Trial:
    """The trial, performed again where the machine was too busy to measure it.

    A verdict is never tried again. Raises the error that the trial ended with, and the last one where every performance was disturbed.
    """
    for left in reversed(range(performances)):
        performed = perform(lab, plan)
        if not left or not isinstance(performed.error, BUSY):
            return performed.require()
        sys.stderr.write(f"performed again: {type(performed.error).__name__}: {performed.error}\n")
    raise AssertionError("never reached")
