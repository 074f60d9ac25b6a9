"""The judgement of a trial from its recordings."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
from support.judged_world import (
    BACK_S,
    END_S,
    GOOD_S,
    KILLED_S,
    RATE_RPS,
    REVERTED_S,
    Performed,
    answered,
    judge,
)

from pytest_llmchaos import experiment, faults
from pytest_llmchaos.errors import (
    CounterReset,
    EvidenceLost,
    Inconclusive,
    InvalidExperiment,
    NoData,
    PartialScrape,
    PrometheusUnreachable,
    StaleData,
)
from pytest_llmchaos.evidence.trial_record import PhaseBounds
from pytest_llmchaos.lab.injector import Injected
from pytest_llmchaos.model import Injection, RuntimeEvent, ServiceState
from pytest_llmchaos.prometheus.queries import FiredAlert, Rule, Target
from pytest_llmchaos.stats.columns import columns_of
from pytest_llmchaos.subject.lab_signals import Expected
from pytest_llmchaos.trial import judge as judging
from pytest_llmchaos.trial.own_load import judge_own_load
from pytest_llmchaos.trial.recovery import Known, VictimsSeen
from pytest_llmchaos.trial.seen_tasks import LedgerBegin
from pytest_llmchaos.trial.unprovoked import Unprovoked

LONG = 100.0  # seconds for which the load could have continued


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with judge(tmp_path_factory.mktemp("judge")) as served:
        yield served


@pytest.fixture
def performed(world, tmp_path):
    made = Performed(tmp_path, *world)
    made.lab.reasons.add(made.t0_unix_s, made.t0_unix_s + 99, alerts_alone=True)
    return made


def judged(performed, **about):
    with performed.load() as (record, running):
        running._due_s = [number / RATE_RPS for number in range(round(LONG * RATE_RPS))]
        return judging.judge(performed.lab, performed.plan, record, running, performed.injected, **about)


def passing(performed):
    """The same trial with a passing fault of 6 s."""
    made = experiment(
        load=performed.plan.load, fault=faults.pause("api"), fault_s=REVERTED_S - KILLED_S, settle_within_s=25
    ).kwargs["experiment"]
    performed.plan = replace(performed.plan, experiment=made, fault=made.faults[0])
    performed.injected.acts = [Injection(after_s=0.0, fault=faults.pause("api").primitive, victim="api")]
    performed.runtime._events = [
        RuntimeEvent(at_unix_s=performed.t0_unix_s + at_s, service="api", action=action)
        for at_s, action in ((KILLED_S, "pause"), (REVERTED_S, "unpause"))
    ]
    return performed


def control(performed):
    performed.plan = replace(performed.plan, fault=faults.none(), injections=())
    performed.injected = Injected()
    performed.lab.subject = replace(performed.lab.subject, scrape_jobs=("model",))
    return performed


def test_each_task_of_a_load_has_a_record(performed):
    with pytest.raises(EvidenceLost, match=r"tasks\.jsonl has 0 of \d\d+ tasks, so ends are missing"):
        judged(performed, effects=LedgerBegin(unknown=NoData("no ledger")))


class TestWindows:
    def test_windows_of_a_lasting_fault_end_with_its_repair(self, performed):
        trial = judged(performed)
        over_s = KILLED_S + trial.time_to_recover_s

        assert [(one.from_s, one.to_s) for one in (trial.before_fault, trial.during_fault, trial.after_fault)] == [
            (0.0, KILLED_S),
            (KILLED_S, over_s),
            (over_s, END_S),
        ]
        assert trial.during_fault.hint == "raise rate_rps"
        assert list(trial.windows) == ["steady", "fault", "recovery", "whole", "before", "during", "after"]

    def test_windows_of_a_passing_fault_end_with_its_end(self, performed):
        trial = judged(passing(performed))

        assert (trial.during_fault.to_s, trial.after_fault.from_s) == (REVERTED_S, REVERTED_S)
        assert trial.during_fault.hint == "raise rate_rps or fault_s"

    def test_windows_of_a_control_arm_end_with_its_fault_phase(self, performed):
        trial = judged(control(performed))

        assert (trial.before_fault.to_s, trial.during_fault.to_s) == (KILLED_S, REVERTED_S)

    def test_windows_have_the_most_requests_that_they_could_have_had(self, performed):
        """The deadlines are 40 s to repair and 30 s to settle."""
        trial = judged(performed)
        later_s = KILLED_S + 70 - trial.after_fault.from_s

        assert trial.whole.could_offer == (KILLED_S + 70) * RATE_RPS
        assert trial.during_fault.could_offer == 40 * RATE_RPS
        assert trial.after_fault.could_offer == pytest.approx(later_s * RATE_RPS, abs=1)
        assert trial.before_fault.could_offer == 0

    def test_windows_of_a_passing_fault_could_have_had_those_of_its_seconds(self, performed):
        trial = judged(passing(performed))

        assert trial.whole.could_offer == (REVERTED_S + 25) * RATE_RPS
        assert trial.during_fault.could_offer == (REVERTED_S - KILLED_S) * RATE_RPS
        assert trial.after_fault.could_offer == 25 * RATE_RPS


class TestParts:
    def parts(self, due_s, *phases):
        samples = SimpleNamespace(columns=columns_of([replace(answered()[0], due_s=at_s) for at_s in due_s]))
        record = SimpleNamespace(phases=[PhaseBounds(name=name, from_s=a, to_s=b) for name, a, b in phases])
        return {name: (part.from_s, part.to_s) for name, part in judging.parts_of(record, samples).items()}

    def test_parts_hold_the_last_request_that_was_due_after_the_last_phase(self):
        found = self.parts([1.0, 9.0, 3.0], ("steady", 0.0, 5.0), ("fault", 5.0, 8.0))

        assert found == {"steady": (0.0, 5.0), "fault": (5.0, 8.0), "whole": (0.0, math.nextafter(9.0, math.inf))}

    def test_parts_last_as_long_as_the_phases_do(self):
        assert self.parts([1.0], ("steady", 0.0, 5.0), ("fault", 5.0, 8.0))["whole"] == (0.0, 8.0)

    def test_parts_of_a_load_without_phases_and_requests_are_empty(self):
        assert self.parts([]) == {"whole": (0.0, 0.0)}


class TestServiceLevels:
    def test_slos_are_of_the_load_since_the_fault(self, performed):
        trial = judged(performed)
        found = trial.slo("availability")

        assert (found.load_s, found.longest_s, found.unknown) == (END_S - KILLED_S, 70.0, 0)
        assert found.rate_rps == pytest.approx(RATE_RPS, rel=0.1)
        assert found.clients_say == pytest.approx(1 - (GOOD_S - KILLED_S) / (END_S - KILLED_S))
        assert {one.clients_say for name, one in trial.slos.items() if name != "availability"} == {None}

    def test_slos_have_the_clients_availability_too(self, performed):
        """Without requests since the fault, clients have no availability."""
        availability = next(slo for slo in performed.lab.slos if slo.name == "availability")
        performed.lab._slos = (replace(availability, name="a-first"), availability)
        found, errors = self.of(performed, performed.seen)

        assert errors == {}
        assert found["a-first"].clients_say is None
        assert found["availability"].clients_say == pytest.approx(0.925)
        early, _ = self.of(performed, [one for one in performed.seen if one.due_s < KILLED_S])
        assert early["availability"].clients_say is None
        performed.lab._slos = (replace(availability, name="a-first", clients="availability"),)
        assert self.of(performed, performed.seen)[0]["a-first"].clients_say == pytest.approx(0.925)

    def test_slos_count_the_requests_that_were_open_at_the_end(self, performed):
        performed.seen[-3:] = [replace(one, outcome="cancelled") for one in performed.seen[-3:]]
        found, _ = self.of(performed, performed.seen)

        assert {one.unknown for one in found.values()} == {3}

    def test_slos_that_prometheus_cannot_answer_have_its_errors(self, performed):
        availability = next(slo for slo in performed.lab.slos if slo.name == "availability")
        gone = replace(availability, name="gone", good="gone_total", total="gone_total")
        performed.lab._slos = (gone, availability)
        found, errors = self.of(performed, performed.seen)

        assert list(found) == ["availability"]
        assert isinstance(errors["gone"], NoData)

    def of(self, performed, seen):
        """Return SLOs and errors for these samples of the fault's time."""
        counted_unix_s = performed.t0_unix_s + END_S + 3
        with performed.load() as (record, running):
            known = Known(
                samples=seen,
                limits=running.limits,
                fault_s=KILLED_S,
                known_s=END_S,
                ended_s=END_S,
                victims=VictimsSeen(),
            )
            return judging._slos(performed.lab, performed.plan, record, known, counted_unix_s, load_s=END_S - KILLED_S)


