"""Proofs of faults and of their end: events and states after the fault began."""

import random

import pytest
from support.fake_runtime import FakeRuntime

from pytest_llmchaos import faults
from pytest_llmchaos.errors import NoVictim
from pytest_llmchaos.faults.base import event_proof, first_event, prove_restart, victims_of
from pytest_llmchaos.model import RuntimeEvent, ServiceState

SERVICES = ("model-2", "api", "model-1", "models")


def primitive(fault):
    return fault.plan(random.Random(1), ("api",))[0].fault


def built(text):
    """The same text as another object, as in Docker's response."""
    return "".join(list(text))


def event(action, *, at=1000.0, service="api", **attributes):
    return RuntimeEvent(at_unix_s=at, service=built(service), action=action, attributes=attributes)


class Told(FakeRuntime):
    """A runtime with these events, and this state of every service."""

    def __init__(self, *events, **state):
        super().__init__()
        self._events = list(events)
        self._state = {"running": True, "started_unix_s": 1000.0, **state}

    def state(self, service):
        return ServiceState(service=service, **self._state)


# Victims


def test_a_name_is_one_service():
    for name in SERVICES:
        assert victims_of(built(name), SERVICES) == [name]
        assert victims_of(name, SERVICES, taken=SERVICES) == [name]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [("model-*", ["model-1", "model-2"]), ("model*", ["model-1", "model-2", "models"]), ("a*", ["api"])],
)
def test_a_pattern_is_every_service_that_begins_with_it_in_order(pattern, found):
    assert victims_of(pattern, SERVICES) == found


def test_a_pattern_leaves_out_what_is_taken():
    assert victims_of("model-*", SERVICES, {"model-2", "api"}) == ["model-1"]


@pytest.mark.parametrize(
    ("target", "services", "taken", "said"),
    [
        ("a", SERVICES, (), "'a' matches no service that may be hit; available: api, model-1, model-2, models"),
        ("z*", SERVICES, (), "'z\\*' matches no service that may be hit; available: api,"),
        ("api", (), (), "'api' matches no service that may be hit; available: none"),
        (
            "api*",
            SERVICES,
            ("api",),
            "'api\\*' matches no service that is left; api is hit already by other parts: name fewer",
        ),
        (
            "model-*",
            SERVICES,
            SERVICES,
            "'model-\\*' matches no service that is left; model-1, model-2 are hit already",
        ),
    ],
)
def test_a_target_without_a_service_lists_the_services(target, services, taken, said):
    with pytest.raises(NoVictim, match=said):
        victims_of(target, services, taken)


# Events


def test_the_first_event_of_the_victim_with_these_attributes_counts():
    events = [
        event("die", at=1.0, service="another", exitCode="1"),
        event("die", at=2.0, service="zebra", exitCode="1"),
        event("start", at=3.0, exitCode="1"),
        event("die", at=4.0, exitCode="0"),
        event("die", at=5.0, exitCode="137"),
        event("die", at=6.0),
        event("die", at=7.0, exitCode=built("1"), signal="9"),
        event("die", at=8.0, exitCode="1"),
    ]

    assert first_event(events, "api", frozenset({"die"})).at_unix_s == 4.0
    assert first_event(events, "api", frozenset({"die"}), exitCode="1").at_unix_s == 7.0
    assert first_event(events, "api", frozenset({"start", "die"}), exitCode="1").at_unix_s == 3.0
    assert first_event(events, "api", frozenset({"die"}), exitCode="137", signal="9") is None
    assert first_event([], "api", frozenset({"die"})) is None


@pytest.mark.parametrize(
    ("seen", "witness"),
    [
        (event("pause"), "runtime event pause"),
        (event("die", exitCode="137", image="lab"), "runtime event die exitCode=137"),
        (event("kill", signal="9", exitCode="1"), "runtime event kill exitCode=1 signal=9"),
    ],
)
def test_a_proof_by_an_event_has_what_ended_the_process(seen, witness):
    proof = event_proof("healed", seen)

    assert (proof.step, proof.witness, proof.at_unix_s) == ("healed", witness, 1000.0)


@pytest.mark.parametrize("code", ["0", "1", "2", "13", "1370", "138", "9"])
def test_a_death_by_anything_else_than_sigkill_proves_no_kill(code):
    kill = primitive(faults.kill("api"))

    assert kill.observed(Told(event("die", exitCode=code)), "api", 0.0) is None
    assert (
        kill.observed(Told(event("die", exitCode=built("137"))), "api", 0.0).witness == "runtime event die exitCode=137"
    )


@pytest.mark.parametrize("code", ["0", "1", "137"])
@pytest.mark.parametrize("make", [faults.crash, faults.restart])
def test_a_death_of_any_status_proves_that_the_process_ended(make, code):
    assert primitive(make("api")).observed(Told(event("die", exitCode=code)), "api", 0.0).at_unix_s == 1000.0


