"""Judgement of a trial: computes its values from its recordings.

It runs after the load has stopped and raises whatever makes the trial prove nothing.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import EvidenceLost, Inconclusive, InvalidExperiment, NoData, PartialScrape, StaleData
from pytest_llmchaos.evidence import readiness_file
from pytest_llmchaos.evidence.samples_file import load as load_samples
from pytest_llmchaos.faults.base import strength_of
from pytest_llmchaos.faults.scrape_faults import ScrapeFault
from pytest_llmchaos.model import CLIENT_REQUESTS
from pytest_llmchaos.slo.arithmetic import Slo
from pytest_llmchaos.stats.windows import Part, Window, around, first_unknown_s, parts, unserved_s, windows
from pytest_llmchaos.trial import silence, slo_verdict
from pytest_llmchaos.trial.agreement import await_scrapes, require_counts, require_coverage, require_scraped
from pytest_llmchaos.trial.attribution import (
    SIGNAL_MISSING,
    actions_of,
    detection,
    events_of,
    incidents_of,
    is_unnoticed,
    readiness_events,
    repaired_by,
    require_heard,
    require_whole_records,
    restarts,
    signals_of,
)
from pytest_llmchaos.trial.comparison import require_truths
from pytest_llmchaos.trial.participation import victims_seen
from pytest_llmchaos.trial.recovery import Known, Recovery, recovery, settling
from pytest_llmchaos.trial.replicas import judge_replicas, served_again_s
from pytest_llmchaos.trial.seen_scaling import scaling_of
from pytest_llmchaos.trial.seen_tasks import tasks_of
from pytest_llmchaos.trial.trial import FAULT_WINDOWS, Trial
from pytest_llmchaos.trial.truths import measure_of
from pytest_llmchaos.trial.unprovoked import unprovoked

if TYPE_CHECKING:
    from pytest_llmchaos.evidence.samples_file import Samples
    from pytest_llmchaos.evidence.trial_record import PhaseBounds, Record
    from pytest_llmchaos.lab.injector import Injected
    from pytest_llmchaos.lab.lab import Lab
    from pytest_llmchaos.lab.live_load import RunningLoad
    from pytest_llmchaos.plan.experiment import TrialPlan
    from pytest_llmchaos.prometheus.queries import Rule
    from pytest_llmchaos.stats.windows import Window
    from pytest_llmchaos.trial.attribution import Audit
    from pytest_llmchaos.trial.seen_tasks import LedgerBegin
    from pytest_llmchaos.trial.signals import Incident
    from pytest_llmchaos.trial.slo_result import SloResult

LAST_PUSH_DEADLINE_S = 10.0
# A remediator closes an incident some time after clients are served again. The lab's
# remediator waits for 2 s without a bad signal.
INCIDENT_DEADLINE_S = 5.0
INCIDENT_LOOK_EVERY_S = 0.25


def judge(
    lab: Lab,
    plan: TrialPlan,
    record: Record,
    load: RunningLoad,
    injected: Injected,
    *,
    settled: bool = True,
    effects: LedgerBegin | None = None,
) -> Trial:
    """Return the trial with all its values.

    Args:
        lab: The running stack.
        plan: The planned trial.
        record: The trial's record.
        load: The load, which has ended.
        injected: The injected faults and their times.
        settled: True if the service was good when the trial stopped waiting for it.
        effects: The effect ledger before the load, None for a load without tasks.

    Raises:
        ProvesNothing: The evidence does not pass a gate.
        UnprovokedReaction: The system repaired or paged in a control arm.
    """
    about_load = load.require_held()
    _note_tasks_that_run(record, load)
    samples = load_samples(record.directory / "samples.jsonl")
    ended_s = _phase(record, "recovery").to_s
    start_unix_s = injected.start_unix_s
    fault_s = _phase(record, "fault").from_s if start_unix_s is None else record.at_s(start_unix_s)
    counted_unix_s = await_last_push(lab, load)
    wanted = parts_of(record, samples)
    wanted["whole"] = wanted["whole"]._replace(could_offer=load.due_between(-math.inf, fault_s + _longest_s(plan)))
    found = dict(zip(wanted, parts(samples, wanted.values(), limits=load.limits), strict=True))
    whole = found["whole"]
    require_answers(whole)
    require_every_sample(samples, load)
    require_counts(lab, record, whole, counted_unix_s)
    blind = _blind(lab, record, injected)
    readyz = readiness_file.load(record.directory)
    record.note_events(readiness_events(readyz, lab.subject.api))
    known = Known(
        samples=samples,
        limits=load.limits,
        fault_s=fault_s,
        known_s=min(ended_s, first_unknown_s(samples)),
        ended_s=ended_s,
        victims=victims_seen(lab, record, injected, record.unix_s(ended_s)),
        settled=settled,
    )
    runtime_events = lab.runtime.events(record.anchor_unix_s, time.time())
    require_truths(lab, record, samples, injected, counted_unix_s)
    slos, slo_errors = _slos(lab, plan, record, known, counted_unix_s, load_s=whole.to_s - fault_s, blind=blind)
    log = _audit(lab, record)
    audit = log or []
    unheard = _unheard(lab, plan, injected, has_log=log is not None)
    require_whole_records(record, lab.runtime.event_gaps(record.anchor_unix_s, record.unix_s(ended_s)), audit)
    states = lab.runtime.states()
    require_heard(record, lab.runtime.events(record.anchor_unix_s, time.time()), states, time.time())
    fired = lab.prometheus.firing_spells(record.unix_s(fault_s), time.time())
    services = {*states, *lab.subject.targets}
    record.note_events(events_of(record, injected, runtime_events, audit, fired, services=services))
    detected = detection(
        record,
        injected,
        services,
        audit,
        fired,
        declared=_declared(lab, injected),
        brings_judge=lab.subject.brings_judge,
    )
    recovered = recovery(record, plan, injected, known)
    over_s = _over_s(record, plan, injected, fault_s, recovered)
    found |= zip(FAULT_WINDOWS, _around_fault(plan, known, load, over_s, whole.to_s), strict=True)
    if is_unnoticed(injected, detected.after_s) and blind is None:
        record.finding(SIGNAL_MISSING)
    # An autoscaler's replicas may rest.
    replicas = judge_replicas(lab, samples, served_again_s(record, plan)) if plan.autoscaler is None else None
    if replicas is not None and any(one.trouble for one in replicas.replicas):
        record.finding(f"not every replica serves again: {replicas!r}")
    outside = unprovoked(lab, record)
    for finding in outside.findings:
        record.finding(finding)
    if plan.is_control:
        outside.require_none(may_page=plan.autoscaler is not None)  # its load has peaks beyond its replicas
        if unheard is not None and lab.subject.remediator is not None:
            raise unheard  # a control arm proves only that the remediator did nothing
    rules, no_rules = _rules(lab)
    for rule in rules:
        if rule.error:
            record.finding(f"Prometheus cannot evaluate its rule {rule.name}: {rule.error}")
    names = tuple(sorted({one.name for one in fired if not one.before} | (outside.names if plan.is_control else set())))
    return Trial(
        name=record.trial,
        plan=plan,
        windows=found,
        slos=slos,
        slo_errors=slo_errors,
        detect_s=detected.after_s,
        detected_by=detected.by,
        detection_source=detected.source,
        coincident=detected.coincident,
        recover=recovered,
        settle=settling(record, plan, injected, known),
        repaired_by=repaired_by(injected, runtime_events, audit, states),
        victims=injected.victims,
        fired=names,
        blind=blind,
        could_not_fire=blind or no_rules or silence.of_alerts(rules, record.unix_s(fault_s)),
        acted=actions_of(record, audit) or unheard or (),
        noticed=_noticed(incidents_of(record, fault_s, audit), unheard),
        restarts=restarts(injected, runtime_events),
        findings=tuple(record.findings),
        events=tuple(record.events),
        load=about_load,
        readyz=readyz,
        unserved_s=unserved_s(samples),
        replicas_after=replicas,
        signals=signals_of(
            record,
            fault_s,
            audit,
            fired,
            until_unix_s=injected.reverted_unix_s if injected.acts else None,
            blinded=None if blind is None else lab.subject.prometheus,
            services=services,
            victims=injected.victims,
        ),
        known_alerts=tuple(sorted({one.name for one in (*rules, *lab.prometheus.also_rules()) if one.is_alert})),
        known_rules=lab.subject.known_rules,
        services=tuple(sorted(services)),
        attempts=blind or _attempts(lab, record, counted_unix_s),
        scaling=scaling_of(lab, record, injected, audit, samples),
        agent_tasks=tasks_of(lab, record, injected, effects, counted_unix_s, sent=len(samples)),
    )


def _note_tasks_that_run(record: Record, load: RunningLoad) -> None:
    """Record a finding if tasks of the load may still run."""
    uncancelled = load.stop().uncancelled
    if uncancelled:
        record.finding(
            f"{uncancelled} tasks may still run and disturb later trials: the agent did not confirm at the end of the load that "
            "they are cancelled"
        )


def _blind(lab: Lab, record: Record, injected: Injected) -> Inconclusive | None:
    """Return why Prometheus lacked samples for a while, or None if it saw everything.

    Raises:
        PartialScrape: Scrapes are missing, and no fault hit Prometheus.
        StaleData: The newest scrape is too old, and no fault hit Prometheus.
    """
    try:
        require_coverage(lab, record, injected)
    except (PartialScrape, StaleData) as error:
        if lab.subject.prometheus not in injected.victims:
            raise
        why = f"the fault hit {lab.subject.prometheus}, so what it alone records is unknown: {error}"
        record.finding(why)
        return Inconclusive(why)
    hidden = [act for act in injected.acts if isinstance(act.fault, ScrapeFault) and act.fault.blinds_judge]
    if hidden:
        why = f"the fault hid {hidden[0].victim} from {lab.subject.prometheus}, so what that alone records is unknown"
        record.finding(why)
        return Inconclusive(why)
    return None


def _rules(lab: Lab) -> tuple[tuple[Rule, ...], Inconclusive | None]:
    """Return all rules, or the reason why Prometheus does not list them."""
    try:
        return lab.prometheus.rules(), None
    except Inconclusive as error:
        return (), Inconclusive(f"the alert rules are unknown, so the silence of alerts proves nothing: {error}")


def _audit(lab: Lab, record: Record) -> Audit | None:
    """Return the remediator's audit log, or None without a log.

    An incident that is open has INCIDENT_DEADLINE_S to end while the remediator runs.
    """
    deadline = time.monotonic() + INCIDENT_DEADLINE_S
    while True:
        audit = lab.remediator.audit(record.anchor_unix_s)
        is_open = not all(one.ended for one in incidents_of(record, 0.0, audit or ()))
        if not is_open or time.monotonic() >= deadline or not lab.remediator.running:
            return audit
        time.sleep(INCIDENT_LOOK_EVERY_S)


def _unheard(lab: Lab, plan: TrialPlan, injected: Injected, *, has_log: bool) -> Inconclusive | None:
    """Return why the remediator could not have acted, or None."""
    name = lab.subject.remediator
    is_on = name is not None and plan.remediator
    state = lab.runtime.state(name) if name and is_on and name not in injected.victims else None
    return silence.of_remediator(name, state, no_log_at=lab.subject.audit_file if is_on and not has_log else None)


def _noticed(incidents: tuple[Incident, ...], unheard: Inconclusive | None) -> tuple[Incident, ...] | Inconclusive:
    """Return the incidents, or the reason if one is open or none was written."""
    return incidents if unheard is None or (incidents and all(one.ended for one in incidents)) else unheard


def _attempts(lab: Lab, record: Record, counted_unix_s: float) -> float | Inconclusive | None:
    """Return attempts per request over the whole trial, by the service's counters."""
    counters = lab.subject.attempts_counters
    if counters is None:
        return None
    sent, taken = counters
    slo = Slo(name="attempts", objective=0.5, window_days=1, description="", good=sent, total=taken)
    try:
        found = slo_verdict.judge_slo(lab.prometheus, slo, record.anchor_unix_s, counted_unix_s, rate_rps=None)
    except Inconclusive as error:
        return error
    return found.good / found.total


