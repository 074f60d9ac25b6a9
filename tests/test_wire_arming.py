"""Fault agents enter before a load and leave after it."""

import functools
from dataclasses import replace

import pytest
from support.clock import Clock
from support.fake_lab import fake_lab
from support.wired_lab import Clients, Wired

from pytest_llmchaos import experiment, faults, loads
from pytest_llmchaos.errors import (
    BadScenario,
    FaultNotObserved,
    HealFailed,
    InvalidExperiment,
    NotReady,
    NoVictim,
    Unsupported,
)
from pytest_llmchaos.evidence.journal import open_intents, read
from pytest_llmchaos.host import measurement_lock
from pytest_llmchaos.lab import gates, injector
from pytest_llmchaos.model import Undo
from pytest_llmchaos.plan.schedule import plan_trial
from pytest_llmchaos.runtime import undo
from pytest_llmchaos.trial import perform

LOAD = loads.open_loop(rate_rps=2)
FLAKY = faults.flaky("model-1")


@pytest.fixture
def lab(tmp_path, monkeypatch):
    clock, log = Clock(), []
    runtime = Wired(clock)
    runtime.log = log
    monkeypatch.setattr("pytest_llmchaos.lab.lab.RunningLoad", lambda *_, **__: Clients(log))
    monkeypatch.setattr(gates, "require_clean", lambda _: log.append("clean"))
    monkeypatch.setattr(measurement_lock, "slot_file", lambda name: tmp_path / f"{name}.lock")
    monkeypatch.setattr(injector, "time", clock)
    monkeypatch.setattr(injector, "revert_until_done", functools.partial(undo.revert_until_done, deadline_s=0.0))
    judge = lambda _lab, record, *_: record.seen()  # noqa: E731 - one line of a fake
    with fake_lab(tmp_path, clock, runtime, judge=judge) as made:
        yield made


WHOLE = ["launch", "clean", "arm model-1", "start", "flaky model-1", "wire_end", "stop", "disarm"]


def test_agents_enter_before_the_first_request_and_leave_after_the_last(lab):
    with lab.load(LOAD, wire=["model-1"]), lab.inject(FLAKY) as injected:
        assert lab.runtime.armed == {"model-1"}

    assert lab.runtime.log == WHOLE
    assert injected.victims == ("model-1",)
    assert lab.runtime.armed == set()


def test_the_undo_is_in_the_journal_before_the_agent_acts(lab, monkeypatch):
    on_disk = []
    start = lab.runtime.wire_start

    def watched(*args, **about):
        on_disk.extend(open_intents(lab.journal.path).undos)
        return start(*args, **about)

    monkeypatch.setattr(lab.runtime, "wire_start", watched)
    with lab.load(LOAD, wire=["model-1"]), lab.inject(FLAKY):
        pass

    assert on_disk == [Undo(op="wire_end", service="model-1", args={"kind": "flaky"})]
    proofs = [line["witness"] for line in read(lab.journal.path) if line["kind"] == "proof"]
    assert proofs == [
        "the fault agent reports flaky w0 in force, hit 1 of 2 requests",
        "the fault agent lists flaky w0 ended, hit 1 of 2 requests; model-1 accepts a connection from outside",
    ]


def test_the_journal_has_the_options_of_a_fault_and_what_it_did(lab):
    fault = faults.flaky("model-1", share=0.5, match=faults.match(path="/v1/*"))
    with lab.load(LOAD, wire=["model-1"]), lab.inject(fault):
        pass

    written = list(read(lab.journal.path))
    (intent,) = [line for line in written if line["kind"] == "intent"]
    assert intent["strength"] == {"status": 503, "share": 0.5, "match": "path=/v1/*"}
    counts = {"counters": {"met": 2.0, "hit": 1.0}, "unit": "requests", "first_hit_after_s": None}
    assert [line["counts"] for line in written if line["kind"] == "proof"] == [counts, counts]
    (judged,) = [line for line in written if line["kind"] == "judged"]
    assert [(one["strength"], one["counts"]) for one in judged["undo"]] == [(intent["strength"], counts)]


@pytest.mark.parametrize("error", [AssertionError("no"), KeyboardInterrupt(), OSError("gone")], ids=repr)
def test_agents_leave_after_an_error_of_the_block(lab, error):
    with pytest.raises(type(error)), lab.load(LOAD, wire=["model-*"]):
        raise error

    assert lab.runtime.log[-2:] == ["stop", "disarm"]
    assert lab.runtime.armed == set()


