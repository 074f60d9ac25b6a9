"""`Trial`: values, errors for values that do not exist, and its result."""

import contextlib
import copy
import json
import math
import re
from dataclasses import replace

import msgspec
import pytest

from pytest_llmchaos import BadScenario, NotDetected, NotRecovered, experiment, faults, loads
from pytest_llmchaos.errors import (
    CounterReset,
    HealFailed,
    Inconclusive,
    InvalidExperiment,
    NoData,
    NotSteady,
    VacuousClaim,
    verdict_after,
    verdict_of,
)
from pytest_llmchaos.evidence.journal import Journal
from pytest_llmchaos.evidence.trial_record import Record
from pytest_llmchaos.evidence.trial_result import (
    Coincidence,
    LoadResult,
    ProofNote,
    ReadySpan,
    ScaleNote,
    ScalingResult,
    ShareInterval,
    TasksResult,
    TrialResult,
)
from pytest_llmchaos.model import Proof, Sample, Undo
from pytest_llmchaos.plan.schedule import plan_trial
from pytest_llmchaos.servers.bounds import Within
from pytest_llmchaos.slo.arithmetic import Slo
from pytest_llmchaos.stats.bounded import Seconds
from pytest_llmchaos.stats.windows import windows
from pytest_llmchaos.trial.recovery import Recovery
from pytest_llmchaos.trial.replicas import Replica, Replicas
from pytest_llmchaos.trial.result import judged_result, plan_note, result_of
from pytest_llmchaos.trial.scaling import ScaleEvent, Scaling, Span
from pytest_llmchaos.trial.signals import Incident, Signal
from pytest_llmchaos.trial.slo_result import SloResult, ledger_entry
from pytest_llmchaos.trial.tasks import judge_tasks
from pytest_llmchaos.trial.trial import OBJECTIVE, Action, Trial

SLO = Slo(name="availability", objective=0.99, window_days=30, description="made up", good="good", total="total")
JUDGED = SloResult(slo=SLO, good=98, total=100, window_s=30.0, rate_rps=2.0, query="good / total", raw={"good": 98.0})


def sample(due_s, outcome="ok"):
    first_s = due_s + 0.1 if outcome == "ok" else None
    return Sample(due_s, due_s, first_s, due_s + 0.5, 0.0, 8, outcome, "model-1", f"r-{due_s:g}")


# 200 good answers, then a second in which three of four fail in three ways.
SAMPLES = [
    *(sample(i / 20) for i in range(200)),
    *(sample(10 + i / 4, outcome) for i, outcome in enumerate(("truncated", "refused", "truncated", "ok"))),
]
BOUNDS = [("steady", 0.0, 10.0), ("fault", 10.0, 11.0), ("recovery", 11.0, 12.0), ("whole", 0.0, 12.0)]
PARTS = [("before", 0.0, 10.0), ("during", 10.0, 11.0), ("after", 11.0, 12.0)]
WINDOWS = {w.name: w for w in windows(SAMPLES, BOUNDS + PARTS)}


@pytest.fixture
def plan():
    mark = experiment(load=loads.open_loop(rate_rps=2), fault=faults.kill("api"), repair_within_s=20)
    made = mark.kwargs["experiment"]
    return plan_trial(
        scenario="kill_api",
        hypothesis="It holds.",
        experiment=made,
        fault=made.faults[0],
        repeat=0,
        seed=42,
        services=("api",),
    )


@pytest.fixture
def trial(plan):
    def with_(**values):
        return Trial(
            **{
                "name": "001",
                "plan": plan,
                "windows": WINDOWS,
                "slos": {"availability": JUDGED},
                "slo_errors": {"ttft-p95": NoData("no data for ttft-p95")},
                "detect_s": 1.5,
                "detected_by": "alert ServiceDown",
                "detection_source": "stack_prometheus",
                "coincident": (),
                "recover": Recovery(took_s=4.25, resolution_s=0.5, relapsed_s=2.0),
                "settle": Recovery(took_s=0.5, resolution_s=0.0),
                "repaired_by": "remediator",
                "victims": ("api",),
                "fired": ("ServiceDown",),
                "acted": (),
                "noticed": (),
                "restarts": {"api": 1},
                "findings": (),
                "events": (),
                "load": LoadResult(achieved_ratio=1.0),
                **values,
            }
        )

    return with_


def test_times_that_exist_are_returned(trial):
    seen = trial()

    assert (seen.time_to_detect_s, seen.time_to_recover_s, seen.relapsed_s) == (1.5, 4.25, 2.0)
    assert repr(seen) == "<trial 001: kill_api, kill api>"


