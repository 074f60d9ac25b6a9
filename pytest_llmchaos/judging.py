"""From what was recorded to a judged trial: detection, recovery, repair, SLOs, and whether both truths agree. After the load."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytest_llmchaos.errors import (
    Inconclusive,
    InvalidExperiment,
    LoadNotHeld,
    NoData,
    PartialScrape,
    TooFewSamples,
    TruthsDisagree,
)
from pytest_llmchaos.history import Window, first_bad_s, first_sustained_good_s, windows
from pytest_llmchaos.samples import read
from pytest_llmchaos.slo import SloResult, window_query
from pytest_llmchaos.trial import Trial

if TYPE_CHECKING:
    from pytest_llmchaos.experiments import TrialPlan
    from pytest_llmchaos.lab import Injected, Lab
    from pytest_llmchaos.model import RuntimeEvent, Sample
    from pytest_llmchaos.record import Record
    from pytest_llmchaos.running import RunningLoad

LAST_PUSH_DEADLINE_S = 10.0
# The callers' counters are pushed at their true end and scraped after it, so whole-trial counts must agree to the event; a
# share of one event per thousand is left for a push that a busy pushgateway repeats.
TRUTHS_TOLERANCE = 0.001
CLOCK_TOLERANCE_S = 0.25


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
    _cover(lab, record, injected, fault_s)
    slos, slo_errors = _slos(lab, plan, record, fault_s, counted_s, samples_file)
    runtime_events = lab.runtime.events(record.anchor_unix_s - 1, time.time())
    audit = lab.remediator.audit(record.anchor_unix_s) if lab.subject.remediator else []
    fired = lab.prometheus.fired(record.unix_s(fault_s), time.time())
    _note_events(record, runtime_events, audit, fired)
    detect_s, detected_by = _detected(record, fault_s, audit, fired)
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
        restarts=_restarts(runtime_events),
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


def _cover(lab: Lab, record: Record, injected: Injected, fault_s: float) -> None:
    """Raises PartialScrape or StaleData where scrapes are missing that the verdict rests on."""
    steady = next((p for p in record.phases if p.name == "steady"), None)
    if steady is None or not lab.subject.scrape_jobs:
        return
    first = record.unix_s(max(0.0, steady.to_s - 4.0))
    lab.prometheus.require_coverage(lab.subject.scrape_jobs, first, time.time() - 0.5, allow_down=injected.victims)


def _slos(
    lab: Lab, plan: TrialPlan, record: Record, fault_s: float, at_unix_s: float, samples_file: Any
) -> tuple[dict[str, SloResult], dict[str, Inconclusive]]:
    """Each SLO over the window from the fault's start to the last push."""
    window_s = at_unix_s - record.unix_s(fault_s)
    callers = windows(read(samples_file), [("since fault", fault_s, float("inf"))])[0]
    results: dict[str, SloResult] = {}
    errors: dict[str, Inconclusive] = {}
    for slo in lab.slos:
        query = window_query(slo, window_s)
        try:
            estimated = _resets(lab, query.resets, at_unix_s) > 0
            good = lab.prometheus.value(query.good_by_increase if estimated else query.good, at_unix_s)
            total = lab.prometheus.value(query.total_by_increase if estimated else query.total, at_unix_s)
            if total <= 0:
                raise NoData(f"{slo.name}: no {slo.unit} in the {window_s:.1f} s since the fault")
        except Inconclusive as error:
            errors[slo.name] = error
            continue
        results[slo.name] = SloResult(
            slo=slo,
            good=good,
            total=total,
            window_s=window_s,
            rate_rps=plan.experiment.load.mean_rps,
            query=query.ratio,
            raw={"good": good, "total": total},
            callers_say=callers.ok / callers.offered if slo.name == "availability" and callers.offered else None,
            estimated=estimated,
        )
    return results, errors


def _resets(lab: Lab, query: str, at_unix_s: float) -> float:
    try:
        return lab.prometheus.value(query, at_unix_s)
    except NoData:
        return 0.0


def _note_events(
    record: Record, events: Sequence[RuntimeEvent], audit: Sequence[Mapping[str, Any]], fired: Sequence[Any]
) -> None:
    """Runtime, remediator and alerts on the trial's one clock, in the journal."""
    for event in events:
        detail = " ".join(f"{k}={v}" for k, v in sorted(event.attributes.items()) if k != "execID")
        record.event(
            "runtime",
            f"{event.service} {event.action} {detail}".strip(),
            at_s=record.at_s(event.at_unix_s),
            service=event.service,
        )
    for line in audit:
        what = f"{line.get('event')} {line.get('action') or ''} {line.get('service') or ''}: {line.get('rule') or line.get('reason') or ''}"
        record.event(
            "remediator",
            " ".join(what.split()),
            at_s=record.at_s(float(line["at"])),
            service=str(line.get("service") or ""),
        )
    for alert in fired:
        if not alert.before:
            name = f"alert {alert.name} fires"
            record.event(
                "prometheus", name, at_s=record.at_s(alert.at_unix_s), service=str(alert.labels.get("service", ""))
            )
    record.events.sort(key=lambda e: float(e["at_s"]))


def _detected(
    record: Record, fault_s: float, audit: Sequence[Mapping[str, Any]], fired: Sequence[Any]
) -> tuple[float | None, str | None]:
    """The first signal after the fault that the system raised by itself."""
    signals = [(record.at_s(a.at_unix_s), f"alert {a.name}") for a in fired if not a.before]
    signals += [
        (record.at_s(float(line["at"])), f"remediator rule {line.get('rule')}")
        for line in audit
        if line.get("event") == "detected"
    ]
    after = sorted((at, what) for at, what in signals if at >= fault_s)
    return (round(after[0][0] - fault_s, 3), after[0][1]) if after else (None, None)