def test_agents_leave_if_the_load_cannot_start(lab, monkeypatch):
    def refuse(_):
        raise NotReady("no port")

    monkeypatch.setattr(Clients, "start", refuse)

    with pytest.raises(NotReady, match="no port"), lab.load(LOAD, wire=["model-1"]):
        pytest.fail("the block must not be entered")

    assert lab.runtime.log == ["launch", "clean", "arm model-1", "stop", "disarm"]


def test_an_agent_that_entered_leaves_if_another_cannot(lab, monkeypatch):
    def arm(_):
        raise NotReady("model-2 has TLS")

    monkeypatch.setattr(lab.runtime, "wire_arm", arm)

    with pytest.raises(NotReady, match="TLS"), lab.load(LOAD, wire=["model-*"]):
        pytest.fail("the block must not be entered")

    assert lab.runtime.log == ["launch", "clean", "stop", "disarm"]


def test_an_agent_that_stays_is_a_failed_revert(lab, monkeypatch):
    def stay():
        raise NotReady("the rule is still there")

    monkeypatch.setattr(lab.runtime, "wire_disarm", stay)

    with (
        pytest.raises(HealFailed, match=r"still in the way of model-1: the rule is.*; run"),
        lab.load(LOAD, wire=["model-1"]),
    ):
        pass


def test_a_load_without_wire_faults_has_no_agent(lab):
    with lab.load(LOAD):
        assert lab.runtime.armed == set()

    assert lab.runtime.log == ["launch", "clean", "start", "stop"]


TAKES = r"has to read requests of model-1 as HTTP/1 without TLS, and model-1 takes .*: choose a fault of connections"


@pytest.mark.parametrize("protocols", [{8443: "TLS"}, {50051: "HTTP/2"}, {443: "TLS", 8080: "HTTP/2"}], ids=str)
def test_a_load_does_not_start_if_its_faults_cannot_read_the_requests(lab, protocols):
    lab.runtime.protocols["model-1"] = protocols

    with (
        pytest.raises(InvalidExperiment, match=TAKES),
        lab.load(LOAD, wire=["model-*"], read=["model-1"]),
    ):
        pytest.fail("the block must not be entered")

    assert lab.runtime.log == ["launch", "clean", "arm model-1 model-2", "stop", "disarm"]


@pytest.mark.parametrize("protocols", [{8443: "TLS", 8080: "HTTP/1"}, {8080: ""}, {443: "TLS", 9000: ""}, {}], ids=str)
def test_a_service_with_a_port_that_may_take_http1_can_be_read(lab, protocols):
    lab.runtime.protocols["model-1"] = protocols

    with lab.load(LOAD, wire=["model-1"], read=["model-1"]), lab.inject(FLAKY):
        pass

    assert lab.runtime.log == WHOLE


def test_a_fault_of_a_test_that_cannot_read_the_requests_is_refused_and_others_are_not(lab):
    lab.runtime.protocols["model-1"] = {8443: "TLS"}

    with lab.load(LOAD, wire=["model-1"]):
        with pytest.raises(InvalidExperiment, match=f"a fault of flaky model-1 {TAKES}"), lab.inject(FLAKY):
            pytest.fail("the block must not be entered")
        assert "flaky model-1" not in lab.runtime.log
        with lab.inject(faults.latency("model-1", delay_s=0.1)):
            pass
    assert "latency model-1" in lab.runtime.log


def test_a_service_is_checked_once_for_a_load(lab, monkeypatch):
    seen = []
    monkeypatch.setattr(lab.runtime, "wire_protocols", lambda service: seen.append(service) or {80: "HTTP/1"})

    for _ in range(2):
        with lab.load(LOAD, wire=["model-1"], read=["model-1"]), lab.inject(FLAKY):
            pass

    assert seen == ["model-1", "model-1"]


def test_the_mark_of_a_test_names_the_services_unless_the_load_does(lab):
    lab.test.wire = ("model-1",)

    with lab.load(LOAD), lab.inject(FLAKY):
        assert lab.runtime.armed == {"model-1"}
    assert lab.runtime.log == WHOLE
    with lab.load(LOAD, wire=[]):
        assert lab.runtime.armed == set()