class TestSignals:
    def test_signals_after_our_revert_are_those_of_no_fault(self, performed):
        performed.injected.reverted_unix_s = performed.t0_unix_s + KILLED_S + 1

        assert judged(performed).signals == ()

    def test_signals_of_a_control_arm_are_those_of_its_whole_load(self, performed):
        control(performed).injected.reverted_unix_s = performed.t0_unix_s + KILLED_S + 1
        trial = judged(performed)

        assert [one.name for one in trial.signals] == ["ServiceDown"]
        assert tuple(map(str, trial.alerts)) == ("ServiceDown",)

    @pytest.mark.parametrize(
        ("arm", "names"), [(control, ("ServiceDown", "SlowBurn")), (lambda it: it, ("ServiceDown",))]
    )
    def test_signals_from_before_the_load_are_alerts_in_a_control_arm_only(self, performed, monkeypatch, arm, names):
        """The alert is a ticket, because a page refutes a control arm."""
        found = Unprovoked(names=frozenset({"ServiceDown", "SlowBurn"}))
        monkeypatch.setattr(judging, "unprovoked", lambda *_: found)

        assert tuple(map(str, judged(arm(performed)).alerts)) == names

    @pytest.mark.parametrize(
        ("declared", "detected"),
        [
            ({"elsewhere": ("ServiceDown",)}, "alert ServiceDown"),
            ({"elsewhere": ("Other",)}, None),
            # A signal expected of the victim does not explain its neighbour's.
            ({"alerts": ("ServiceDown",)}, None),
        ],
    )
    def test_signals_that_the_subject_expects_elsewhere_detect_a_fault(self, performed, declared, detected):
        """The fault hit a replica, and the alert is about the gateway."""
        performed.injected.acts = [replace(act, victim="model-1") for act in performed.injected.acts]
        performed.runtime._events = [
            *performed.runtime._events,
            *(replace(event, service="model-1") for event in performed.runtime._events),
        ]
        performed.lab.subject = replace(
            performed.lab.subject,
            scrape_jobs=("model",),
            expected=(Expected(fault="kill", on="model-1", **declared),),
        )

        assert judged(performed).detected_by == detected

    @pytest.mark.parametrize(("brings_judge", "source"), [(True, "run_prometheus"), (False, "stack_prometheus")])
    def test_the_trial_has_the_prometheus_that_detected_its_fault(self, performed, brings_judge, source):
        performed.lab.subject = replace(performed.lab.subject, brings_judge=brings_judge)

        assert judged(performed).detection_source == source

    def test_signals_that_a_subject_does_not_expect_are_not_declared(self, performed):
        performed.lab.subject = replace(performed.lab.subject, expected=())

        assert judging._declared(performed.lab, performed.injected) == set()

    def test_signals_have_known_names_if_prometheus_has_the_rules(self, performed, monkeypatch):
        def unreachable():
            raise PrometheusUnreachable("no rules here")

        monkeypatch.setattr(performed.lab.prometheus, "rules", lambda: (rule("ServiceDown"), rule("x", is_alert=False)))
        assert judged(performed).known_alerts == ("ServiceDown",)
        monkeypatch.setattr(performed.lab.prometheus, "rules", unreachable)
        assert judged(performed).known_alerts == ()