def _declared(lab: Lab, injected: Injected) -> set[str]:
    """Return the signals about other services that the subject expects."""
    expected = (lab.subject.expected_of(act.fault.kind, strength_of(act.fault), act.victim) for act in injected.acts)
    return {name for one in expected if one is not None for name in one.elsewhere}


def parts_of(record: Record, samples: Samples) -> dict[str, Part]:
    """Return the phases and, last, the whole load.

    The load ends shortly after the last phase, and a window excludes its end.
    """
    found = {phase.name: Part(f"in the {phase.name} phase", phase.from_s, phase.to_s) for phase in record.phases}
    begin_s = 0.0
    last_due_s = max(samples.columns.due_s, default=-math.inf)
    ended_s = max(begin_s, math.nextafter(last_due_s, math.inf), *(phase.to_s for phase in record.phases))
    return {**found, "whole": Part("in the whole trial", begin_s, ended_s)}


def require_every_sample(samples: Samples, load: RunningLoad) -> None:
    """Require a sample for every request that ended.

    Raises:
        EvidenceLost: Samples are missing, as after a full disk.
    """
    done = load.stop().done
    if len(samples) != done:
        raise EvidenceLost(
            f"{done} requests ended, but the clients wrote {len(samples)} samples, so outcomes are missing: "
            "see load.log in the trial's folder"
        )