class TestNamesThatDoNotExist:
    @pytest.fixture
    def known(self, trial):
        act = Action(at_s=1.0, action="start", service="api", rule="api-exited", succeeded=True)
        names = {"services": ("api", "model-1"), "known_alerts": ("ServiceDown",), "known_rules": ("api-exited",)}
        noticed = (Incident(service="api", rule="api-exited", after_s=0.5, ended_after_s=6.0),)
        signals = (Signal(after_s=1.5, kind="alert", name="ServiceDown"), *SIGNALS[:1])
        return trial(acted=(act,), noticed=noticed, signals=signals, **names)

    @pytest.mark.parametrize(
        ("claim", "what"),
        [
            (lambda trial: trial.restarts.get("apii", 0) == 0, "service 'apii'"),
            (lambda trial: trial.repaired_by != "remediater", "repairer 'remediater'"),
            (lambda trial: trial.detected_by != "alert ServiceDwn", "signal 'alert ServiceDwn'"),
            (lambda trial: trial.detection_source != "users_prometheus", "source of a detection 'users_prometheus'"),
            (lambda trial: "api-exitd" not in trial.detected_by, "signal 'api-exitd'"),
            (lambda trial: "ServiceDwn" not in trial.alerts, "alert 'ServiceDwn'"),
            (lambda trial: "apii" not in trial.victims, "service 'apii'"),
            (lambda trial: [act for act in trial.actions if act.service == "apii"] == [], "service 'apii'"),
            (lambda trial: [act for act in trial.actions if act.rule == "api-exitd"] == [], "rule 'api-exitd'"),
            (lambda trial: [one for one in trial.incidents if one.service == "apii"] == [], "service 'apii'"),
            (lambda trial: [one for one in trial.incidents if one.rule == "api-exitd"] == [], "rule 'api-exitd'"),
            (lambda trial: [one for one in trial.signals if one.name == "ServiceDwn"] == [], "alert 'ServiceDwn'"),
            (lambda trial: [one for one in trial.signals if one.service == "apii"] == [], "service 'apii'"),
            (lambda trial: trial.alert("ServiceDwn"), "alert 'ServiceDwn'"),
            (lambda trial: trial.alert("ServiceDown", "apii"), "service 'apii'"),
            (lambda trial: trial.rule("api-exitd"), "rule 'api-exitd'"),
            (lambda trial: trial.rule("api-exited", "modl-1"), "service 'modl-1'"),
            (lambda trial: trial.slo("availabilty"), "SLO 'availabilty'"),
        ],
    )
    def test_names_that_do_not_exist_are_refused(self, known, claim, what):
        with pytest.raises(BadScenario, match=f"there is no {what}: did you mean"):
            claim(known)

    def test_those_that_exist_are_compared(self, known):
        assert known.restarts.get("model-1", 0) == 0
        assert known.repaired_by != "instrument"
        assert known.alerts == ("ServiceDown",)
        assert "api-exited" not in known.detected_by
        assert known.actions == known.acted
        assert known.incidents == known.noticed
        assert known.incidents[0].service != "model-1"
        assert [one.service for one in known.signals if one.service in ("", "api")] == ["", "api"]
        assert known.alert("ServiceDown").after_s == 1.5
        assert known.victims == ("api",)

    @pytest.mark.parametrize(
        ("claim", "how"),
        [
            (lambda trial: "start" not in trial.actions, "any(act.action == 'start' for act in trial.actions)"),
            (lambda trial: "api" in trial.incidents, "any(one.service == 'api' for one in trial.incidents)"),
        ],
    )
    def test_a_text_is_not_an_act_or_an_incident(self, known, claim, how):
        with pytest.raises(BadScenario, match=rf"is a text, and these are not: .* {re.escape(how)}$"):
            claim(known)

    def test_an_act_can_be_searched_for(self, known):
        assert known.acted[0] in known.actions
        assert known.noticed[0] in known.incidents
        assert known.noticed[0] not in known.actions

    def test_without_known_names_every_name_is_accepted(self, trial):
        unknown = trial(
            detected_by="alert ServiceDown", acted=(Action(at_s=1.0, action="", service="x", rule="y", succeeded=True),)
        )

        assert unknown.restarts.get("apii", 0) == 0
        assert "ServiceDwn" not in unknown.alerts
        assert unknown.detected_by != "alert ServiceDwn"
        assert unknown.actions[0].rule != "z"

    def test_an_event_that_did_not_happen_has_no_name(self, trial):
        assert (trial(detected_by=None).detected_by, trial(repaired_by=None).repaired_by) == (None, None)


