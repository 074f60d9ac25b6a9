"""Who noticed and who repaired is read from records: a start that nobody wrote down is nobody's."""

import pytest

from pytest_llmchaos import faults
from pytest_llmchaos.errors import Inconclusive
from pytest_llmchaos.evidence.journal import Journal
from pytest_llmchaos.evidence.trial_record import Record
from pytest_llmchaos.evidence.trial_result import ReadySpan
from pytest_llmchaos.lab.injector import Injected, OwnAct
from pytest_llmchaos.model import EventGap, Injection, RuntimeEvent
from pytest_llmchaos.prometheus.queries import FiredAlert
from pytest_llmchaos.trial.attribution import (
    actions_of,
    detection,
    events_of,
    is_unnoticed,
    readiness_events,
    repaired_by,
    require_whole_records,
    restarts,
    signals_of,
)
from pytest_llmchaos.trial.trial import Action

KILL = faults.kill("api").primitive
RESTART = faults.restart("api").primitive


def event(at, action, service="api", **attributes):
    return RuntimeEvent(at_unix_s=at, service=service, action=action, attributes=attributes)


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
    return lines


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
def test_the_repair_is_credited_to_whoever_wrote_it_down(start, audit, who):
    assert repaired_by(injected(), [event(100.0, "die"), event(start, "start")], audit) == who


def test_each_action_speaks_for_its_own_time_alone():
    audit = acted(101.0, 101.5) + acted(110.0, 110.5)

    assert repaired_by(injected(), [event(100.0, "die"), event(105.0, "start")], audit) == "unknown"


def test_a_forced_restart_needs_nobody():
    assert repaired_by(injected(fault=RESTART), [event(100.0, "die"), event(100.5, "start")], []) == "itself"


def test_a_start_that_died_again_is_no_repair():
    again = [event(100.0, "die"), event(102.0, "start"), event(103.0, "die")]

    assert repaired_by(injected(), [*again, event(140.1, "start")], acted(101.8, 102.1)) == "instrument"
    assert repaired_by(injected(), [*again, event(105.0, "start")], acted(104.8, 105.1)) == "remediator"
    assert repaired_by(injected(), again, acted(101.8, 102.1)) is None


def test_what_dies_after_our_revert_takes_no_credit_away():
    events = [event(100.0, "die"), event(102.0, "start"), event(141.0, "die"), event(142.0, "start")]

    assert repaired_by(injected(), events, acted(101.8, 102.1)) == "remediator"


def test_a_restart_that_we_forced_takes_no_credit_away():
    done = injected()
    done.acts.append(Injection(after_s=5.0, fault=RESTART, victim="api"))
    done.proven = [(done.acts[0], 100.0), (done.acts[1], 105.0)]
    events = [event(100.0, "die"), event(102.0, "start"), event(105.0, "die"), event(105.4, "start")]

    assert repaired_by(done, events, acted(101.8, 102.1)) == "remediator"


def test_two_repairers_are_mixed_and_none_is_none():
    events = [event(102.0, "start"), event(103.0, "start", "model-1")]

    assert repaired_by(injected(victims=("api", "model-1")), events, acted(101.9, 102.1)) == "mixed"
    assert repaired_by(injected(), [], []) is None
    assert repaired_by(Injected(), [], []) is None


class Fired:
    def __init__(self, name, at, before=False, **labels):
        self.name, self.at_unix_s, self.before, self.labels = name, at, before, labels


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
    ids=["the victim", "its address", "callers", "the victim and another"],
)
def test_a_signal_about_a_victim_or_about_callers_counts(record, labels):
    assert detected(record, [], [Fired("Any", 102.0, **labels)]) == (2.0, "alert Any")


