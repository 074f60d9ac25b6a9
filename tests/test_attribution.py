"""Detection and repair, as attributed from the records."""

import json

import pytest

from pytest_llmchaos import faults
from pytest_llmchaos.errors import Inconclusive
from pytest_llmchaos.evidence.journal import Journal
from pytest_llmchaos.evidence.trial_record import Record
from pytest_llmchaos.evidence.trial_result import ReadySpan
from pytest_llmchaos.lab.injector import Injected, OwnAct
from pytest_llmchaos.model import EventGap, Injection, RuntimeEvent, ServiceState
from pytest_llmchaos.prometheus.queries import FiredAlert
from pytest_llmchaos.trial.attribution import (
    ACTION_LIMIT_S,
    CLOCK_SLACK_S,
    Detection,
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
from pytest_llmchaos.trial.signals import Incident
from pytest_llmchaos.trial.trial import Action

KILL = faults.kill("api").primitive
RESTART = faults.restart("api").primitive


def event(at, action, service="api", **attributes):
    """An event as read from the runtime, with words that are not literals here."""
    action, service, attributes = json.loads(json.dumps([action, service, attributes]))
    return RuntimeEvent(at_unix_s=at, service=service, action=action, attributes=attributes)


def read(*lines):
    """Return lines of the audit log as they are read."""
    return json.loads(json.dumps(lines))


def injected(start=100.0, reverted=140.0, victims=("api",), fault=KILL):
    done = Injected()
    done.acts = [Injection(after_s=0.0, fault=fault, victim=v) for v in victims]
    done.start_unix_s = done.last_unix_s = start
    done.reverted_unix_s = reverted
    return done


def acted(begin, end=None, service="api", incident="i1"):
    lines = [{"at": begin, "event": "intent", "service": service, "incident": incident}]
    if end is not None:
        lines.append({"at": end, "event": "done", "service": service, "incident": incident})
    return read(*lines)


@pytest.fixture
def record(tmp_path):
    made = Record(Journal(tmp_path / "journal.jsonl"), "001", tmp_path)
    made.anchor(90.0, 0.0)
    return made


@pytest.mark.parametrize(
    ("start", "audit", "who"),
    [
        (102.0, acted(101.8, 102.1), "remediator"),
        (102.0, acted(101.8), "remediator"),
        (102.0, [], "unknown"),
        (102.0, acted(103.0, 103.5), "unknown"),
        (102.0, acted(90.0, 91.0), "unknown"),
        (102.0, acted(101.8, 102.1, service="model-1"), "unknown"),
        (140.1, [], "instrument"),
    ],
    ids=[
        "inside its action",
        "its writer died",
        "nobody",
        "before it acted",
        "an old action",
        "another service",
        "our revert",
    ],
)
def test_the_repair_is_credited_by_the_records(start, audit, who):
    assert repaired_by(injected(), [event(100.0, "die"), event(start, "start")], audit) == who


@pytest.mark.parametrize(
    ("audit", "who"),
    [
        (acted(102.0 + CLOCK_SLACK_S, 103.0), "remediator"),
        (acted(102.06, 103.0), "unknown"),
        (acted(101.0, 102.0 - CLOCK_SLACK_S), "remediator"),
        (acted(101.0, 101.94), "unknown"),
        (acted(102.0 - ACTION_LIMIT_S), "remediator"),
        (acted(91.94), "unknown"),
    ],
)
def test_a_start_may_be_recorded_shortly_outside_the_action_and_an_action_without_an_end_lasts_ten_seconds(audit, who):
    assert (CLOCK_SLACK_S, ACTION_LIMIT_S) == (0.05, 10.0)
    assert repaired_by(injected(), [event(100.0, "die"), event(102.0, "start")], audit) == who


@pytest.mark.parametrize(("at", "who"), [(139.94, "unknown"), (140.0 - CLOCK_SLACK_S, "instrument")])
def test_our_revert_may_be_recorded_shortly_after_its_start(at, who):
    assert repaired_by(injected(), [event(100.0, "die"), event(at, "start")], []) == who


def state(restarts, started=102.0):
    return {"api": ServiceState(service="api", running=True, started_unix_s=started, restarts=restarts)}


@pytest.mark.parametrize(
    ("states", "audit", "who"),
    [
        pytest.param(state(1), [], "runtime", id="the restart policy"),
        pytest.param(state(3), acted(101.8, 102.1), "runtime", id="the policy, faster than the remediator"),
        pytest.param(state(0), [], "other", id="a call of Docker's API without a log"),
        pytest.param(state(0), acted(101.8, 102.1), "remediator", id="the remediator"),
        pytest.param(state(0), acted(99.0, 99.5), "other", id="the remediator had acted before the fault"),
        pytest.param(state(0), acted(101.8, 102.1, service="db"), "other", id="the remediator acted on another"),
        pytest.param(state(0), acted(100.0, 101.0), "unknown", id="the remediator had acted on it"),
        pytest.param(state(0), acted(104.0, 105.0), "unknown", id="the remediator acted on it later"),
        pytest.param(state(1, 104.1), [], "unknown", id="a later start was by the policy"),
        pytest.param(state(1, 99.9), [], "unknown", id="an earlier start was by the policy"),
        pytest.param(state(1, 104.0), [], "runtime", id="heard two seconds early"),
        pytest.param(state(1, 100.0), [], "runtime", id="heard two seconds late"),
        pytest.param({}, [], "unknown", id="no state"),
        pytest.param(None, [], "unknown", id="no states"),
    ],
)
def test_a_repair_by_the_restart_policy_differs_from_a_call_of_the_api(states, audit, who):
    events = [event(100.0, "die"), event(102.0, "start")]

    assert repaired_by(injected(), events, audit, states) == who


def test_a_start_in_our_revert_is_ours_unless_the_policy_made_it():
    events = [event(100.0, "die"), event(140.1, "start")]

    assert repaired_by(injected(), events, [], state(0, 140.1)) == "instrument"
    assert repaired_by(injected(), events, [], state(1, 140.1)) == "runtime"


def test_victims_with_other_repairers_are_mixed():
    events = [event(100.0, "die"), event(102.0, "start"), event(101.0, "die", "db"), event(102.0, "start", "db")]
    states = state(1) | {"db": ServiceState(service="db", running=True, started_unix_s=102.0)}

    assert repaired_by(injected(victims=("api", "db")), events, [], states) == "mixed"


@pytest.mark.parametrize("other", ["h", "j"])
def test_an_action_ends_only_with_its_own_incident(other):
    first, last = acted(101.8, 103.0, incident="i")
    noted = {"at": 101.9, "event": "suppressed", "service": "api", "incident": "i"}
    audit = read(first, {**last, "at": 101.9, "incident": other}, noted, last)

    assert repaired_by(injected(), [event(100.0, "die"), event(102.5, "start")], audit) == "remediator"
    assert repaired_by(injected(), [event(100.0, "die"), event(103.5, "start")], audit) == "unknown"


@pytest.mark.parametrize("at", [100.5, 100.6, 100.7])
def test_a_start_within_a_failed_action_has_an_unknown_repairer(at):
    first, last = acted(100.5, 100.7)
    (again,) = acted(100.6)
    failed = {**last, "event": "failed"}
    events = [event(100.0, "die"), event(at, "start")]

    assert repaired_by(injected(), events, read(first, failed)) == "unknown"
    assert repaired_by(injected(), events, read(first, failed, {**last, "event": "done"})) == "unknown"
    assert repaired_by(injected(reverted=100.4), events, read(first, failed)) == "instrument"
    assert repaired_by(injected(), events, read({**first, "incident": "i0"}, again)) == "remediator"


def test_a_failed_action_on_another_service_does_not_count_in_a_log_without_incidents():
    first, last = acted(100.5, 101.0, incident=None)
    _, other = acted(100.5, 100.6, service="model-1", incident=None)

    events = [event(100.0, "die"), event(100.8, "start")]
    assert repaired_by(injected(), events, [first, {**other, "event": "failed"}, last]) == "remediator"


def test_each_action_of_an_incident_has_its_own_end():
    first, last = acted(100.5, 100.7)
    (again,) = acted(101.8)
    audit = read(first, {**last, "event": "failed"}, again)

    assert repaired_by(injected(), [event(100.0, "die"), event(101.2, "start")], audit) == "unknown"
    assert repaired_by(injected(), [event(100.0, "die"), event(102.0, "start")], audit) == "remediator"


@pytest.mark.parametrize("at", [100.9, 101.2])
@pytest.mark.parametrize("action", ["health_status", "exec_start", "stop", "unpause"])
def test_only_a_start_is_a_start(action, at):
    events = [event(100.0, "die"), event(at, action), event(102.0, "start")]

    assert repaired_by(injected(), events, acted(at - 0.1, at + 0.1)) == "unknown"
    assert repaired_by(injected(), events, acted(101.9, 102.1)) == "remediator"


@pytest.mark.parametrize("action", ["attach", "destroy", "disconnect", "kill", "stop"])
def test_only_a_death_takes_credit_away(action):
    events = [event(100.0, "die"), event(102.0, "start"), event(103.0, action), event(105.0, "start")]

    assert repaired_by(injected(), events, acted(101.9, 102.1)) == "remediator"


def test_the_first_start_that_lasted_counts():
    events = [event(100.0, "die"), event(102.0, "start"), event(110.0, "stop"), event(110.0, "start")]

    assert repaired_by(injected(), events, acted(101.9, 102.1)) == "remediator"


@pytest.mark.parametrize("service", ["aaa", "zzz"])
def test_a_start_counts_for_its_own_service(service):
    events = [event(100.0, "die"), event(101.0, "start", service), event(102.0, "start")]

    assert repaired_by(injected(), events, acted(100.9, 101.1)) == "unknown"
    assert repaired_by(injected(), events, acted(100.9, 101.1, service) + acted(101.9, 102.1)) == "remediator"
    assert repaired_by(injected(), events, acted(101.9, 102.1, service)) == "unknown"


@pytest.mark.parametrize("at", [99.0, 100.0])
def test_a_start_up_to_the_instant_of_the_fault_is_not_a_repair(at):
    assert repaired_by(injected(), [event(at, "start"), event(100.0, "die")], []) is None


class TestEndedInPlace:
    """A victim whose process never went down, such as an engine that hung."""

    HANG, PAUSE = faults.hang("api").primitive, faults.pause("api").primitive

    @pytest.mark.parametrize(
        "events",
        [
            [],
            [event(101.0, "health_status"), event(102.0, "attach"), event(103.0, "stop")],
            [event(101.0, "die", "aaa"), event(102.0, "die", "zzz")],
        ],
        ids=["no event", "no death", "deaths of others"],
    )
    def test_was_ended_by_our_revert_if_it_lasted_until_then(self, events):
        done = injected(fault=self.HANG)

        assert repaired_by(done, events, []) == "instrument"
        done.over_unix_s = 120.0
        assert repaired_by(done, events, []) == "unknown"
        done.over_unix_s, done.reverted_unix_s = None, None
        assert repaired_by(done, events, []) is None

    @pytest.mark.parametrize("other", ["aaa", "zzz"])
    def test_a_victim_of_a_passing_fault_does_not_end_in_place(self, other):
        done = injected(victims=("api", other), fault=self.HANG)
        done.acts[0] = Injection(after_s=0.0, fault=self.PAUSE, victim="api")
        events = [event(101.0, "die", other), event(102.0, "start", other)]

        assert repaired_by(done, events, acted(101.9, 102.1, other)) == "remediator"


def test_each_action_counts_for_its_own_time_only():
    audit = acted(101.0, 101.5) + acted(110.0, 110.5)

    assert repaired_by(injected(), [event(100.0, "die"), event(105.0, "start")], audit) == "unknown"


def test_a_forced_restart_repairs_itself():
    assert repaired_by(injected(fault=RESTART), [event(100.0, "die"), event(100.5, "start")], []) == "itself"


@pytest.mark.parametrize("fault", [faults.kill("api"), faults.stop("api")])
def test_any_other_fault_needs_a_repairer(fault):
    assert repaired_by(injected(fault=fault.primitive), [event(100.0, "die"), event(100.5, "start")], []) == "unknown"


def test_a_start_that_died_again_is_not_a_repair():
    again = [event(100.0, "die"), event(102.0, "start"), event(103.0, "die")]

    assert repaired_by(injected(), [*again, event(140.1, "start")], acted(101.8, 102.1)) == "instrument"
    assert repaired_by(injected(), [*again, event(105.0, "start")], acted(104.8, 105.1)) == "remediator"
    assert repaired_by(injected(), again, acted(101.8, 102.1)) is None


def test_what_dies_with_our_revert_was_no_repair():
    events = [event(100.0, "die"), event(102.0, "start"), event(140.0, "die"), event(140.2, "start")]

    assert repaired_by(injected(), events, acted(101.8, 102.1)) == "instrument"


def test_before_any_revert_every_death_takes_credit_away():
    events = [event(100.0, "die"), event(102.0, "start"), event(141.0, "die"), event(142.0, "start")]

    assert repaired_by(injected(reverted=None), events, acted(101.8, 102.1)) == "unknown"


def test_what_dies_after_our_revert_takes_no_credit_away():
    events = [event(100.0, "die"), event(102.0, "start"), event(141.0, "die"), event(142.0, "start")]

    assert repaired_by(injected(), events, acted(101.8, 102.1)) == "remediator"


def test_a_restart_that_we_forced_takes_no_credit_away():
    done = injected()
    done.acts.append(Injection(after_s=5.0, fault=RESTART, victim="api"))
    done.proven = [(done.acts[0], 100.0), (done.acts[1], 105.0)]
    events = [event(100.0, "die"), event(102.0, "start"), event(105.0, "die"), event(105.4, "start")]

    assert repaired_by(done, events, acted(101.8, 102.1)) == "remediator"


@pytest.mark.parametrize(
    ("fault", "victim"),
    [(KILL, "api"), (faults.stop("api").primitive, "api"), (RESTART, "aaa"), (RESTART, "zzz")],
    ids=["another kill", "a stop", "a forced restart of another", "a forced restart of yet another"],
)
def test_a_second_fault_takes_credit_away_unless_it_is_a_forced_restart(fault, victim):
    done = injected()
    done.acts.append(Injection(after_s=5.0, fault=fault, victim=victim))
    done.proven = [(done.acts[0], 100.0), (done.acts[1], 105.0)]
    events = [event(100.0, "die"), event(102.0, "start"), event(105.0, "die"), event(107.0, "start")]
    others = [event(105.0, "die", name) for name in ("aaa", "zzz")]

    assert repaired_by(done, [*events, *others], acted(101.8, 102.1)) == "unknown"


def test_a_victim_that_did_not_come_back_hides_no_other():
    events = [event(100.0, "die"), event(102.0, "start", "model-1")]

    assert repaired_by(injected(victims=("api", "model-1")), events, acted(101.9, 102.1, "model-1")) == "remediator"


def test_without_a_proven_fault_nothing_was_repaired():
    done = injected(start=None)
    assert repaired_by(done, [event(102.0, "start")], []) is None
    done.start_unix_s, done.acts = 100.0, []
    assert repaired_by(done, [event(102.0, "start")], []) is None


def test_two_repairers_are_mixed_and_no_repairer_gives_none():
    events = [event(102.0, "start"), event(103.0, "start", "model-1")]

    assert repaired_by(injected(victims=("api", "model-1")), events, acted(101.9, 102.1)) == "mixed"
    assert repaired_by(injected(reverted=None), [], []) is None
    assert repaired_by(injected(fault=faults.pause("api").primitive), [], []) is None
    assert repaired_by(Injected(), [], []) is None


def test_a_hang_that_only_our_revert_ended_was_repaired_by_the_instrument():
    hung = injected(victims=("model-1", "model-2"), fault=faults.hang("model-1").primitive)
    audit = acted(104.7, 105.1, service="model-1")
    restarted = [event(104.8, "die", "model-1"), event(105.0, "start", "model-1")]

    assert repaired_by(hung, [], []) == "instrument"
    assert repaired_by(hung, restarted, audit) == "mixed"
    hung.over_unix_s = 120.0
    assert repaired_by(hung, [], []) == "unknown"


def test_a_victim_that_never_started_again_has_no_repairer():
    assert repaired_by(injected(victims=("api", "db")), [event(100.0, "die"), event(100.0, "die", "db")], []) is None


class Fired:
    def __init__(self, name, at, before=False, theirs=False, **labels):
        self.name, self.at_unix_s, self.before, self.theirs, self.labels = name, at, before, theirs, labels


SERVICES = ("api", "model-1", "model-2")
NOTICED = {"event": "detected", "rule": "api-exited", "service": "api"}


def detected(record, audit=(), fired=(), done=None):
    found = detection(record, done or injected(), SERVICES, audit, fired)
    return found.after_s, found.by


def why_not(record, audit=(), fired=(), done=None):
    (one,) = detection(record, done or injected(), SERVICES, audit, fired).coincident
    return one.why


def test_the_first_signal_after_the_fault_detects_it(record):
    audit = [{"at": 101.2, **NOTICED, "event": "intent"}, {"at": 101.5, **NOTICED}]

    assert detected(record, audit, [Fired("ServiceDown", 102.0)]) == (1.5, "remediator rule api-exited")
    assert detected(record, [], [Fired("ServiceDown", 102.0)]) == (2.0, "alert ServiceDown")


@pytest.mark.parametrize(
    "labels",
    [{"service": "api"}, {"instance": "api:8000", "job": "web"}, {"slo": "availability"}, {"a": "api", "b": "model-2"}],
    ids=["the victim", "its address", "clients", "the victim and another"],
)
def test_a_signal_about_a_victim_or_about_clients_counts(record, labels):
    assert detected(record, [], [Fired("Any", 102.0, **labels)]) == (2.0, "alert Any")


def test_a_signal_about_another_service_is_coincident(record):
    fired = [Fired("GpuHot", 100.4, service="model-2"), Fired("ServiceDown", 103.0, service="api")]
    found = detection(record, injected(), SERVICES, [{"at": 100.2, **NOTICED, "service": "model-1"}], fired)

    assert (found.after_s, found.by) == (3.0, "alert ServiceDown")
    assert [(one.what, one.after_s, one.service) for one in found.coincident] == [
        ("remediator rule api-exited", 0.2, "model-1"),
        ("alert GpuHot", 0.4, "model-2"),
    ]
    assert found.coincident[1].why == "model-2 is not a victim, and the fault does not declare the signal"


@pytest.mark.parametrize(
    ("theirs", "brings_judge", "source"),
    [(False, True, "run_prometheus"), (True, True, "user_prometheus"), (False, False, "stack_prometheus")],
)
def test_a_detection_has_the_prometheus_that_raised_it(record, theirs, brings_judge, source):
    fired = [Fired("ServiceDown", 102.0, theirs=theirs), Fired("ServiceDown", 103.0, theirs=not theirs)]

    found = detection(record, injected(), SERVICES, [], fired, brings_judge=brings_judge)

    assert (found.by, found.source) == ("alert ServiceDown", source)


def test_a_detection_by_the_remediator_has_it_as_its_source(record):
    found = detection(record, injected(), SERVICES, [{"at": 101.2, **NOTICED}], [], brings_judge=True)

    assert found.source == "remediator"


def test_events_name_the_users_prometheus(record):
    fired = [Fired("Down", 101.0, theirs=True), Fired("Down", 102.0)]

    assert [one.what for one in events_of(record, injected(), [], [], fired)] == [
        "alert Down fires in the user's Prometheus",
        "alert Down fires",
    ]


@pytest.mark.parametrize("victim", ["api", "model-2"])
def test_a_signal_about_a_victim_and_others_is_about_the_victim(record, victim):
    done = injected(victims=(victim,))

    assert detected(record, [], [Fired("Any", 102.0, a="api", b="model-1", c="model-2:80")], done) == (2.0, "alert Any")


def test_times_of_signals_are_known_to_the_millisecond(record):
    fired = [Fired("GpuHot", 100.41237, service="model-2"), Fired("ServiceDown", 103.12361, service="api")]
    found = detection(record, injected(), SERVICES, [], fired)

    assert (found.after_s, [one.after_s for one in found.coincident]) == (3.124, [0.412])


def test_a_signal_about_a_service_outside_the_stack_is_coincident(record):
    found = detection(record, injected(), SERVICES, [], [Fired("ServiceDown", 101.0, service="billing")])

    assert found.after_s is None
    assert [one.why for one in found.coincident] == [
        "billing is not a victim, and the fault does not declare the signal"
    ]


def test_a_signal_that_a_fault_declares_counts_for_any_service(record):
    class Declares(type(KILL)):
        signals = ("GpuHot",)

    assert detected(record, [], [Fired("GpuHot", 101.0, service="model-2")], injected(fault=Declares())) == (
        1.0,
        "alert GpuHot",
    )


def test_a_signal_after_our_own_revert_is_coincident(record):
    assert detected(record, [{"at": 140.0, **NOTICED}]) == (None, None)
    assert why_not(record, [], [Fired("ServiceFlapping", 145.0)]) == "it began after the instrument's own revert"
    (late,) = detection(record, injected(), SERVICES, [], [Fired("ServiceFlapping", 245.0)]).coincident
    assert late.after_s == 145.0


def test_a_signal_from_before_the_fault_detects_nothing(record):
    assert detected(record, [{"at": 99.0, **NOTICED}], [Fired("ServiceDown", 105.0, before=True)]) == (None, None)
    assert why_not(record, [], [Fired("ServiceDown", 105.0, before=True)]) == (
        "it was pending or firing before the fault"
    )


def test_a_signal_of_the_very_instant_of_the_fault_is_judged_like_any_later_one(record):
    assert detected(record, [{"at": 100.0, **NOTICED}]) == (0.0, "remediator rule api-exited")
    other = [Fired("GpuHot", 100.0, service="model-2")]
    assert why_not(record, [], other) == "model-2 is not a victim, and the fault does not declare the signal"


def test_the_earliest_of_several_signals_detects_the_fault(record):
    audit = read({"at": 103.0, **NOTICED}, {"at": 101.5, **NOTICED})

    assert detected(record, audit, [Fired("ServiceDown", 101.0)]) == (1.0, "alert ServiceDown")
    assert detected(record, audit, [Fired("ServiceDown", 104.0)]) == (1.5, "remediator rule api-exited")


def test_a_line_without_a_rule_or_a_service_has_empty_ones(record):
    assert detected(record, read({"at": 101.0, "event": "detected"})) == (1.0, "remediator rule ")
    assert detected(record, read({"at": 101.0, "event": "detected", "rule": None, "service": None}))[0] == 1.0


def test_only_what_was_detected_is_a_signal_of_the_remediator(record):
    for other in ("acted", "done", "intent"):
        audit = read({"at": 101.0, **NOTICED, "event": other})
        assert detection(record, injected(), SERVICES, audit, []) == Detection()
        assert signals_of(record, 10.0, audit, []) == ()
    assert signals_of(record, 10.0, read({"at": 101.0, **NOTICED}), [])[0].kind == "rule"


def test_without_a_fault_nothing_is_detected(record):
    assert detected(record, [], [Fired("ServiceDown", 105.0)], Injected()) == (None, None)


@pytest.mark.parametrize(
    ("start", "detect_s", "missing"),
    [
        pytest.param(100.0, None, True, id="a proven fault without a signal"),
        pytest.param(100.0, 1.5, False, id="a fault with an alert"),
        pytest.param(None, None, False, id="no fault, so no signal is missing"),
    ],
)
def test_a_proven_fault_without_a_signal_is_unnoticed(start, detect_s, missing):
    assert is_unnoticed(injected(start=start), detect_s) is missing


def test_each_change_of_readiness_is_an_event():
    spans = [ReadySpan(from_s=float(i), to_s=i + 1.0, status=status) for i, status in enumerate((200, 503, 0, 200))]

    assert [(e.at_s, e.what, e.service) for e in readiness_events(spans, "api")] == [
        (1.0, "not ready (503)", "api"),
        (2.0, "not ready (no answer)", "api"),
        (3.0, "ready (200)", "api"),
    ]


def test_restarts_are_counted_per_service():
    events = [event(1, "start"), event(2, "die"), event(3, "start"), event(4, "start", "model-1")]

    assert restarts(injected(), events) == {"api": 2, "model-1": 1}
    assert restarts(injected(), [event(1, "exec_start"), event(2, "stop"), event(3, "unpause")]) == {}


def test_acts_of_the_instrument_are_marked_and_are_not_restarts(record):
    done = injected()
    done.own = [OwnAct(service="api", from_unix_s=140.0, to_unix_s=140.3)]
    events = [event(120.0, "start"), event(140.1, "start"), event(140.1, "start", "model-1"), event(140.9, "start")]

    assert restarts(done, events) == {"api": 2, "model-1": 1}
    assert [note.what for note in events_of(record, done, events, [], [])] == [
        "api start",
        "api start (by the instrument)",
        "model-1 start",
        "api start",
    ]


def test_missing_events_are_inconclusive_and_name_the_gap(record):
    gap = EventGap(from_unix_s=101.0, to_unix_s=104.5, why="the daemon was restarted")

    require_whole_records(record, [], [NOTICED])
    with pytest.raises(Inconclusive, match=r"gap from 11\.0 s to 14\.5 s .*: the daemon was restarted"):
        require_whole_records(record, [gap], [])
    with pytest.raises(Inconclusive, match=r"audit log cannot be read \(written after 99\.000\)"):
        require_whole_records(record, [], read({"event": "unreadable", "at": 101.0, "reason": "written after 99.000"}))
    require_whole_records(record, [], read({"event": "suppressed"}, {"event": "verified"}, {}))


def test_events_of_all_sources_are_in_order_on_one_clock(record):
    audit = [
        {"at": 101.5, "event": "detected", "rule": "api-exited", "service": "api"},
        {"at": 101.6, "event": "intent", "action": "start", "rule": "api-exited", "service": "api"},
        {"at": 95.0, "event": "suppressed", "reason": "startup grace"},
    ]
    died = event(100.0, "die", exitCode="137", execID="7", detail="killed", signal="9")
    events = [event(102.0, "start", execID="7"), died]
    fired = [Fired("ServiceDown", 101.0, service="api"), Fired("Old", 101.0, before=True)]

    notes = events_of(record, injected(), events, audit, fired)

    assert [(e.at_s, e.source, e.what, e.service) for e in notes] == [
        (5.0, "remediator", "suppressed : startup grace", ""),
        (10.0, "runtime", "api die detail=killed exitCode=137 signal=9", "api"),
        (11.0, "prometheus", "alert ServiceDown fires", "api"),
        (11.5, "remediator", "detected api: api-exited", "api"),
        (11.6, "remediator", "intent start api: api-exited", "api"),
        (12.0, "runtime", "api start", "api"),
    ]


def test_an_event_of_the_remediator_has_its_rule_or_else_its_reason(record):
    audit = read(
        {"at": 95.0, "event": "suppressed", "rule": "slow", "reason": "startup grace", "service": "api"},
        {"at": 96.0, "event": "suppressed", "reason": "startup grace", "action": "restart"},
        {"at": 97.0, "event": "started"},
    )

    assert [(note.what, note.service) for note in events_of(record, injected(), [], audit, [])] == [
        ("suppressed api: slow", "api"),
        ("suppressed restart : startup grace", ""),
        ("started :", ""),
    ]


def test_an_alert_without_a_service_has_an_empty_one(record):
    (note,) = events_of(record, injected(), [], [], [Fired("Burn", 101.0, slo="availability")])

    assert note.service == ""


def test_the_remediators_acts_are_those_that_ended(record):
    audit = [
        {"at": 101.0, "event": "intent", "action": "start", "service": "api", "rule": "api-exited"},
        {"at": 101.5, "event": "done", "action": "start", "service": "api", "rule": "api-exited"},
        {"at": 103.0, "event": "failed", "action": None, "service": None, "rule": None},
    ]

    assert actions_of(record, read(*audit)) == (
        Action(at_s=11.5, action="start", service="api", rule="api-exited", succeeded=True),
        Action(at_s=13.0, action="", service="", rule="", succeeded=False),
    )


def test_an_incident_ends_when_the_remediator_closes_it(record):
    audit = read(
        {"at": 99.0, "event": "detected", "rule": "replica-hung", "service": "model-1", "incident": "m"},
        {"at": 101.0, "event": "detected", "rule": "api-exited", "service": "api", "incident": "a"},
        {"at": 101.1, "event": "intent", "rule": "api-exited", "service": "api", "incident": "a"},
        {"at": 102.0, "event": "recovered", "rule": "api-exited", "service": "api", "incident": "earlier"},
        {"at": 103.5, "event": "recovered", "rule": "api-exited", "service": "api", "incident": "a"},
        {"at": 104.0, "event": "recovered", "rule": "api-exited", "service": "api", "incident": "a"},
        {"at": 105.0, "event": "detected", "incident": "b"},
    )

    found = incidents_of(record, 10.0, audit)

    assert found == (
        Incident(service="model-1", rule="replica-hung", after_s=-1.0),
        Incident(service="api", rule="api-exited", after_s=1.0, ended_after_s=3.5),
        Incident(service="", rule="", after_s=5.0),
    )
    assert [one.ended for one in found] == [False, True, False]


def test_an_incident_without_an_id_ends_with_the_next_end_of_its_service(record):
    audit = read(
        {"at": 100.0, "event": "recovered", "service": "api"},
        {"at": 101.0, "event": "detected", "rule": "slow", "service": "api"},
        {"at": 102.0, "event": "recovered", "service": "db"},
        {"at": 103.0, "event": "recovered", "service": "api"},
    )

    assert incidents_of(record, 10.0, audit) == (Incident(service="api", rule="slow", after_s=1.0, ended_after_s=3.0),)


def test_signals_are_those_that_began_after_the_fault_by_name_and_in_order(record):
    audit = [
        {"event": "detected", "at": 99.0, "rule": "early", "service": "api"},
        {"event": "detected", "at": 102.0, "rule": "api-exited", "service": "api"},
        {"event": "intent", "at": 102.1, "rule": "api-exited", "service": "api"},
    ]
    fired = [
        FiredAlert(
            name="ServiceDown", labels={"service": "api", "severity": "page"}, at_unix_s=101.5, until_unix_s=103.0
        ),
        FiredAlert(name="Old", labels={}, at_unix_s=100.0, until_unix_s=103.0, before=True),
        FiredAlert(name="Burn", labels={}, at_unix_s=102.5, until_unix_s=103.0),
    ]

    assert list(map(str, signals_of(record, 10.0, audit, fired))) == [
        "alert ServiceDown (api) after 1.5 s",
        "rule api-exited (api) after 2.0 s",
        "alert Burn after 2.5 s",
    ]
    assert [one.name for one in signals_of(record, 10.0, audit, fired, until_unix_s=102.0)] == ["ServiceDown"]
    assert [one.severity for one in signals_of(record, 10.0, audit, fired)] == ["page", "", ""]
    assert [(one.kind, one.service) for one in signals_of(record, 10.0, audit, fired)] == [
        ("alert", "api"),
        ("rule", "api"),
        ("alert", ""),
    ]


def test_an_alert_is_about_one_service_in_signals_events_and_detection(record):
    """Alerts of a user's Prometheus seldom have the label `service`."""
    fired = [Fired("Slow", 102.0, instance="model-2:8000"), Fired("Odd", 103.0, job="api", instance="model-1:8000")]
    hit = injected()
    others = set(SERVICES) - set(hit.victims)
    assert others >= {"model-2"}

    signals = signals_of(record, 10.0, [], fired, services=SERVICES, victims=hit.victims)
    notes = events_of(record, hit, [], [], fired, services=SERVICES)
    coincident = {one.service for one in detection(record, hit, SERVICES, [], fired).coincident}

    assert [one.service for one in signals] == [note.service for note in notes] == ["model-2", *hit.victims]
    assert coincident == {"model-2"}


def test_signals_begin_with_the_fault_and_end_before_the_last_instant(record):
    fired = [Fired(name, at) for name, at in (("A", 99.99), ("B", 100.0), ("C", 101.23456), ("D", 104.0))]

    assert [(one.name, one.after_s) for one in signals_of(record, 10.0, [], fired)] == [
        ("B", 0.0),
        ("C", 1.235),
        ("D", 4.0),
    ]
    assert [one.after_s for one in signals_of(record, 10.0004, [], fired)] == [1.235, 4.0]
    assert [one.name for one in signals_of(record, 10.0, [], fired, until_unix_s=104.0)] == ["B", "C"]


def test_an_alert_about_a_blinded_prometheus_counts_after_the_revert(record):
    """It could not fire before. Other alerts may be due to the revert."""
    fired = [Fired("Missed", 106.0, service="prometheus"), Fired("ServiceDown", 107.0, service="api")]
    audit = read({"event": "detected", "at": 106.5, "rule": "any", "service": "prometheus"})

    def names(blinded: str | None) -> list[str]:
        found = signals_of(
            record, 10.0, audit, fired, until_unix_s=104.0, blinded=blinded, services={"prometheus", "api"}
        )
        return [str(one.name) for one in found]

    assert names("prometheus") == ["Missed"]
    assert names(None) == []
    early = [Fired("Missed", 99.0, service="prometheus")]
    assert signals_of(record, 10.0, [], early, until_unix_s=104.0, blinded="prometheus") == ()


def test_a_signal_without_fields_has_empty_names(record):
    (one,) = signals_of(record, 10.0, read({"event": "detected", "at": 102.0}), [])

    assert (one.name, one.service) == ("", "")


class TestStartsThatWereNotHeard:
    """Starts that the runtime's events lack. The load began at 90 s."""

    def heard(self, record, started, events, until=200.0, service="api"):
        states = {
            "api": ServiceState(service="api", running=True, started_unix_s=started),
            "db": ServiceState(service="db", running=True, started_unix_s=10.0),
        }
        require_heard(record, [event(at, action, service) for at, action in events], states, until)

    def test_a_start_missing_from_a_silent_stream_is_inconclusive(self, record):
        with pytest.raises(
            Inconclusive, match=r"api was started 12\.0 s into the trial, but the runtime's events lack"
        ):
            self.heard(record, 102.0, [(100.0, "die")])

    @pytest.mark.parametrize(
        ("started", "events", "service"),
        [
            (102.0, [(102.0, "start")], "db"),
            (102.0, [(102.0, "restart")], "api"),
            (102.0, [(99.9, "start"), (104.1, "start")], "api"),
            (90.0, [], "api"),
            (198.0, [], "api"),
        ],
    )
    def test_an_event_of_another_service_kind_or_time_does_not_count(self, record, started, events, service):
        with pytest.raises(Inconclusive, match="its stream of events went silent"):
            self.heard(record, started, events, service=service)

    @pytest.mark.parametrize(
        ("started", "events"),
        [
            (102.0, [(100.0, "die"), (104.0, "start")]),
            (102.0, [(100.0, "start"), (190.0, "start")]),
            (89.9, []),
            (198.1, []),
        ],
        ids=["heard late", "heard early", "before the load", "too late to be heard yet"],
    )
    def test_a_reported_or_irrelevant_start_passes(self, record, started, events):
        self.heard(record, started, events)