@pytest.mark.parametrize(
    ("asked", "how"),
    [
        (lambda trial: trial, "trial.time_to_recover_s <= 20"),
        (lambda trial: trial.slo("availability"), ".met or .bad_s <= 10"),
        (lambda trial: trial.whole, ".failed == 0"),
        (lambda trial: trial.whole.e2e_s, ".p95 <= 2"),
        (lambda trial: trial.whole.availability, "compare it with a bound"),
        (lambda trial: trial.slo("availability").bad_s, "compare it with a bound"),
        (lambda trial: trial.time_to_detect_s, "compare it with a bound"),
        (lambda trial: trial.time_to_recover_s, "compare it with a bound"),
        (lambda trial: trial.attempts_per_request, "compare it with a bound"),
        (lambda trial: trial.alert("ServiceDown").after_s, "compare it with a bound"),
        (lambda trial: trial.recover, "trial.time_to_recover_s <= 20"),
        (lambda trial: trial.replicas, ".all_serve"),
        (lambda trial: trial.replicas.replicas[0], ".trouble == ()"),
    ],
)
def test_a_value_without_a_comparison_is_not_a_claim(trial, asked, how):
    one = Replicas(replicas=(Replica(name="model-1", answered=1, of=1),))
    down = Signal(after_s=1.0, kind="alert", name="ServiceDown", service="api")
    seen = asked(trial(attempts=1.5, replicas_after=one, signals=(down,)))

    with pytest.raises(BadScenario, match=f"neither true nor false: .*{how}"):
        assert seen


@pytest.mark.parametrize(
    ("look", "is_read"),
    [
        (lambda trial: trial.repaired_by, True),
        (lambda trial: trial.time_to_recover_s, True),
        (lambda trial: trial.slo("availability"), True),
        (lambda trial: trial.alert("ServiceDown"), True),
        (lambda trial: trial.rule("r"), True),
        (lambda trial: trial.phase("whole"), True),
        (lambda trial: trial.before_fault, True),
        (lambda trial: trial.replicas, True),
        (lambda trial: trial == replace(trial), True),
        (lambda trial: trial.is_control, True),
        (lambda trial: trial.plan.fault, True),
        (lambda trial: trial.name, False),
        (lambda trial: (repr(trial), str(trial), hash(type(trial))), False),
        (lambda trial: (trial.slo, trial.alert, trial.phase), False),
        (lambda trial: hasattr(trial, "fialed"), False),
    ],
)
def test_a_trial_records_which_values_were_read(trial, look, is_read):
    seen = trial()
    before = seen.note_reads()
    _ = seen.repaired_by
    read = seen.note_reads()
    with contextlib.suppress(NotDetected, NoData):
        look(seen)

    assert before == {"repaired_by"}
    assert bool(read) is is_read


@pytest.mark.parametrize(
    ("look", "objectives"),
    [
        (lambda trial: trial.slo("availability"), {"availability"}),
        (lambda trial: trial.slo("late"), {"late"}),
        (lambda trial: [one.met for one in trial.slos.values()], {"availability"}),
        (lambda trial: trial.repaired_by, set()),
    ],
    ids=["one", "one without a result", "all", "none"],
)
def test_a_trial_records_which_objectives_were_read(trial, look, objectives):
    seen = trial(slos={"availability": JUDGED}, slo_errors={"late": NoData("no data")})
    read = seen.note_reads()
    with contextlib.suppress(NoData):
        look(seen)

    assert {OBJECTIVE.format(name) for name in objectives} == {name for name in read if name.startswith("objective ")}


@pytest.mark.parametrize(
    ("values", "name", "error", "message"),
    [
        ({"detect_s": None}, "time_to_detect_s", NotDetected, "no alert fired .* noticed anything after kill api$"),
        (
            {
                "detect_s": None,
                "coincident": (Coincidence(what="alert A", after_s=1.5, service="db", why="db was not hit"),),
            },
            "time_to_detect_s",
            NotDetected,
            r"after kill api \(alert A after 1\.5 s does not count: db was not hit\)$",
        ),
        ({"recover": Recovery(why_not="still down")}, "time_to_recover_s", NotRecovered, "still down"),
    ],
)
def test_a_time_that_does_not_exist_raises_with_the_reason(trial, values, name, error, message):
    with pytest.raises(error, match=message):
        getattr(trial(**values), name)


def test_a_time_that_no_trial_of_this_fault_has_is_an_error_and_no_refutation(trial, plan):
    passing = replace(plan, fault=faults.pause("api"))

    with pytest.raises(BadScenario, match=r"kill api is not a passing fault, .*: use trial.time_to_recover_s"):
        _ = trial().time_to_settle_s
    with pytest.raises(BadScenario, match=r"pause api is a passing fault, .*: use trial.time_to_settle_s"):
        _ = trial(plan=passing).time_to_recover_s


SIGNALS = (
    Signal(after_s=0.4, kind="rule", name="api-exited", service="api"),
    Signal(after_s=1.5, kind="alert", name="ServiceDown", service="api"),
    Signal(after_s=2.5, kind="alert", name="ServiceDown", service="model-1"),
)
ALERTS, RULES = ("AvailabilityFastBurn", "ServiceDown"), ("api-exited", "replica-exited")


@pytest.fixture
def signalled(trial):
    return trial(signals=SIGNALS, known_alerts=ALERTS, known_rules=RULES)


def test_a_trial_without_a_detection_has_no_source_of_one(trial):
    assert trial(detect_s=None, detected_by=None, detection_source=None).detection_source is None


