"""From what was recorded to a judged trial: detection, recovery, repair, SLOs, and whether both truths agree. After the load."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_llmchaos import slo_judge
from pytest_llmchaos.attribution import detected, note_events, repaired_by, restarts, victims_back
from pytest_llmchaos.errors import (
    Inconclusive,
    InvalidExperiment,
    NoData,
    TruthsDisagree,
)
from pytest_llmchaos.history import Window, first_bad_s, first_sustained_good_s, windows
from pytest_llmchaos.samples import read
from pytest_llmchaos.trial import Trial

if TYPE_CHECKING:
    from pytest_llmchaos.experiments import TrialPlan
    from pytest_llmchaos.lab import Injected, Lab
    from pytest_llmchaos.record import Record
    from pytest_llmchaos.running import RunningLoad
    from pytest_llmchaos.slo import SloResult

LAST_PUSH_DEADLINE_S = 10.0
# The callers' counters are pushed at their true end and scraped after it, so whole-trial counts must agree to the event; a
# share of one event per thousand is left for a push that a busy pushgateway repeats.
TRUTHS_TOLERANCE = 0.001
CLOCK_TOLERANCE_S = 0.25
# A request can be counted up to one push (0.25 s), one scrape and its timeout after it ended.
EDGE_S = 2.5


def judged(lab: Lab, plan: TrialPlan, record: Record, load: RunningLoad, injected: Injected) -> Trial:
    """The trial with all its values. Raises what makes it prove nothing; the journal keeps what is known all the same."""
    about_load = load.require_held()
    end_s = record.phases[-1].to_s if record.phases else record.now_s()
    fault_s = record.at_s(injected.start_unix_s) if injected.start_unix_s is not None else _phase_start(record, "fault")
    samples_file = record.directory / "samples.jsonl"
    bounds = [(p.name, p.from_s, p.to_s) for p in record.phases]
    parts = windows(read(samples_file), [*bounds, ("whole", 0.0, end_s + 1e-9)])
    by_name = {w.name: w for w in parts}
    if not by_name["whole"].offered:
        raise InvalidExperiment("no request was answered in the whole trial: nothing can be said of the service")
    counted_s = _await_last_push(lab, load)
    _agree(lab, record, load, by_name["whole"], counted_s)
    _cover(lab, record, injected)
    slos, slo_errors = _slos(lab, plan, record, fault_s, counted_s, samples_file)
    runtime_events = lab.runtime.events(record.anchor_unix_s - 1, time.time())
    audit = lab.remediator.audit(record.anchor_unix_s) if lab.subject.remediator else []
    fired = lab.prometheus.fired(record.unix_s(fault_s), time.time())
    note_events(record, runtime_events, audit, fired)
    detect_s, detected_by = detected(record, fault_s, audit, fired)
    recover_s, why_not, settle_s = _recovered(record, plan, load, injected, fault_s, end_s, samples_file)
    trial = Trial(
        name=record.trial,
        plan=plan,
        windows=by_name,
        slos=slos,
        slo_errors=slo_errors,
        detect_s=detect_s,
        detected_by=detected_by,
        recover_s=recover_s,
        recover_why_not=why_not,
        settle_s=settle_s,
        repaired_by=repaired_by(injected, runtime_events, audit),
        victims=injected.victims,
        alerts=tuple(sorted({f"{a.name}" for a in fired if not a.before})),
        actions=tuple(line for line in audit if line.get("event") in {"done", "failed"}),
        restarts=restarts(runtime_events),
        findings=tuple(record.findings),
        events=tuple(record.events),
        load=about_load,
    )
    if injected.acts and detect_s is None:
        record.finding("signal missing: the fault is proven, yet no alert fired and the remediator noticed nothing")
    return trial


def _phase_start(record: Record, name: str) -> float:
    return next((p.from_s for p in record.phases if p.name == name), 0.0)


def _await_last_push(lab: Lab, load: RunningLoad) -> float:
    """The time at which Prometheus has every one of the callers' counts. Raises NoData if they never arrive whole."""
    if lab.subject.pushgateway is None:
        return time.time()
    summary = load.stop()
    deadline = time.monotonic() + LAST_PUSH_DEADLINE_S
    seen: float | str = "nothing"
    while time.monotonic() < deadline:
        now = time.time()
        try:
            seen = lab.prometheus.value("sum(llmchaos_caller_offered_total)", now)
            done = lab.prometheus.value("sum(llmchaos_caller_requests_total)", now)
        except NoData:
            done = -1.0
        if seen == summary.offered and done == summary.offered:
            return now
        time.sleep(0.1)
    raise NoData(
        f"Prometheus has {seen} of the callers' {summary.offered} requests {LAST_PUSH_DEADLINE_S:g} s after the load ended: "
        "is it, or the pushgateway, down?"
    )


