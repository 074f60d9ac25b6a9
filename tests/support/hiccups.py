"""Retries of trials and sessions that a busy machine disturbed."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, TypeVar

from pytest_llmchaos.errors import LoadNotHeld, PartialScrape, PrometheusUnreachable, StaleData
from pytest_llmchaos.trial.perform import perform

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_llmchaos.lab.lab import Lab
    from pytest_llmchaos.plan.experiment import TrialPlan
    from pytest_llmchaos.trial.trial import Trial

# Errors that are about the machine, not verdicts on the service.
BUSY = (LoadNotHeld, PartialScrape)
HICCUPS = (*BUSY, StaleData, PrometheusUnreachable)
PERFORMANCES = 3
# A session's line about a trial.
_DISTURBED = re.compile(rf"^\S+ +invalid +.* - (?:{'|'.join(one.__name__ for one in BUSY)}): .*", re.MULTILINE)

Ended = TypeVar("Ended")


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


def run_measured(run: Callable[[], Ended], output_of: Callable[[Ended], str]) -> Ended:
    """Run a session, and again if the machine was too busy to measure a trial of it.

    The last one is returned, whatever became of it.
    """
    for _ in range(PERFORMANCES - 1):
        ended = run()
        disturbed = _DISTURBED.search(output_of(ended))
        if disturbed is None:
            return ended
        sys.stderr.write(f"run again: {disturbed[0]}\n")
    return run()