def rule(name, error="", evaluated_unix_s=math.inf, *, is_alert=True):
    return Rule(name=name, is_alert=is_alert, error=error, evaluated_unix_s=evaluated_unix_s)


class TestSilence:
    """Silence of alerts and of the remediator is evidence only if they could react."""

    @pytest.fixture
    def quiet(self, performed, monkeypatch):
        monkeypatch.setattr(performed.lab.prometheus, "firing_spells", lambda *_: ())
        return performed

    def with_rules(self, performed, monkeypatch, *rules):
        monkeypatch.setattr(performed.lab.prometheus, "rules", lambda: rules)
        return judged(performed)

    def test_silence_of_alerts_that_were_evaluated_is_evidence(self, quiet, monkeypatch):
        assert self.with_rules(quiet, monkeypatch, rule("ServiceDown"), rule("x", is_alert=False)).alerts == ()

    def test_silence_of_a_prometheus_without_alert_rules_proves_nothing(self, quiet, monkeypatch):
        with pytest.raises(NoData, match="has no alert rules, so none could have fired"):
            assert self.with_rules(quiet, monkeypatch, rule("x", is_alert=False)).alerts == ()

    def test_silence_of_a_rule_that_cannot_be_evaluated_proves_nothing(self, quiet, monkeypatch):
        trial = self.with_rules(quiet, monkeypatch, rule("ServiceDown"), rule("x", "many-to-many", is_alert=False))

        with pytest.raises(Inconclusive, match=r"cannot evaluate its rule x \(many-to-many\)"):
            assert trial.alerts == ()
        assert "Prometheus cannot evaluate its rule x: many-to-many" in trial.findings

    def test_silence_of_a_rule_that_was_last_evaluated_before_the_fault_proves_nothing(self, quiet, monkeypatch):
        before = quiet.t0_unix_s + KILLED_S - 0.1

        with pytest.raises(Inconclusive, match="has not evaluated its rule ServiceDown since the fault began"):
            assert self.with_rules(quiet, monkeypatch, rule("ServiceDown", evaluated_unix_s=before)).alerts == ()
        at = quiet.t0_unix_s + KILLED_S + 0.001  # instants are kept to the millisecond
        assert self.with_rules(quiet, monkeypatch, rule("ServiceDown", evaluated_unix_s=at)).alerts == ()

    def test_silence_of_all_but_one_proves_nothing_if_another_could_not_fire(self, performed, monkeypatch):
        trial = self.with_rules(performed, monkeypatch, rule("ServiceDown"), rule("Busy", "many-to-many"))

        assert "ServiceDown" in trial.alerts
        assert trial.alerts != ()
        for claim in (lambda: "Busy" not in trial.alerts, lambda: trial.alerts == ("ServiceDown",)):
            with pytest.raises(Inconclusive, match=r"cannot evaluate its rule Busy \(many-to-many\)"):
                claim()

    def test_silence_of_rules_that_cannot_be_read_proves_nothing(self, quiet, monkeypatch):
        def unreachable():
            raise PrometheusUnreachable("no rules here")

        monkeypatch.setattr(quiet.lab.prometheus, "rules", unreachable)
        with pytest.raises(Inconclusive, match=r"the alert rules are unknown, .* no rules here"):
            assert judged(quiet).alerts == ()

    def test_silence_of_a_remediator_that_is_not_named_proves_nothing(self, performed):
        with pytest.raises(NoData, match="set llmchaos_remediator"):
            assert judged(performed).actions == ()

    @pytest.mark.parametrize(
        ("changes", "trouble"),
        [
            ({"running": False}, "does not run"),
            ({"paused": True}, "is paused"),
            ({"healthy": False}, "fails its own health check"),
        ],
    )
    def test_silence_of_a_remediator_that_could_not_act_proves_nothing(self, performed, changes, trouble):
        self.with_remediator(performed, **changes)

        with pytest.raises(Inconclusive, match=f"remediator {trouble} after the trial, so its silence proves nothing"):
            assert judged(performed).actions == ()

    @pytest.mark.parametrize("healthy", [True, None], ids=["healthy", "without a health check"])
    def test_silence_of_a_remediator_that_could_have_acted_is_evidence(self, performed, healthy):
        self.with_remediator(performed, healthy=healthy)

        assert judged(performed).actions == ()

    def test_silence_of_a_stopped_or_hit_remediator_shows_its_earlier_acts(self, performed):
        self.with_remediator(performed, running=False)
        performed.plan = replace(performed.plan, experiment=replace(performed.plan.experiment, remediator=False))
        assert judged(performed).actions == ()
        performed.plan = replace(performed.plan, experiment=replace(performed.plan.experiment, remediator=True))
        performed.injected.acts += [Injection(after_s=0.0, fault=faults.kill("api").primitive, victim="remediator")]
        assert judged(performed).actions == ()

    def test_silence_of_a_remediator_that_could_not_write_an_incident_proves_nothing(self, performed):
        with pytest.raises(NoData, match="set llmchaos_remediator"):
            assert judged(performed).incidents == ()
        self.with_remediator(performed, running=False)
        with pytest.raises(Inconclusive, match="does not run after the trial"):
            assert judged(performed).incidents == ()
        self.with_remediator(performed, healthy=True)
        assert judged(performed).incidents == ()

    def test_silence_of_a_remediator_that_could_not_write_an_end_does_not_show_the_end(self, performed, monkeypatch):
        monkeypatch.setattr(judging, "INCIDENT_DEADLINE_S", 0.0)
        at = performed.t0_unix_s + KILLED_S
        lines = [{"at": at + 1, "event": "detected", "rule": "r", "service": "api", "incident": "a"}]
        self.with_remediator(performed, healthy=True)
        performed.runtime.audit = lambda: lines
        assert [one.ended for one in judged(performed).incidents] == [False]

        self.with_remediator(performed, running=False)
        performed.runtime.audit = lambda: lines
        with pytest.raises(Inconclusive, match="does not run after the trial"):
            assert judged(performed).incidents
        lines.append({"at": at + 4, "event": "recovered", "service": "api", "incident": "a"})
        assert [(one.after_s, one.ended_after_s) for one in judged(performed).incidents] == [(1.0, 4.0)]

    def test_silence_of_an_end_that_is_about_to_be_written_is_waited_for(self, performed, monkeypatch):
        monkeypatch.setattr(judging, "INCIDENT_LOOK_EVERY_S", 0.0)
        at = performed.t0_unix_s + KILLED_S
        reads = []

        def audit():
            reads.append({"at": at + 1, "event": "detected", "rule": "r", "service": "api", "incident": "a"})
            end = {"at": at + 4, "event": "recovered", "rule": "r", "service": "api", "incident": "a"}
            return [reads[0], *([end] if len(reads) >= 4 else [])]

        self.with_remediator(performed, healthy=True)
        performed.runtime.audit = audit
        trial = judged(performed)

        assert [one.ended_after_s for one in trial.incidents] == [4.0]
        assert [one.what for one in trial.events if one.source == "remediator"] == [
            "detected api: r",
            "recovered api: r",
        ]

    def test_silence_of_a_remediator_without_a_log_proves_nothing(self, performed):
        self.with_remediator(performed)
        performed.runtime.audit = lambda: None
        trial = judged(performed)

        with pytest.raises(
            Inconclusive, match=r"remediator has no audit log at /audit/audit\.jsonl, .* set llmchaos_audit_file"
        ):
            assert trial.actions == ()
        assert trial.detected_by == "alert ServiceDown"  # the trial itself is still judged
        performed.injected.acts += [Injection(after_s=0.0, fault=faults.kill("api").primitive, victim="remediator")]
        with pytest.raises(Inconclusive, match="has no audit log"):  # its acts before the fault are unknown too
            assert judged(performed).actions == ()

    def test_silence_without_a_log_is_evidence_if_the_remediator_was_stopped(self, performed):
        self.with_remediator(performed, running=False)
        performed.runtime.audit = lambda: None
        performed.plan = replace(performed.plan, experiment=replace(performed.plan.experiment, remediator=False))

        assert judged(performed).actions == ()

    def with_remediator(self, performed, **changes):
        performed.lab.subject = replace(performed.lab.subject, remediator="remediator")
        state = ServiceState(service="remediator", running=True, identity="r")
        performed.runtime._states["remediator"] = replace(state, **changes)
        performed.runtime.audit = list