def _agree(lab: Lab, record: Record, load: RunningLoad, whole: Window, at_unix_s: float) -> None:
    """Callers' samples against Prometheus over the whole trial. Raises TruthsDisagree."""
    if lab.subject.pushgateway is None:
        return
    counted = lab.prometheus.vector(
        'sum by (outcome) (llmchaos_caller_requests_total{outcome!="cancelled"})', at_unix_s
    )
    told = {dict(labels)["outcome"]: value for labels, value in counted.items()}
    total = sum(told.values())
    if total <= 0:
        raise NoData("Prometheus counted no request of the callers")
    everything = windows(read(record.directory / "samples.jsonl"), [("all", 0.0, float("inf"))])[0]
    mine, theirs = everything.ok / everything.offered, told.get("ok", 0.0) / total
    if abs(mine - theirs) > TRUTHS_TOLERANCE:
        raise TruthsDisagree(f"availability of the whole trial: callers say {mine:.4f}, Prometheus says {theirs:.4f}")
    offset_s = lab.prometheus.clock_offset_s()
    if abs(offset_s) > CLOCK_TOLERANCE_S:
        raise TruthsDisagree(f"Prometheus' clock is {offset_s:+.3f} s off ours, at most {CLOCK_TOLERANCE_S} s allowed")
    _second_opinion(lab, record, load, whole, at_unix_s)


def _second_opinion(lab: Lab, record: Record, load: RunningLoad, whole: Window, at_unix_s: float) -> None:
    """What the service says of itself, where it differs: a finding, for a dead server cannot count its own failures."""
    span = f"{max(1, round(at_unix_s - load.t0_unix_s))}s"
    query = (
        f'sum(increase(llmlab_requests_total{{outcome="ok"}}[{span}])) / '
        f'sum(increase(llmlab_requests_total{{outcome!="client_cancelled"}}[{span}]))'
    )
    try:
        own = lab.prometheus.value(query, at_unix_s)
    except Inconclusive:
        return
    if whole.offered and abs(own - whole.ok / whole.offered) > 0.01:
        record.finding(f"the api's own counters say availability {own:.4f}, its callers {whole.ok / whole.offered:.4f}")


def _cover(lab: Lab, record: Record, injected: Injected) -> None:
    """Raises PartialScrape or StaleData where scrapes are missing that the verdict rests on."""
    steady = next((p for p in record.phases if p.name == "steady"), None)
    if steady is None or not lab.subject.scrape_jobs:
        return
    first = record.unix_s(max(0.0, steady.to_s - 4.0))
    lab.prometheus.require_coverage(lab.subject.scrape_jobs, first, time.time() - 0.5, allow_down=injected.victims)


def _slos(
    lab: Lab, plan: TrialPlan, record: Record, fault_s: float, at_unix_s: float, samples_file: Path
) -> tuple[dict[str, SloResult], dict[str, Inconclusive]]:
    """Each SLO over the window from the fault's start to the last push; what Prometheus cannot answer, as its error."""
    callers = windows(read(samples_file), [("since fault", fault_s, float("inf"))])[0]
    results: dict[str, SloResult] = {}
    errors: dict[str, Inconclusive] = {}
    rate_rps = plan.experiment.load.mean_rps
    for slo in lab.slos:
        try:
            result = slo_judge.judged(lab.prometheus, slo, record.unix_s(fault_s), at_unix_s, rate_rps=rate_rps)
            if slo.name == "availability" and callers.offered:
                result = replace(result, callers_say=callers.ok / callers.offered)
                finding = slo_judge.compared(
                    result, callers.ok / callers.offered, edge_events=max(2.0, EDGE_S * rate_rps)
                )
                if finding:
                    record.finding(finding)
        except Inconclusive as error:
            errors[slo.name] = error
        else:
            results[slo.name] = result
    return results, errors


def _recovered(
    record: Record,
    plan: TrialPlan,
    load: RunningLoad,
    injected: Injected,
    fault_s: float,
    end_s: float,
    samples_file: Path,
) -> tuple[float | None, str, float | None]:
    """(seconds from fault to recovery or None, why not, seconds from a passing fault's end to settled or None)."""
    stable_s = plan.experiment.stable_s
    if not injected.acts or injected.reverted_unix_s is None:
        return None, "no fault was injected, so nothing had to recover", None
    reverted_s = record.at_s(injected.reverted_unix_s)
    if plan.fault.lifetime == "passing":
        settled = first_sustained_good_s(
            read(samples_file), from_s=reverted_s, stable_s=stable_s, limits=load.limits, until_s=end_s
        )
        settle = None if settled is None else round(max(0.0, settled - reverted_s), 3)
        return None, f"{plan.fault} passes by itself: ask for trial.time_to_settle_s", settle
    last_s = record.at_s(injected.last_unix_s or injected.reverted_unix_s)
    good = first_sustained_good_s(
        read(samples_file), from_s=last_s, stable_s=stable_s, limits=load.limits, until_s=end_s
    )
    bad = first_bad_s(read(samples_file), from_s=fault_s, limits=load.limits)
    back = victims_back(record, injected)
    if back is None:
        return (
            None,
            f"{', '.join(injected.victims)} was still down when the instrument reverted the fault {reverted_s - fault_s:.1f} s after it",
            None,
        )
    if good is None:
        return None, f"callers never saw {stable_s:g} s without a bad request after {plan.fault}", None
    recovered = max(back, good if bad is not None else back)
    if recovered > reverted_s:
        why = f"the service came back {recovered - fault_s:.1f} s after the fault, but only after the instrument's own revert at {reverted_s - fault_s:.1f} s"
        return None, why, None
    return round(recovered - fault_s, 3), "", None