def test_alerts_and_actions_are_given_or_raise_why_their_absence_proves_nothing(trial):
    acted = (Action(at_s=1.0, action="start", service="api", rule="api-exited", succeeded=True),)
    seen = trial(fired=("ServiceDown",), acted=acted)

    assert (seen.alerts, seen.actions) == (("ServiceDown",), acted)
    assert (trial(fired=()).alerts, trial(acted=()).actions) == ((), ())
    with pytest.raises(NoData, match="no alert rules"):
        assert trial(fired=(), could_not_fire=NoData("there are no alert rules")).alerts == ()
    with pytest.raises(Inconclusive, match="does not run"):
        assert trial(acted=Inconclusive("the remediator does not run")).actions == ()


def test_what_a_blind_prometheus_did_not_see_is_neither_raised_nor_missing(trial):
    why = Inconclusive("the fault hit prometheus")
    blind = trial(signals=SIGNALS, known_alerts=ALERTS, known_rules=RULES, detect_s=None, blind=why)

    assert blind.alert("ServiceDown", "api").after_s <= 1.5
    with pytest.raises(Inconclusive, match="hit prometheus"):
        blind.alert("AvailabilityFastBurn")
    with pytest.raises(Inconclusive, match="hit prometheus"):
        _ = blind.time_to_detect_s
    with pytest.raises(NotDetected, match="was not raised"):  # the remediator's own log is whole
        blind.rule("replica-exited", "api")


def test_an_alert_of_a_blind_prometheus_fired_by_its_first_sample_at_the_latest(trial):
    why = Inconclusive("the fault hit prometheus")
    twice = (*SIGNALS, replace(SIGNALS[1], after_s=9.0))
    blind = trial(signals=twice, fired=("ServiceDown",), known_alerts=ALERTS, detect_s=1.5, blind=why)
    alert = blind.alert("ServiceDown")

    for seen_s in (alert.after_s, blind.time_to_detect_s, blind.signals[1].after_s):
        assert seen_s <= 1.5
        assert not seen_s > 1.6
        for claim in (lambda s: s <= 1.4, lambda s: s >= 1.4, lambda s: s == 1.5):
            with pytest.raises(Inconclusive, match="hit prometheus"):
                claim(seen_s)
    assert blind.rule("api-exited").after_s == 0.4  # by the remediator's own log
    assert trial(signals=SIGNALS).alert("ServiceDown").after_s >= 1.4


def test_the_alerts_of_a_blind_prometheus_are_at_least_those_that_were_seen(trial):
    why = Inconclusive("the fault hit prometheus")
    blind = trial(fired=("ServiceDown",), known_alerts=ALERTS, could_not_fire=why, blind=why)

    assert "ServiceDown" in blind.alerts
    assert blind.alerts != ()
    for claim in (
        lambda: "AvailabilityFastBurn" not in blind.alerts,
        lambda: blind.alerts == ("ServiceDown",),
        lambda: blind.alerts == ("AvailabilityFastBurn", "ServiceDown"),
    ):
        with pytest.raises(Inconclusive, match="hit prometheus"):
            claim()


def test_incidents_are_given_or_raise_why_they_are_unknown(trial):
    seen = (Incident(service="api", rule="api-exited", after_s=0.8, ended_after_s=3.8),)

    assert trial(noticed=seen).incidents == seen
    with pytest.raises(Inconclusive, match="does not run"):
        assert trial(noticed=Inconclusive("the remediator does not run")).incidents == ()


def test_a_signal_is_found_by_its_name_and_its_service(signalled):
    assert signalled.alert("ServiceDown") == SIGNALS[1]
    assert signalled.alert("ServiceDown", "model-1") == SIGNALS[2]
    assert signalled.rule("api-exited").after_s == 0.4


def test_a_signal_without_a_named_service_is_about_a_victim_or_clients(trial):
    neighbour = Signal(after_s=0.3, kind="alert", name="ServiceDown", service="model-2")
    burn = Signal(after_s=9.0, kind="alert", name="ServiceDown")

    assert trial(signals=(neighbour, *SIGNALS)).alert("ServiceDown") == SIGNALS[1]
    assert trial(signals=(neighbour, burn)).alert("ServiceDown") == burn
    assert trial(signals=(neighbour,)).alert("ServiceDown", "model-2") == neighbour
    assert trial(signals=(neighbour, SIGNALS[2]), victims=()).alert("ServiceDown") == neighbour


def test_a_signal_only_about_other_services_is_inconclusive(trial):
    rule = Signal(after_s=0.4, kind="rule", name="replica-exited", service="model-1")
    seen = trial(signals=(SIGNALS[2], rule))

    with pytest.raises(
        Inconclusive, match=r"alert ServiceDown was raised only for model-1, and the fault hit api: .* 'model-1'\)"
    ):
        seen.alert("ServiceDown")
    with pytest.raises(Inconclusive, match=r"trial\.rule\('replica-exited', 'model-1'\)"):
        seen.rule("replica-exited")
    with pytest.raises(
        Inconclusive, match=r"only for model-1, model-2, and .*, as in trial\.alert\('ServiceDown', 'model-1'\)"
    ):
        trial(signals=(SIGNALS[2], replace(SIGNALS[2], service="model-2"))).alert("ServiceDown")