@pytest.mark.parametrize("lose", [lambda seen: seen[:-1], lambda seen: [*seen, seen[-1]]], ids=["fewer", "more"])
def test_requests_that_left_no_sample_are_lost_evidence(performed, lose):
    count = len(performed.seen)
    performed.seen = lose(performed.seen)

    lost = rf"{count} requests ended, but the clients wrote {len(performed.seen)} samples"
    with pytest.raises(EvidenceLost, match=lost):
        judged(performed)
    with performed.load() as (record, running), pytest.raises(EvidenceLost, match=lost):
        judge_own_load(performed.lab, record, running, performed.injected)


class TestAFaultOnPrometheus:
    """Inconclusive values of Prometheus. The clients' own counts stand."""

    @pytest.fixture(params=[PartialScrape("a gap of 8 s"), StaleData("8 s old")], ids=["gap", "stale"])
    def gap(self, performed, monkeypatch, request):
        def missing(*_, **__):
            raise request.param

        monkeypatch.setattr(performed.lab.prometheus, "require_coverage", missing)
        return performed

    def test_what_it_alone_records_is_inconclusive(self, gap):
        gap.injected.acts.append(Injection(after_s=0.0, fault=faults.pause("x").primitive, victim="prometheus"))
        gap.lab.subject = replace(gap.lab.subject, prometheus="prometheus")
        trial = judged(gap)

        assert trial.slos == {}
        assert set(map(str, trial.slo_errors.values())) == {str(trial.blind)}
        assert "the fault hit prometheus" in str(trial.blind)
        assert (trial.could_not_fire, trial.attempts) == (trial.blind, trial.blind)
        assert str(trial.blind) in trial.findings
        assert 0 < trial.whole.availability < 1

    @pytest.mark.parametrize("of", ["judge", "autoscaler"])
    def test_what_a_fault_hid_from_it_is_inconclusive_as_well(self, performed, of):
        act = Injection(after_s=0.0, fault=faults.stale_metrics(of=of).primitive, victim="pushgateway")
        performed.injected.acts.append(act)
        trial = judged(performed)

        assert (trial.blind is not None) is (of == "judge")
        assert (trial.slos == {}) is (of == "judge")
        if of == "judge":
            assert "the fault hid pushgateway from prometheus" in str(trial.blind)
            assert str(trial.blind) in trial.findings

    @pytest.mark.parametrize("is_blind", [True, False], ids=["blind", "seeing"])
    def test_an_alert_about_it_counts_after_our_revert_if_it_saw_nothing(self, gap, monkeypatch, is_blind):
        gap.injected.acts.append(Injection(after_s=0.0, fault=faults.pause("x").primitive, victim="prometheus"))
        gap.injected.reverted_unix_s = gap.t0_unix_s + KILLED_S + 1
        gap.lab.subject = replace(gap.lab.subject, prometheus="prometheus")
        late = gap.t0_unix_s + KILLED_S + 3
        fired = FiredAlert(name="Missed", labels={"service": "prometheus"}, at_unix_s=late, until_unix_s=late + 1)
        monkeypatch.setattr(gap.lab.prometheus, "firing_spells", lambda *_: (fired,))
        if not is_blind:
            monkeypatch.setattr(gap.lab.prometheus, "require_coverage", lambda *_, **__: None)
        trial = judged(gap)

        assert [str(one.name) for one in trial.signals] == (["Missed"] if is_blind else [])
        assert tuple(map(str, trial.alerts)) == ("Missed",)

    def test_a_gap_in_any_other_trial_proves_nothing(self, gap):
        with pytest.raises((PartialScrape, StaleData), match="8 s"):
            judged(gap)