def require_answers(whole: Window) -> None:
    """Require at least one answered request.

    Raises:
        InvalidExperiment: No request was answered.
    """
    if not whole.offered:
        raise InvalidExperiment("no request was answered in the whole trial: check the service's address and the load")


def _phase(record: Record, name: str) -> PhaseBounds:
    return {phase.name: phase for phase in record.phases}[name]


def _over_s(record: Record, plan: TrialPlan, injected: Injected, fault_s: float, recovered: Recovery) -> float:
    """Return when the system had recovered, or else when the fault was reverted.

    In a control arm, it is the end of the fault phase.
    """
    if plan.is_lasting and recovered.took_s is not None:
        return fault_s + recovered.took_s
    if injected.reverted_unix_s is not None:
        return max(fault_s, record.at_s(injected.reverted_unix_s))
    return _phase(record, "fault").to_s


def _longest_s(plan: TrialPlan) -> float:
    """Return the most seconds from the fault to the trial's end, without recovery."""
    return plan.experiment.longest_fault_s(plan.fault) + plan.experiment.longest_settle_s(plan.fault)


def _around_fault(
    plan: TrialPlan, known: Known, load: RunningLoad, over_s: float, ended_s: float
) -> tuple[Window, ...]:
    """Return the requests before, during and after the fault, up to `ended_s`."""
    begin_s = known.fault_s
    longer = "raise rate_rps or fault_s" if plan.is_passing else "raise rate_rps"
    in_fault = load.due_between(begin_s, begin_s + plan.experiment.longest_fault_s(plan.fault))
    later = load.due_between(over_s, begin_s + _longest_s(plan))
    return around(
        known.samples,
        Part("before the fault", 0.0, begin_s, "raise rate_rps or steady_s"),
        Part("during the fault", begin_s, over_s, longer, could_offer=in_fault),
        Part("after the fault", over_s, max(over_s, ended_s), "raise rate_rps or stable_s", could_offer=later),
        limits=known.limits,
    )