def test_the_first_of_several_signals_of_one_kind_and_name_counts(trial):
    """An alert and a rule may share a name."""
    read = json.loads(
        '[[3, "alert", "m"], [1, "alert", "m"], [0.9, "rule", "m"], [2, "alert", "m"],'
        ' [0.2, "alert", "n"], [0.4, "rule", "n"], [0.1, "alert", "a"], [0.1, "alert", "z"]]'
    )
    made = [Signal(after_s=at_s, kind=kind, name=name) for at_s, kind, name in read]
    seen = trial(signals=tuple(made))

    assert (seen.alert("m").after_s, seen.alert("n").after_s) == (1.0, 0.2)
    assert (seen.rule("m").after_s, seen.rule("n").after_s) == (0.9, 0.4)
    assert str(made[0]) == "alert m after 3.0 s"


def test_a_signal_that_did_not_come_is_a_refutation_that_names_what_came(signalled):
    seen = "signals raised: rule api-exited .api. after 0.4 s, alert ServiceDown .api. after 1.5 s, alert ServiceDown .model-1."

    with pytest.raises(NotDetected, match=f"alert AvailabilityFastBurn was not raised after kill api; {seen}"):
        signalled.alert("AvailabilityFastBurn")
    with pytest.raises(NotDetected, match="rule api-exited for model-1 was not raised"):
        signalled.rule("api-exited", "model-1")


def test_a_signal_that_does_not_exist_is_an_error_and_no_refutation(signalled):
    with pytest.raises(
        BadScenario, match=r"no alert 'ServiceDwn': did you mean 'ServiceDown'\? There are Avail.*, ServiceDown$"
    ):
        signalled.alert("ServiceDwn")
    with pytest.raises(BadScenario, match=r"there is no rule 'ServiceDown'. There are api-exited, replica-exited"):
        signalled.rule("ServiceDown")


def test_without_known_names_a_missing_signal_was_not_raised(trial):
    with pytest.raises(NotDetected, match="rule any was not raised after kill api; signals raised: none"):
        trial().rule("any")


def test_attempts_are_given_or_raise_why_they_are_unknown(trial):
    assert trial(attempts=1.05).attempts_per_request == 1.05
    with pytest.raises(Inconclusive, match="has no counters of attempts"):
        _ = trial().attempts_per_request
    with pytest.raises(CounterReset, match="began again"):
        _ = trial(attempts=CounterReset("began again")).attempts_per_request


def test_a_service_that_calls_itself_ready_while_no_client_is_served_is_falsely_ready(trial):
    spans = (
        ReadySpan(from_s=0.0, to_s=12.02, status=200),
        ReadySpan(from_s=12.02, to_s=15.0, status=503),
        ReadySpan(from_s=15.0, to_s=30.0, status=200),
    )

    assert trial(readyz=spans, unserved_s=(10.0, 11.0, 12.0, 13.0, 14.0, 15.0)).falsely_ready_s == 3
    assert trial(readyz=spans, unserved_s=()).falsely_ready_s == 0
    with pytest.raises(VacuousClaim, match="it had reported ready for all of the 30 s"):
        _ = trial(readyz=spans, unserved_s=()).falsely_ready_s <= 30
    with pytest.raises(VacuousClaim, match="even if the service had never reported ready, it would be 0"):
        _ = trial(readyz=spans, unserved_s=()).falsely_ready_s >= 0
    assert trial(readyz=spans, unserved_s=()).falsely_ready_s <= 0
    assert [span.ready for span in spans] == [True, False, True]


def test_readiness_is_unknown_if_the_polls_end_before_an_outage(trial):
    spans = (ReadySpan(from_s=0.0, to_s=12.02, status=200),)

    assert trial(readyz=spans, unserved_s=(11.0, 14.0)).falsely_ready_s == 1
    with pytest.raises(Inconclusive, match="end at 12 s, and no client was served at 15 s"):
        _ = trial(readyz=spans, unserved_s=(11.0, 15.0)).falsely_ready_s


def test_a_second_is_falsely_ready_if_the_service_was_ready_throughout(trial):
    spans = (
        ReadySpan(from_s=0.0, to_s=3.0, status=503),
        ReadySpan(from_s=3.0, to_s=6.0, status=200),
        ReadySpan(from_s=6.0, to_s=9.0, status=503),
    )

    assert trial(readyz=spans, unserved_s=(2.0, 3.0, 5.0, 6.0)).falsely_ready_s == 2


def test_readiness_that_was_not_recorded_is_inconclusive(trial):
    with pytest.raises(Inconclusive, match="set llmchaos_ready_path, such as /readyz"):
        _ = trial().falsely_ready_s