def test_a_start_that_the_runtime_did_not_report_is_inconclusive(performed):
    states = performed.runtime._states
    states["model-1"] = replace(states["model-1"], started_unix_s=performed.t0_unix_s + KILLED_S)

    with pytest.raises(Inconclusive, match=r"model-1 was started 8\.0 s into the trial"):
        judged(performed)
    with performed.load() as (record, running), pytest.raises(Inconclusive, match=r"model-1 was started 8\.0 s into"):
        judge_own_load(performed.lab, record, running, performed.injected)


@pytest.mark.parametrize(("restarts", "who"), [(1, "runtime"), (0, "other")])
def test_the_repairer_is_read_from_the_states_too(performed, restarts, who):
    start = next(event for event in performed.runtime.events(0, float("inf")) if event.action == "start")
    states = performed.runtime._states
    states["api"] = replace(states["api"], started_unix_s=start.at_unix_s, restarts=restarts)
    performed.runtime.audit = list

    assert judged(performed).repaired_by == who


class TestFindings:
    def test_findings_name_a_replica_that_does_not_serve_again(self, performed):
        performed.runtime.kill("model-2")
        (finding,) = judged(performed).findings

        assert finding.startswith("not every replica serves again: <replicas after the fault: model-1 gave ")
        assert "does not run" in finding

    def test_findings_name_tasks_that_may_still_run(self, performed):
        performed.summary = replace(performed.summary, uncancelled=3)

        (finding,) = judged(performed).findings

        assert finding.startswith("3 tasks may still run and disturb later trials: the agent did not confirm")

    def test_findings_are_empty_if_all_replicas_serve_or_none_is_named(self, performed):
        assert judged(performed).findings == ()
        performed.lab.subject = replace(performed.lab.subject, replicas=())
        trial = judged(performed)

        assert (trial.findings, trial.replicas_after) == ((), None)

    def test_findings_name_a_fault_that_raised_no_signal(self, performed):
        performed.injected.reverted_unix_s = performed.t0_unix_s + KILLED_S + 0.5

        assert [one for one in judged(performed).findings if one.startswith("signal missing")]