def _recovered(
    record: Record,
    plan: TrialPlan,
    load: RunningLoad,
    injected: Injected,
    fault_s: float,
    end_s: float,
    samples_file: Any,
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
    back = _victims_back(record, injected)
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


def _victims_back(record: Record, injected: Injected) -> float | None:
    """When the last victim ran again before the revert, by the runtime's own events; None if one did not."""
    back: list[float] = []
    for victim in injected.victims:
        starts = [
            float(e["at_s"])
            for e in record.events
            if e["source"] == "runtime"
            and e["service"] == victim
            and str(e["what"]).startswith((f"{victim} start", f"{victim} unpause"))
            and record.at_s(injected.start_unix_s or 0.0)
            <= float(e["at_s"])
            <= record.at_s(injected.reverted_unix_s or 0.0)
        ]
        if not starts:
            return None
        back.append(max(starts))
    return max(back, default=None)


def repaired_by(injected: Injected, events: Sequence[RuntimeEvent], audit: Sequence[Mapping[str, Any]]) -> str | None:
    """Who brought the victims back, from the runtime's events and the remediator's audit log; never assumed."""
    if not injected.acts or injected.start_unix_s is None:
        return None
    if all(act.fault.kind == "restart" for act in injected.acts):
        return "itself"
    reverted = injected.reverted_unix_s or float("inf")
    names: set[str] = set()
    for victim in injected.victims:
        start = next(
            (e for e in events if e.service == victim and e.action == "start" and e.at_unix_s > injected.start_unix_s),
            None,
        )
        if start is None:
            continue
        if _acted(audit, victim, start.at_unix_s):
            names.add("remediator")
        else:
            names.add("instrument" if start.at_unix_s >= reverted - 0.05 else "unknown")
    return names.pop() if len(names) == 1 else ("mixed" if names else None)


def _acted(audit: Sequence[Mapping[str, Any]], service: str, at_unix_s: float) -> bool:
    """Whether the remediator wrote down that it was acting on the service when the runtime saw the service start."""
    intents = [line for line in audit if line.get("event") == "intent" and line.get("service") == service]
    dones = {line.get("incident"): float(line["at"]) for line in audit if line.get("event") == "done"}
    return any(
        float(line["at"]) - 0.05 <= at_unix_s <= dones.get(line.get("incident"), float(line["at"]) + 10.0) + 0.05
        for line in intents
    )


def _restarts(events: Sequence[RuntimeEvent]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for event in events:
        if event.action == "start":
            counts[event.service] = counts.get(event.service, 0) + 1
    return counts


def as_json(
    lab: Lab,
    plan: TrialPlan,
    record: Record,
    trial: Trial | None,
    verdict: str,
    reason: str | None,
    samples: Sequence[Sample],
) -> dict[str, Any]:
    """The trial as it stands in run.json; where it could not be judged, as far as it is known."""
    _ = samples
    return {
        "scenario": plan.scenario,
        "fault": str(plan.fault),
        "target": plan.fault.target,
        "victim": ", ".join(dict.fromkeys(act.victim for act in plan.injections)) or None,
        "fidelity": plan.fault.fidelity,
        "lifetime": plan.fault.lifetime,
        "remediator": plan.experiment.remediator,
        "repeat": plan.repeat,
        "verdict": verdict,
        "reason": reason,
        "time_to_detect_s": trial.detect_s if trial else None,
        "detected_by": trial.detected_by if trial else None,
        "time_to_recover_s": trial.recover_s if trial else None,
        "time_to_settle_s": trial.settle_s if trial else None,
        "repaired_by": trial.repaired_by if trial else None,
        "proof": list(record.proofs),
        "phases": [_phase_json(w) for w in trial.windows.values() if w.name != "whole"] if trial else [],
        "slos": [_slo_json(r) for r in trial.slos.values()] if trial else [],
        "load": dict(trial.load) if trial else {},
        "events": list(record.events),
        "findings": list(record.findings),
        "healed": record.healed,
    }


def _phase_json(window: Window) -> dict[str, Any]:
    return {
        "name": window.name,
        "from_s": round(window.from_s, 3),
        "to_s": round(window.to_s, 3),
        "offered": window.offered,
        "ok": window.ok,
        "outcomes": {k: v for k, v in window.outcomes.items() if v},
        "ttft_p95_s": _quantile(window, "ttft_s", "p95"),
        "e2e_p95_s": _quantile(window, "e2e_s", "p95"),
        "e2e_p99_s": _quantile(window, "e2e_s", "p99"),
    }


def _quantile(window: Window, what: str, which: str) -> float | None:
    try:
        value = float(getattr(getattr(window, what), which))
    except TooFewSamples:
        return None
    return round(value, 6) if value != float("inf") else None


def _slo_json(result: SloResult) -> dict[str, Any]:
    return {
        "name": result.name,
        "objective": result.objective,
        "value": round(result.value, 6),
        "query": result.query,
        "budget_spent": result.budget_spent,
        "burn_rate": round(result.burn_rate, 4),
        "callers_say": None if result.callers_say is None else round(result.callers_say, 6),
        "raw": dict(result.raw),
        "window_s": round(result.window_s, 3),
        "estimated": result.estimated,
    }


__all__ = ["LoadNotHeld", "PartialScrape", "as_json", "judged", "repaired_by"]