def test_a_recovery_shows_how_exactly_it_was_seen(trial):
    took = trial().time_to_recover_s

    assert (took.resolution_s, repr(took), took <= 4.25) == (0.5, "4.25 (seen to 0.5 s)", True)
    assert repr(trial(recover=Recovery(took_s=3.0, resolution_s=0.0)).time_to_recover_s) == "3"


def test_an_exact_time_shows_no_resolution(trial):
    assert repr(trial(recover=Recovery(took_s=3.0)).time_to_recover_s) == "3"
    assert repr(Seconds(3.5)) == "3.5"


def test_a_copy_of_a_time_keeps_its_resolution(trial):
    assert repr(copy.copy(trial().time_to_recover_s)) == "4.25 (seen to 0.5 s)"


def test_a_passing_fault_settles_or_raises_why_not(trial, plan):
    passing = replace(plan, fault=faults.pause("api"))
    settled = trial(plan=passing, settle=Recovery(took_s=0.5, resolution_s=0.1, relapsed_s=3.0))

    assert (settled.time_to_settle_s, settled.relapsed_s) == (0.5, 3.0)
    with pytest.raises(NotRecovered, match="did not settle"):
        _ = trial(settle=Recovery(why_not="the service did not settle within 40 s"), plan=passing).time_to_settle_s


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (HealFailed("left"), "heal_failed"),
        (NoData("none"), "inconclusive"),
        (NotSteady("not yet"), "invalid"),
        (NotRecovered("still down"), "refuted"),
        (KeyboardInterrupt(), "invalid"),
    ],
)
def test_an_error_is_a_verdict_on_its_trial(error, verdict):
    assert verdict_of(error) == verdict


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [
        (["passed"], "held"),
        (["passed", "failed"], "refuted"),
        (["failed", "error"], "refuted"),
        (["passed", "error"], "invalid"),
        (["passed", "skipped"], "invalid"),
        (["skipped"], "invalid"),
        ([], "invalid"),
    ],
)
def test_a_trial_held_only_if_all_claims_passed_and_there_is_one(outcomes, verdict):
    assert verdict_after(outcomes) == verdict


def test_replicas_are_those_after_the_fault_or_unknown(trial, record):
    seen = Replicas(replicas=(Replica(name="model-1", answered=5, of=9, trouble=("unhealthy",)),))

    assert trial(replicas_after=seen).replicas is seen
    kept = judged_result(record, trial(replicas_after=seen)).replicas
    assert [(one.name, one.answered, one.of, one.trouble) for one in kept] == [("model-1", 5, 9, ("unhealthy",))]
    with pytest.raises(NoData, match="set llmchaos_replicas"):
        _ = trial().replicas


def test_the_control_arm_is_a_control(trial, plan):
    assert not trial().is_control
    assert trial(plan=replace(plan, fault=faults.none())).is_control


def test_an_slo_is_its_result_or_what_kept_prometheus_from_answering(trial):
    seen = trial()

    assert seen.slo("availability") is JUDGED
    with pytest.raises(NoData, match="no data for ttft-p95"):
        seen.slo("ttft-p95")
    with pytest.raises(
        BadScenario, match=r"there is no SLO 'ttft': did you mean 'ttft-p95'\? There are availability, ttft-p95"
    ):
        seen.slo("ttft")


def test_an_slo_is_one_line_of_the_ledger():
    entry = ledger_entry(
        JUDGED, at_unix_s=1.0, run="r", trial="001", scenario="kill_api", fault="kill api", verdict="held"
    )

    assert (entry.slo, entry.good, entry.total, entry.verdict) == ("availability", 98, 100, "held")


def test_a_line_of_the_ledger_is_scaled_by_the_slos_own_rate():
    about = {"at_unix_s": 1.0, "run": "r", "trial": "001", "scenario": "s", "fault": "kill api", "verdict": "held"}

    assert (ledger_entry(JUDGED, **about).rate_rps, ledger_entry(JUDGED, **about).bad) == (2.0, 2.0)
    assert ledger_entry(replace(JUDGED, rate_rps=None), **about).budget_events == 0


def test_phases_are_windows_of_the_clients_samples(trial):
    seen = trial()

    assert (seen.before_fault.offered, seen.during_fault.offered, seen.after_fault.offered, seen.whole.offered) == (
        200,
        4,
        0,
        204,
    )
    assert seen.during_fault.availability == 0.25
    assert (seen.silently_truncated, seen.failed) == (2, 3)


def test_a_phase_that_the_trial_had_not_is_refused_by_name(trial):
    with pytest.raises(InvalidExperiment, match="this trial had no during window; it had before"):
        _ = trial(windows={"before": trial().before_fault}).during_fault


@pytest.fixture
def record(tmp_path):
    made = Record(Journal(tmp_path / "journal.jsonl"), "001", tmp_path)
    made.anchor(90.0, 0.0)
    made.intent("kill", "api", Undo(op="ensure_running", service="api", args={}), {"after_s": 1})
    made.proof("injected", Proof(step="injected", witness="runtime event die", at_unix_s=100.0), intent="001#1")
    return made