@pytest.mark.parametrize(
    "fault", [faults.crash_on_boot("api"), faults.xid("api"), faults.gpu_exhaustion("api")], ids=str
)
@pytest.mark.parametrize("code", ["0", "10", "137", "2"])
def test_a_death_with_another_status_than_1_is_not_by_a_fault_of_the_engine(fault, code):
    died = primitive(fault)

    assert died.observed(Told(event("die", exitCode=code)), "api", 0.0) is None
    assert died.observed(Told(event("die", exitCode=built("1"))), "api", 0.0).step == "injected"


# States


@pytest.mark.parametrize(
    ("state", "since_unix_s", "proven"),
    [
        ({}, 1000.0, True),
        ({}, 999.0, True),
        ({}, 1000.5, False),
        ({"running": False}, 1000.0, False),
        ({"paused": True}, 1000.0, False),
        ({"running": False, "paused": True}, 1000.0, False),
    ],
)
@pytest.mark.parametrize("make", [faults.kill, faults.restart])
def test_a_victim_that_was_started_since_and_runs_is_proof_of_a_repair(make, state, since_unix_s, proven):
    proof = primitive(make("api")).healed(Told(**state), "api", since_unix_s)

    assert proof == prove_restart(Told(**state), "api", since_unix_s)
    assert (proof is not None) == proven
    if proof:
        assert (proof.step, proof.witness, proof.at_unix_s) == ("healed", "runtime state running", 1000.0)


PAUSE = primitive(faults.pause("api"))


@pytest.mark.parametrize(
    "state", [{"paused": True}, {"running": False}, {"running": False, "paused": True}], ids=["frozen", "down", "both"]
)
def test_a_victim_that_is_frozen_or_down_is_not_thawed(state):
    assert PAUSE.healed(Told(event("unpause"), **state), "api", 0.0) is None


@pytest.mark.parametrize("action", ["unpause", "start"])
def test_a_thaw_is_proven_by_its_event(action):
    proof = PAUSE.healed(Told(event(action, at=1003.0)), "api", 1000.0)

    assert (proof.step, proof.witness, proof.at_unix_s) == ("healed", f"runtime event {action}", 1003.0)


def test_a_victim_that_was_never_frozen_is_at_rest():
    for told in (Told(), Told(event("pause")), Told(event("unpause", at=999.0)), Told(event("unpause", service="db"))):
        proof = PAUSE.healed(told, "api", 1000.0)
        assert (proof.step, proof.witness, proof.at_unix_s) == ("healed", "runtime state running, not paused", 1000.0)


@pytest.mark.parametrize("fault", [faults.hang("api"), faults.xid("api"), faults.crash_on_boot("api")], ids=str)
@pytest.mark.parametrize(
    "state", [{"paused": True}, {"running": False}, {"running": False, "paused": True}], ids=["frozen", "down", "both"]
)
def test_an_engine_that_is_frozen_or_down_is_no_proof_of_a_revert(fault, state, monkeypatch):
    one, whole, ill = primitive(fault), Told(), Told(**state)
    report = whole.engine_faults("api")
    monkeypatch.setattr(ill, "engine_faults", lambda service: report)

    assert one.healed(ill, "api", 0.0) is None
    assert one.healed(whole, "api", 0.0).witness == f"the engine lists no {one.kind} in force"


# Stops

STOP = primitive(faults.stop("api"))
ASKED = event("kill", signal=built("15"))


@pytest.mark.parametrize(
    ("died", "took"),
    [
        (event("die", at=1000.25, exitCode="0"), "exitCode=0 after 0.25 s"),
        (event("die", at=1002.5, exitCode="143"), "exitCode=143 after 2.50 s"),
        (event("die", at=1010.0), "exitCode=unknown after 10.00 s"),
        (event("die", at=999.5, exitCode="0"), "exitCode=0 after 0.00 s"),
    ],
)
def test_a_stop_takes_from_sigterm_to_the_death(died, took):
    proof = STOP.observed(Told(ASKED, died), "api", 0.0)

    assert (proof.step, proof.at_unix_s) == ("injected", 1000.0)
    assert proof.witness == f"runtime events kill signal=15, then die {took}"


@pytest.mark.parametrize(
    "events",
    [
        [ASKED],
        [event("die", at=1001.0)],
        [event("kill", signal="9"), event("die", at=1001.0)],
        [event("kill", signal="2"), event("die", at=1001.0)],
        [ASKED, event("die", at=1001.0, service="db")],
    ],
    ids=["still runs", "no signal", "SIGKILL", "SIGINT", "another died"],
)
def test_sigterm_without_a_death_and_a_death_without_sigterm_are_no_stop(events):
    assert STOP.observed(Told(*events), "api", 0.0) is None