class TestAttempts:
    def test_attempts_are_unknown_if_the_subject_names_no_counters(self, performed):
        performed.lab.subject = replace(performed.lab.subject, attempts_counters=None)

        assert judged(performed).attempts is None

    def test_attempts_are_a_reason_if_a_counter_restarted(self, performed):
        """The api's own counters restarted with it."""
        performed.lab.subject = replace(
            performed.lab.subject, attempts_counters=('llmlab_requests_total{outcome="ok"}', "llmlab_requests_total")
        )

        assert isinstance(judged(performed).attempts, CounterReset)


def test_a_trial_waits_no_longer_for_a_service_that_settled(performed):
    assert judged(performed, settled=True).recover.took_s is not None
    assert judged(performed, settled=False).recover.took_s is None


class Clock:
    """The time module in steps of 0.1 s, which only `sleep` advances."""

    def __init__(self):
        self.tenths = 0

    def time(self):
        return 1000 + self.tenths / 10

    def monotonic(self):
        return 500 + self.tenths / 10

    def sleep(self, seconds):
        assert seconds > 0
        self.tenths += round(seconds * 10)
        assert self.tenths < 1000, "nothing is waited for that long"


class TestLastPush:
    """Clients push their last counts at their end. A scrape comes later."""

    @pytest.fixture
    def awaited(self, monkeypatch):
        """Return the time and number of queries. The last answer is repeated."""
        clock, asked = Clock(), []
        monkeypatch.setattr(judging, "time", clock)
        monkeypatch.setattr(judging, "await_scrapes", lambda _, since_unix_s: ("scraped since", since_unix_s))

        def of(*answers, pushgateway="pushgateway", scraped_unix_s=1009.0):
            def value(query, at_unix_s):
                answer = answers[min(len(asked), len(answers) - 1)]
                asked.append((query, at_unix_s))
                if answer is None:
                    raise NoData("no series yet")
                return answer

            scraped = Target(job="p", service="p", url="", up=True, last_error="", last_scrape_unix_s=scraped_unix_s)
            lab = SimpleNamespace(
                subject=SimpleNamespace(pushgateway=pushgateway, scrape_jobs=()),
                prometheus=SimpleNamespace(value=value, targets=lambda: (scraped,)),
            )
            load = SimpleNamespace(stop=lambda: SimpleNamespace(done=320))
            return judging.await_last_push(lab, load)

        of.asked = asked
        return of

    def test_the_last_push_is_there_once_every_answer_is_counted(self, awaited):
        assert awaited(None, 300.0, 321.0, 320.0) == ("scraped since", 1000)
        assert awaited.asked == [
            ("sum(llmchaos_client_requests_total)", at_unix_s) for at_unix_s in (1000, 1000.1, 1000.2, 1000.3)
        ]

    @pytest.mark.parametrize(("answer", "seen"), [(300.0, "300.0"), (None, "nothing")])
    def test_the_last_push_that_never_comes_is_waited_for_ten_seconds(self, awaited, answer, seen):
        with pytest.raises(NoData, match=rf"has {seen} of the clients' 320 answers 10 s after the load ended"):
            awaited(answer)

        assert len(awaited.asked) == 100

    def test_the_last_push_that_prometheus_has_not_scraped_yet_is_no_loss(self, awaited):
        with pytest.raises(StaleData, match="has not scraped p within 10 s of the load's end"):
            awaited(300.0, scraped_unix_s=999.9)

    def test_the_last_push_counts_only_if_prometheus_still_has_it(self, awaited):
        with pytest.raises(NoData, match="has nothing of the clients' 320"):
            awaited(300.0, None)

    def test_the_last_push_without_a_pushgateway_is_the_next_scrape(self, awaited):
        assert awaited(0.0, pushgateway=None) == ("scraped since", 1000)
        assert awaited.asked == []


