"""One trial, in order. The only file that knows the order; its indentation is that order."""

from __future__ import annotations

import contextlib
import errno
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import (
    EvidenceLost,
    InvalidExperiment,
    LlmchaosError,
    NotReady,
    ProvesNothing,
    Unsupported,
    verdict_of,
)
from pytest_llmchaos.plan.schedule import arrivals_of
from pytest_llmchaos.runtime.abilities import grant
from pytest_llmchaos.runtime.undo import is_over
from pytest_llmchaos.trial import judge
from pytest_llmchaos.trial.participation import take_part
from pytest_llmchaos.trial.recovery import OVER_EVERY_S
from pytest_llmchaos.trial.result import judged_result, plan_note, result_of
from pytest_llmchaos.trial.trial import Trial

if TYPE_CHECKING:
    from pytest_llmchaos.evidence.trial_record import Record
    from pytest_llmchaos.evidence.trial_result import TrialResult
    from pytest_llmchaos.lab.injector import Injected
    from pytest_llmchaos.lab.lab import Lab
    from pytest_llmchaos.plan.experiment import TrialPlan

# The lab's gateway ejects a replica for 5 s, twice as long where it fails again, and then tries one request.
REJOIN_DEADLINE_S = 12.0
LOOK_EVERY_S = OVER_EVERY_S  # to ask an engine for its faults costs a process in its container


@dataclass(frozen=True, kw_only=True)
class Performed:
    """A trial that was performed, or the error that it ended with.

    `name` is its id in the journal; `result` is its line there. Both are empty where the
    trial was refused before its record began.
    """

    name: str = ""
    trial: Trial | None = None
    error: LlmchaosError | None = None
    result: TrialResult | None = None

    def require(self) -> Trial:
        """The trial. Raises the error that it ended with."""
        if self.error is not None:
            raise self.error
        if self.trial is None:
            raise NotReady("the trial was not performed")
        return self.trial


def perform(lab: Lab, plan: TrialPlan) -> Performed:
    """Perform and judge one trial. Whatever happens, its end is in the journal.

    A trial that supports no claim is returned with its error: ProvesNothing, Unsupported
    or HealFailed. Raises what is no such error (Ctrl-C), and what keeps a record from
    being opened.
    """
    try:
        grant(lab.runtime, plan.needs, f"{plan.scenario} with {plan.fault}")
    except Unsupported as error:
        return Performed(error=error)
    with lab.entered(plan_note(plan)) as record:
        try:
            with lab.reasons.unless_measured():
                trial = _perform(lab, plan, record)
            result = judged_result(record, trial)
            record.judge(result)
        except BaseException as error:
            ended = _broken_off(error) if isinstance(error, OSError) else error
            result = result_of(plan, record, verdict_of(ended), f"{type(ended).__name__}: {ended}")
            with contextlib.suppress(EvidenceLost):
                record.judge(result)
            if not isinstance(ended, LlmchaosError):
                raise
            return Performed(name=record.trial, error=ended, result=result)
        return Performed(name=record.trial, trial=trial, result=result)


def _broken_off(error: OSError) -> InvalidExperiment:
    """What the machine did to the trial: a daemon that does not answer, a disk that is full."""
    ended = InvalidExperiment(f"the trial broke off: {type(error).__name__}: {error}")
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}:
        ended = EvidenceLost(f"{error.filename or 'a file of the trial'} cannot be written: {error.strerror}")
    ended.__cause__ = error
    return ended


def _perform(lab: Lab, plan: TrialPlan, record: Record) -> Trial:
    experiment = plan.experiment
    with lab.load(
        plan.load,
        arrivals=arrivals_of(plan),
        longest_s=experiment.longest_s(plan.fault),
        remediator=experiment.remediator,
    ) as load:
        lab.signals.phase("steady")
        with record.phase("steady", from_s=0.0):
            lab.hold_steady(experiment.steady_s)
        lab.signals.phase("fault")
        injection = lab.inject(
            plan.injections,
            abort_if=experiment.abort_if,
            blast_radius=experiment.blast_radius,
            patience_s=experiment.deadline_s(plan.fault),
        )
        with record.phase("fault"), injection as injected:
            _hold_fault(lab, plan, record, injected)
        lab.signals.phase("recovery")
        with record.phase("recovery"):
            settled = _hold_settled(lab, plan, record, injected)
    lab.signals.phase("none")
    return judge.judge(lab, plan, record, load, injected, settled=settled)


def _hold_fault(lab: Lab, plan: TrialPlan, record: Record, injected: Injected) -> None:
    """Lasting: until the system has repaired itself or its deadline passed. Passing, or none: for its time."""
    experiment, load = plan.experiment, lab.running_load
    if load is None:
        raise ProvesNothing("the load ended before the fault")

    last_s = record.at_s(injected.last_unix_s or record.anchor_unix_s)
    next_look_s = -math.inf

    def repaired() -> bool:
        """Clients are served again, nothing of the fault is left, and the victims take part: each may come alone."""
        nonlocal next_look_s
        if load.recovery_s(last_s, experiment.stable_s) is None or time.monotonic() < next_look_s:
            return False
        next_look_s = time.monotonic() + LOOK_EVERY_S
        if not all(is_over(lab.runtime, act, since) for act, since in injected.proven):
            return False
        if injected.over_unix_s is None:
            injected.over_unix_s = time.time()
        return take_part(lab, record, injected, must=True)

    def ends_early() -> bool:
        lab.abort_check(experiment.abort_if)
        return plan.is_lasting and repaired()

    what = "no fault" if plan.is_control else "fault"
    lab.hold_until(ends_early, deadline_s=experiment.held_s(plan.fault), what=what)


def _hold_settled(lab: Lab, plan: TrialPlan, record: Record, injected: Injected) -> bool:
    """After the revert: until the service has been good for `stable_s`. False if the deadline passed first."""
    load = lab.running_load
    if load is None:
        raise ProvesNothing("the load ended before the recovery")
    begin_s, stable_s = record.now_s(), plan.experiment.stable_s
    if plan.is_lasting:  # the stable seconds before the end of its phase count: they were good already
        begin_s -= stable_s

    def settled() -> bool:
        is_good = load.recovery_s(begin_s, stable_s) is not None
        # Of a lasting fault's victims the fault phase has seen whether they took part again before our revert.
        return is_good and (not plan.is_passing or take_part(lab, record, injected, must=False))

    is_settled = lab.hold_until(settled, deadline_s=plan.experiment.longest_settle_s(plan.fault), what="recovery")
    if lab.subject.replica_header:
        replicas = set(lab.subject.replicas)
        # A gateway lets a replica that failed in again later than it serves its clients from the others.
        lab.hold_until(
            lambda: load.replicas_answering(begin_s) >= replicas, deadline_s=REJOIN_DEADLINE_S, what="replicas"
        )
    return is_settled