def test_a_wire_fault_without_an_agent_is_refused_before_anything_is_touched(lab):
    why = r"flaky model-1 needs a fault agent in the way of model-1 before .* lab\.load\(\.\.\., wire=\['model-1'\]\)"

    with pytest.raises(InvalidExperiment, match=why), lab.load(LOAD, wire=["model-2"]), lab.inject(FLAKY):
        pytest.fail("the block must not be entered")

    assert "flaky model-1" not in lab.runtime.log
    assert [line for line in read(lab.journal.path) if line["kind"] == "intent"] == []


@pytest.mark.parametrize(
    ("wire", "error", "message"),
    [
        (
            "model-1",
            BadScenario,
            r"lab\.load\(wire=\.\.\.\) must be a list of services such as \['model-1'\], got 'model-1'",
        ),
        (7, BadScenario, "must be a list of services"),
        ([7], BadScenario, "must be a service name"),
        (["worker-9"], NoVictim, "'worker-9' matches no service"),
    ],
)
def test_a_wrong_wire_is_refused_before_the_load(lab, wire, error, message):
    with pytest.raises(error, match=message), lab.load(LOAD, wire=wire):
        pytest.fail("the block must not be entered")

    assert lab.runtime.log == []


def test_a_runtime_without_agents_skips(lab):
    lab.runtime.abilities -= {"proxy"}

    with (
        pytest.raises(Unsupported, match=r"cannot proxy, which lab\.load\(wire=\.\.\.\) needs"),
        lab.load(LOAD, wire=["api"]),
    ):
        pytest.fail("the block must not be entered")


def test_a_fault_that_no_request_met_is_not_observed_and_the_error_has_the_counts(lab):
    lab.runtime.deaf = True

    with pytest.raises(FaultNotObserved) as raised, lab.load(LOAD, wire=["model-1"]), lab.inject(FLAKY):
        pytest.fail("the block must not be entered")

    assert str(raised.value) == (
        "flaky model-1: no witness saw it within 10 s; 2 requests met it, and it hit 0 of them (raise the rate, or check "
        "match and the fault's options); expected: clients or the gateway get errors of that status; retries succeed, the "
        "error rate rises"
    )
    assert lab.runtime.log == WHOLE


def plan_of(lab, fault, chosen=0):
    made = experiment(load=LOAD, fault=fault, fault_s=5).kwargs["experiment"]
    about = {
        "scenario": "s",
        "hypothesis": "",
        "experiment": made,
        "fault": made.faults[chosen],
        "repeat": 0,
        "seed": 1,
    }
    return plan_trial(**about, services=lab.subject.targets)


@pytest.mark.parametrize("chosen", [0, 1], ids=["fault", "control"])
def test_all_trials_of_an_experiment_have_agents_at_the_same_services(lab, monkeypatch, chosen):
    asked = []
    plan = plan_of(lab, [faults.stall("model-*"), faults.none()], chosen)

    def load(*_, **about):
        asked.append(about["wire"])
        raise InvalidExperiment("enough")

    monkeypatch.setattr(lab, "load", load)
    with lab.recording() as record, pytest.raises(InvalidExperiment, match="enough"):
        perform._perform(lab, plan, record)
    lab.runtime.abilities -= {"proxy"}
    with lab.recording() as record, pytest.raises(InvalidExperiment, match="enough"):
        perform._perform(lab, plan, record)

    assert asked == [("model-1", "model-2"), ()]


def test_a_trial_on_a_runtime_without_agents_is_skipped(lab):
    lab.runtime.abilities -= {"proxy"}

    performed = perform.perform(lab, plan_of(lab, faults.stall("model-1")))

    assert isinstance(performed.error, Unsupported)
    assert lab.runtime.log == []


def test_a_scenario_needs_no_word_on_agents(lab):
    """A trial arms by itself, and its injections pass the check of `lab.inject`."""
    plan = plan_of(lab, faults.together(faults.flaky("model-1"), faults.stall("model-2")))

    with lab.load(LOAD, wire=perform._wire(lab, plan)), lab.inject(plan.injections) as injected:
        assert injected.victims == ("model-1", "model-2")

    assert lab.runtime.log[2] == "arm model-1 model-2"


def test_a_container_of_a_scaled_service_is_armed_by_its_service(lab):
    lab.subject = replace(lab.subject, targets=("model-1",))

    with lab.load(LOAD, wire=["model-1#2"]):
        assert lab.runtime.armed == {"model-1"}