def await_last_push(lab: Lab, load: RunningLoad) -> float:
    """Wait until Prometheus has all of the clients' counts and return the time.

    Raises:
        NoData: They did not arrive within LAST_PUSH_DEADLINE_S.
        StaleData: A target was not scraped in time.
    """
    if lab.subject.pushgateway is None:
        return await_scrapes(lab, time.time())
    expected = load.stop().done
    ended_unix_s = time.time()
    deadline = time.monotonic() + LAST_PUSH_DEADLINE_S
    seen: float | str = "nothing"
    while time.monotonic() < deadline:
        now = time.time()
        try:
            seen = lab.prometheus.value(f"sum({CLIENT_REQUESTS}_total)", now)
        except NoData:
            seen = "nothing"
        if seen == expected:
            return await_scrapes(lab, ended_unix_s)
        time.sleep(0.1)
    require_scraped(lab, ended_unix_s, LAST_PUSH_DEADLINE_S)
    raise NoData(
        f"Prometheus has {seen} of the clients' {expected} answers {LAST_PUSH_DEADLINE_S:g} s after the load ended: "
        "is it, or the pushgateway, down?"
    )


def _slos(
    lab: Lab,
    plan: TrialPlan,
    record: Record,
    known: Known,
    counted_unix_s: float,
    *,
    load_s: float,
    blind: Inconclusive | None = None,
) -> tuple[dict[str, SloResult], dict[str, Inconclusive]]:
    """Return each SLO's result from the fault's start to the last push, or its error.

    The window has `load_s` seconds of load. `blind` is the error of each, if given.
    """
    if blind is not None:
        return {}, {slo.name: blind for slo in lab.slos}
    (clients,) = windows(known.samples, [("since the fault", known.fault_s, math.inf)], limits=known.limits)
    results: dict[str, SloResult] = {}
    errors: dict[str, Inconclusive] = {}
    steady = _phase(record, "steady")
    steady_unix_s = record.unix_s(steady.from_s), record.unix_s(steady.to_s)
    from_unix_s = record.unix_s(known.fault_s)
    for slo in lab.slos:
        try:
            own_rps = slo_verdict.events_rps(lab.prometheus, slo, *steady_unix_s)
            result = slo_verdict.judge_slo(lab.prometheus, slo, from_unix_s, counted_unix_s, rate_rps=own_rps)
            result = replace(result, load_s=load_s, longest_s=_longest_s(plan), unknown=clients.unknown)
            if measure_of(slo) == "availability" and clients.offered:
                result = replace(result, clients_say=float(clients.availability))
        except Inconclusive as error:
            errors[slo.name] = error
        else:
            results[slo.name] = result
    return results, errors
