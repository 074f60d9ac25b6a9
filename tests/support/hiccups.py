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
Result = TypeVar("Result")


def perform_measured(lab: Lab, plan: TrialPlan, *, performances: int = PERFORMANCES) -> Trial:
    """Perform a trial, and again if the machine was too busy to measure it.

    A verdict is not retried. The last error is raised if every try was disturbed.
    """
    return act_measured(lambda: perform(lab, plan).require(), performances=performances)


def act_measured(act: Callable[[], Result], *, performances: int = PERFORMANCES) -> Result:
    """Act, and again if the machine was too busy to measure it.

    A failed assertion is not retried. The last error is raised if every try was
    disturbed.
    """
    for _ in range(performances - 1):
        try:
            return act()
        except BUSY as error:
            sys.stderr.write(f"performed again: {type(error).__name__}: {error}\n")
    return act()


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