def test_a_signal_of_a_service_that_was_not_hit_is_coincident(record):
    fired = [Fired("GpuHot", 100.4, service="model-2"), Fired("ServiceDown", 103.0, service="api")]
    found = detection(record, injected(), SERVICES, [{"at": 100.2, **NOTICED, "service": "model-1"}], fired)

    assert (found.after_s, found.by) == (3.0, "alert ServiceDown")
    assert [(one.what, one.after_s, one.service) for one in found.coincident] == [
        ("remediator rule api-exited", 0.2, "model-1"),
        ("alert GpuHot", 0.4, "model-2"),
    ]
    assert found.coincident[1].why == "model-2 was not hit, and the fault does not declare it"


def test_a_signal_that_a_fault_declares_counts_whatever_it_is_about(record):
    class Declares(type(KILL)):
        signals = ("GpuHot",)

    assert detected(record, [], [Fired("GpuHot", 101.0, service="model-2")], injected(fault=Declares())) == (
        1.0,
        "alert GpuHot",
    )


def test_a_signal_after_our_own_revert_is_coincident(record):
    assert detected(record, [{"at": 140.0, **NOTICED}]) == (None, None)
    assert why_not(record, [], [Fired("ServiceFlapping", 145.0)]) == "it began after the instrument's own revert"


def test_a_signal_from_before_the_fault_detects_nothing(record):
    assert detected(record, [{"at": 99.0, **NOTICED}], [Fired("ServiceDown", 105.0, before=True)]) == (None, None)
    assert why_not(record, [], [Fired("ServiceDown", 105.0, before=True)]) == (
        "it was pending or firing before the fault"
    )


def test_without_a_fault_nothing_is_detected(record):
    assert detected(record, [], [Fired("ServiceDown", 105.0)], Injected()) == (None, None)


@pytest.mark.parametrize(
    ("start", "detect_s", "missing"),
    [
        pytest.param(100.0, None, True, id="a proven fault that nothing told of"),
        pytest.param(100.0, 1.5, False, id="a fault that an alert told of"),
        pytest.param(None, None, False, id="no fault, so nothing to tell of"),
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


def test_what_the_instrument_did_itself_is_no_restart_and_is_marked(record):
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
    with pytest.raises(Inconclusive, match=r"missing from 11\.0 s to 14\.5 s .*: the daemon was restarted"):
        require_whole_records(record, [gap], [])
    with pytest.raises(Inconclusive, match=r"audit log cannot be read \(written after 99\.000\)"):
        require_whole_records(record, [], [{"event": "unreadable", "at": 101.0, "reason": "written after 99.000"}])


def test_what_everybody_wrote_down_is_told_on_one_clock_in_order(record):
    audit = [
        {"at": 101.5, "event": "detected", "rule": "api-exited", "service": "api"},
        {"at": 101.6, "event": "intent", "action": "start", "rule": "api-exited", "service": "api"},
        {"at": 95.0, "event": "suppressed", "reason": "startup grace"},
    ]
    events = [event(102.0, "start", execID="7"), event(100.0, "die", exitCode="137", execID="7")]
    fired = [Fired("ServiceDown", 101.0, service="api"), Fired("Old", 101.0, before=True)]

    notes = events_of(record, injected(), events, audit, fired)

    assert [(e.at_s, e.source, e.what, e.service) for e in notes] == [
        (5.0, "remediator", "suppressed : startup grace", ""),
        (10.0, "runtime", "api die exitCode=137", "api"),
        (11.0, "prometheus", "alert ServiceDown fires", "api"),
        (11.5, "remediator", "detected api: api-exited", "api"),
        (11.6, "remediator", "intent start api: api-exited", "api"),
        (12.0, "runtime", "api start", "api"),
    ]


def test_the_remediators_acts_are_those_that_ended(record):
    audit = [
        {"at": 101.0, "event": "intent", "action": "start", "service": "api", "rule": "api-exited"},
        {"at": 101.5, "event": "done", "action": "start", "service": "api", "rule": "api-exited"},
        {"at": 103.0, "event": "failed", "action": None, "service": None, "rule": None},
    ]

    assert actions_of(record, audit) == (
        Action(at_s=11.5, action="start", service="api", rule="api-exited", succeeded=True),
        Action(at_s=13.0, action="", service="", rule="", succeeded=False),
    )


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