def test_a_judged_trial_is_one_value_without_the_phase_that_is_all_of_them(trial, plan, record):
    result = judged_result(record, trial())

    assert msgspec.convert(json.loads(json.dumps(msgspec.to_builtins(result), allow_nan=False)), TrialResult) == result
    assert (result.fault, result.victim, result.verdict) == ("kill api", "api", "held")
    assert result.proof == (ProofNote(step="injected", witness="runtime event die", at_s=10.0),)
    assert [(one.fault, one.strength) for one in result.undo] == [("kill", {"after_s": 1})]
    assert [phase.name for phase in result.phases] == ["steady", "fault", "recovery"]
    assert result.phases[1].outcomes == {"ok": 1, "truncated": 2, "refused": 1}
    assert (result.slos[0].value, result.slos[0].met, result.slos[0].bad_s) == (0.98, False, 0.6)
    assert result.slos[0].clients_say is None
    assert result.slos[0].second_truth == "availability"


def test_a_judged_trial_keeps_its_numbers_to_what_is_worth_reading(trial, record):
    """Shares to a millionth, seconds to the millisecond."""
    uneven = windows(
        [replace(one, end_s=one.end_s + 1 / 3, first_s=one.due_s + 1 / 7) for one in SAMPLES[:200]],
        [("steady", 1 / 7, 10 + 1 / 7)],
    )[0]
    level = replace(
        JUDGED, good=2 / 3, total=7.0, load_s=10 + 1 / 7, rate_rps=1 / 3, clients_say=5 / 7, window_s=30 + 1 / 7
    )

    kept = judged_result(record, trial(windows={"steady": uneven}, slos={"availability": level}, attempts=1 + 1 / 7))
    (slo,), (phase,) = kept.slos, kept.phases

    assert kept.attempts_per_request == 1.1429
    assert (phase.from_s, phase.to_s) == (0.143, 10.143)
    assert (phase.e2e_p95_s, phase.e2e_p99_s, phase.ttft_p95_s) == (0.833333, 0.833333, 0.142857)
    assert (slo.value, slo.bad_s, slo.burn_rate) == (0.095238, 9.177, 90.4762)
    assert (slo.clients_say, slo.window_s, slo.met) == (0.714286, 30.143, False)
    assert slo.budget_spent == pytest.approx((7 - 2 / 3) / (0.01 * 30 * 86_400 / 3))
    assert (slo.name, slo.objective, slo.query, slo.raw) == ("availability", 0.99, "good / total", {"good": 98.0})


def test_a_judged_trial_has_its_times_and_who_repaired_it(trial, record, plan):
    kept = judged_result(record, trial())

    assert (kept.time_to_detect_s, kept.detected_by, kept.repaired_by) == (1.5, "alert ServiceDown", "remediator")
    assert kept.detection_source == "stack_prometheus"
    assert (kept.time_to_recover_s, kept.time_to_settle_s, kept.relapsed_s) == (4.25, 0.5, 2.0)
    assert kept.judged


@pytest.mark.parametrize(
    ("settle", "resolution_s"),
    [(Recovery(why_not="it lasts"), 0.5), (Recovery(took_s=0.5, resolution_s=0.25), 0.25)],
    ids=["recovered", "settled"],
)
def test_the_resolution_is_that_of_the_time_that_was_judged(trial, record, settle, resolution_s):
    assert judged_result(record, trial(settle=settle)).recovery_resolution_s == resolution_s


def test_a_phase_keeps_only_the_outcomes_that_it_saw(trial, record):
    steady, fault, recovery = judged_result(record, trial()).phases

    assert (steady.outcomes, fault.outcomes, recovery.outcomes) == (
        {"ok": 200},
        {"ok": 1, "truncated": 2, "refused": 1},
        {},
    )
    assert (steady.ok, fault.ok, recovery.offered) == (200, 1, 0)
    assert {type(count) for count in fault.outcomes.values()} == {int}


def test_a_trial_has_the_plan_of_its_experiment(plan):
    planned = plan_note(plan)

    assert (planned.scenario, planned.hypothesis, planned.fault, planned.target) == (
        "kill_api",
        "It holds.",
        "kill api",
        "api",
    )
    assert (planned.lifetime, planned.fidelity, planned.remediator, planned.repeat) == ("lasting", "real", True, 0)
    assert planned.plan.injections == tuple(map(str, plan.injections))
    assert (planned.plan.steady_s, planned.plan.stable_s, planned.plan.recovery_s) == (8.0, 4.0, 20.0)


def test_a_trial_without_an_act_has_no_victim(plan, record):
    twice = (*plan.injections, replace(plan.injections[0], victim="model-1"), *plan.injections)

    assert result_of(replace(plan, injections=()), record, "held").victim is None
    assert result_of(replace(plan, injections=twice), record, "held").victim == "api, model-1"


