"""Order of a trial: steady state, fault, recovery, judgement."""

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
from pytest_llmchaos.faults.compositions import wired_services
from pytest_llmchaos.lab.variables import prepare
from pytest_llmchaos.plan.schedule import arrivals_of
from pytest_llmchaos.runtime.abilities import grant
from pytest_llmchaos.runtime.undo import is_over
from pytest_llmchaos.trial import judge
from pytest_llmchaos.trial.participation import take_part
from pytest_llmchaos.trial.recovery import OVER_EVERY_S
from pytest_llmchaos.trial.result import judged_result, plan_note, result_of
from pytest_llmchaos.trial.seen_tasks import ledger_before_fault, ledger_begin
from pytest_llmchaos.trial.trial import Trial

if TYPE_CHECKING:
    from pytest_llmchaos.evidence.trial_record import Record
    from pytest_llmchaos.evidence.trial_result import TrialResult
    from pytest_llmchaos.lab.injector import Injected
    from pytest_llmchaos.lab.lab import Lab
    from pytest_llmchaos.plan.experiment import TrialPlan

# The lab's gateway ejects a replica for 5 s, then tries one request. If that fails, it
# ejects the replica for twice as long.
REJOIN_DEADLINE_S = 12.0
LOOK_EVERY_S = OVER_EVERY_S  # each query of an engine's faults starts a process there


@dataclass(frozen=True, kw_only=True)
class Performed:
    """A performed trial, or the error that it ended with.

    Attributes:
        name: The trial's id in the journal. Empty if the trial was refused before its
            record began.
        trial: The judged trial, or None after an error.
        error: The error that the trial ended with, or None.
        result: The trial's line in the journal. None if its record did not begin.
    """

    name: str = ""
    trial: Trial | None = None
    error: LlmchaosError | None = None
    result: TrialResult | None = None

    def require(self) -> Trial:
        """Return the trial, or raise the error that it ended with."""
        if self.error is not None:
            raise self.error
        if self.trial is None:
            raise NotReady("the trial was not performed: see the run's journal for its end")
        return self.trial


def perform(lab: Lab, plan: TrialPlan) -> Performed:
    """Perform and judge one trial. Its end is in the journal in every case.

    1. Check that the runtime can inject the faults.
    2. Open the record, give services their environment variables and start the load.
    3. Hold the steady state.
    4. Inject the faults and hold them until the system has repaired itself, or for
       their time or deadline.
    5. Revert them and wait until the service is good.
    6. Stop the load and judge the recordings.

    A trial that supports no claim is returned with its error, such as `ProvesNothing`,
    `Unsupported` or `HealFailed`. Any other exception is raised, such as Ctrl-C or an
    error on opening the record.
    """
    try:
        grant(lab.runtime, plan.needs, f"{plan.scenario} with {plan.fault}")
        if plan.load.tasks is not None:
            lab.subject.for_tasks()
    except Unsupported as error:
        return Performed(error=error)
    with lab.serving(plan.load), lab.entered(plan_note(plan)) as record:
        try:
            with lab.reasons.unless_measured():
                trial = _perform(lab, plan, record)
            result = judged_result(record, trial)
            record.judge(result)
        except BaseException as error:
            ended = _broken_off(error) if isinstance(error, OSError) else error
            if not isinstance(ended, Exception):  # not the trial's own, such as a time limit
                ended.add_note(f"trial {record.trial} was interrupted {_where(record)}")
            result = result_of(plan, record, verdict_of(ended), f"{type(ended).__name__}: {explain(ended)}")
            with contextlib.suppress(EvidenceLost):
                record.judge(result)
            if not isinstance(ended, LlmchaosError):
                raise
            return Performed(name=record.trial, error=ended, result=result)
        return Performed(name=record.trial, trial=trial, result=result)


def explain(error: BaseException) -> str:
    """Return an error's message with its notes."""
    notes = getattr(error, "__notes__", ())
    return "; ".join([str(error).removesuffix("."), *notes]) if notes else str(error)


def _where(record: Record) -> str:
    return f"in its {record.phases[-1].name} phase" if record.phases else "before its steady phase"


def _broken_off(error: OSError) -> InvalidExperiment:
    """Return the trial's error for a machine's error, such as a full disk."""
    ended = InvalidExperiment(f"the trial broke off: {type(error).__name__}: {error}")
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}:
        ended = EvidenceLost(f"{error.filename or 'a file of the trial'} cannot be written: {error.strerror}")
    ended.__cause__ = error
    return ended


def _perform(lab: Lab, plan: TrialPlan, record: Record) -> Trial:
    experiment = plan.experiment
    prepare(lab, plan.environment, scales=plan.autoscaler is not None)
    effects = ledger_begin(lab, plan.load)
    with lab.load(
        plan.load,
        arrivals=arrivals_of(plan),
        longest_s=experiment.longest_s(plan.fault),
        remediator=plan.remediator,
        autoscaler=plan.autoscaler,
        wire=_wire(lab, plan),
        read=_wire(lab, plan, reads_http=True),
    ) as load:
        lab.signals.phase("steady")
        with record.phase("steady", from_s=0.0):
            lab.hold_steady(experiment.steady_s)
            effects = ledger_before_fault(effects)
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
    return judge.judge(lab, plan, record, load, injected, settled=settled, effects=effects)


def _wire(lab: Lab, plan: TrialPlan, *, reads_http: bool = False) -> tuple[str, ...]:
    """Return the services in whose way a fault agent must stand.

    With `reads_http`, return those alone whose requests it must be able to read.

    They are the same for all trials of an experiment, so that its control arm differs
    in nothing but the fault.
    """
    if "proxy" not in lab.runtime.abilities:
        return ()
    return wired_services(plan.experiment.faults, lab.subject.may_hit, reads_http=reads_http)


def _hold_fault(lab: Lab, plan: TrialPlan, record: Record, injected: Injected) -> None:
    """Hold a lasting fault until repair or deadline, any other for its time."""
    experiment, load = plan.experiment, lab.running_load
    if load is None:
        raise ProvesNothing("the load ended before the fault")

    last_s = record.at_s(injected.last_unix_s or record.anchor_unix_s)
    next_look_s = -math.inf

    def repaired() -> bool:
        """True if clients are served, the fault is over and all victims take part.

        Each of the three can happen without the others.
        """
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
    """Wait until the service has been good for `stable_s`.

    False if the deadline passed first.
    """
    load = lab.running_load
    if load is None:
        raise ProvesNothing("the load ended before the recovery")
    begin_s, stable_s = record.now_s(), plan.experiment.stable_s
    if plan.is_lasting:  # the last `stable_s` of the fault phase were good already
        begin_s -= stable_s

    def settled() -> bool:
        is_good = load.recovery_s(begin_s, stable_s) is not None
        # For a lasting fault, the fault phase has already checked the victims.
        return is_good and (not plan.is_passing or take_part(lab, record, injected, must=False))

    is_settled = lab.hold_until(settled, deadline_s=plan.experiment.longest_settle_s(plan.fault), what="recovery")
    if lab.subject.replica_header and plan.autoscaler is None:
        replicas = set(lab.subject.replicas)
        # A gateway readmits a failed replica after it serves clients from the others.
        lab.hold_until(
            lambda: load.replicas_answering(begin_s) >= replicas, deadline_s=REJOIN_DEADLINE_S, what="replicas"
        )
    return is_settled