class TestOwnLoad:
    """A load that its test judges."""

    def result(self, performed):
        with performed.load() as (record, running):
            return judge_own_load(performed.lab, record, running, performed.injected), record

    def test_an_own_load_has_what_clients_saw_of_each_of_its_phases(self, performed):
        result, _ = self.result(performed)

        assert [(one.name, one.from_s, one.to_s, one.offered) for one in result.phases] == [
            ("steady", 0.0, KILLED_S, KILLED_S * RATE_RPS),
            ("fault", KILLED_S, REVERTED_S, (REVERTED_S - KILLED_S) * RATE_RPS),
            ("recovery", REVERTED_S, END_S, (END_S - REVERTED_S) * RATE_RPS),
        ]

    def test_an_own_load_without_phases_is_judged_as_a_whole(self, performed):
        with performed.load() as (record, running):
            record.phases.clear()

            assert judge_own_load(performed.lab, record, running, performed.injected).phases == ()

    def test_an_own_load_has_a_finding_for_each_unprovoked_reaction(self, performed):
        performed.lab.reasons = type(performed.lab.reasons)()
        performed.lab.reasons.unjudged_unix_s = performed.t0_unix_s - 30
        result, record = self.result(performed)

        assert (
            result.findings
            == tuple(record.findings)
            == ("outside of any fault alert ServiceDown fired for api 9.3 s into the trial",)
        )

    def test_an_own_load_has_the_acts_of_the_subjects_remediator(self, performed):
        at = performed.t0_unix_s + BACK_S
        performed.runtime.audit = lambda: [
            {"event": "done", "at": at, "action": "restart", "service": "api", "rule": "r"}
        ]
        without, _ = self.result(performed)
        performed.lab.subject = replace(performed.lab.subject, remediator="remediator")
        with_one, _ = self.result(performed)

        assert [one.what for one in without.events if one.source == "remediator"] == []
        assert [one.what for one in with_one.events if one.source == "remediator"] == ["done restart api: r"]

    def test_an_own_load_without_a_request_is_invalid(self, performed):
        performed.seen = []
        with performed.load() as (record, running):
            record.phases.clear()
            with pytest.raises(InvalidExperiment, match="no request was answered"):
                judge_own_load(performed.lab, record, running, performed.injected)