def test_an_slo_that_too_few_events_cannot_meet_is_not_met_in_the_report(trial, record):
    few = replace(JUDGED, good=50, total=50)

    result = judged_result(record, trial(slos={"availability": few}))

    assert (result.slos[0].value, result.slos[0].met) == (1.0, None)


@pytest.mark.parametrize("edge_s", [0.8, math.inf])
@pytest.mark.parametrize(("most", "met"), [(98.5, False), (99.5, None)])
def test_a_share_between_two_edges_is_noted_as_an_interval(trial, record, edge_s, most, met):
    """The objective is 99 %."""
    seen = Within(bound_s=0.5, lower_s=0.4, upper_s=edge_s, least=98.0, most=most)
    between = replace(JUDGED, total=100, within=seen, uncertainty="coarse")

    (noted,) = judged_result(record, trial(slos={"availability": between})).slos

    assert noted.interval == ShareInterval(
        low=0.98, high=most / 100, bound_s=0.5, lower_edge_s=0.4, upper_edge_s=edge_s if edge_s == 0.8 else None
    )
    assert (noted.value, noted.met) == (0.98, met)
    assert judged_result(record, trial(slos={"availability": JUDGED})).slos[0].interval is None


def test_a_budget_of_an_unknown_rate_is_null(trial, record):
    unknown = replace(JUDGED, rate_rps=None)

    assert judged_result(record, trial(slos={"availability": unknown})).slos[0].budget_spent is None
    assert "an unknown part of the month's budget spent" in repr(unknown)
    with pytest.raises(NoData, match="no requests in the steady phase"):
        _ = unknown.budget_spent


def test_a_quantile_that_too_few_samples_or_failures_give_is_null(trial, plan, record):
    steady, fault, _ = judged_result(record, trial()).phases

    assert steady.e2e_p99_s == pytest.approx(0.5)
    assert (fault.e2e_p99_s, fault.ttft_p95_s) == (None, None)


def test_a_quantile_among_failures_is_infinite_and_therefore_null(trial, plan, record):
    lost = windows([sample(i / 20, "refused") for i in range(200)], [("steady", 0.0, 10.0)])

    (phase,) = judged_result(record, trial(windows={"steady": lost[0]})).phases

    assert lost[0].e2e_s.p95 == float("inf")
    assert phase.e2e_p95_s is None


def test_a_trial_that_could_not_be_judged_keeps_its_evidence(plan, record):
    result = result_of(plan, record, "invalid", "the load ran late")

    assert (result.verdict, result.reason, result.phases, result.slos) == ("invalid", "the load ran late", (), ())
    assert result.time_to_detect_s is None


def test_times_of_a_sample_count_from_when_it_was_due():
    late = Sample(1.0, 1.4, 1.5, 3.0, 0.1, 8, "ok", "model-1", "r-1")

    assert (late.ttft_s, late.e2e_s) == (0.5, 2.0)
    assert sample(1.0, "refused").ttft_s is None


def test_scaling_is_that_of_an_autoscaler(record, trial):
    ran = Span(replica="model-1", from_s=0.0, to_s=36.0)
    up = ScaleEvent(at_s=5.0, replica="model-3", direction="up")
    scaling = Scaling(replicas=("model-1", "model-3"), spans=(ran,), acts=(up,), ended_s=72.0)
    seen = trial(scaling=scaling)

    assert (float(seen.replica_hours), int(seen.max_replicas), int(seen.flaps)) == (0.01, 1, 0)
    with pytest.raises(NoData, match="stopped no replica"):
        _ = seen.cut_by_scale_down
    assert judged_result(record, seen).scaling == ScalingResult(
        replica_hours=0.01, max_replicas=1, flaps=0, acts=(ScaleNote(at_s=5.0, replica="model-3", direction="up"),)
    )
    assert judged_result(record, trial()).scaling is None
    with pytest.raises(NoData, match="an autoscaler stopped and started replicas"):
        _ = trial(plan=replace(seen.plan, experiment=replace(seen.plan.experiment, autoscaler="slo()"))).replicas
    with pytest.raises(BadScenario, match=r"trial\.flaps needs an autoscaler, and kill_api lacks one"):
        _ = trial().flaps


def test_tasks_are_those_of_a_load_of_tasks(record, trial):
    tasks = judge_tasks((), ())

    assert trial(agent_tasks=tasks).tasks is tasks
    assert judged_result(record, trial(agent_tasks=tasks)).tasks == TasksResult(offered=0, statuses={})
    assert judged_result(record, trial()).tasks is None
    with pytest.raises(BadScenario, match=r"the load of kill_api has no tasks: write experiment\(load=loads\.tasks"):
        _ = trial().tasks


def test_attempts_per_request_are_kept_if_known(record, trial):
    kept = [
        judged_result(record, trial(attempts=of)).attempts_per_request for of in (1.05, CounterReset("reset"), None)
    ]

    assert kept == [1.05, None, None]
