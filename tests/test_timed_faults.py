"""Faults that begin at a message of a conversation."""

import functools
from contextlib import nullcontext
from random import Random

import pytest
from support.clock import Clock
from support.fake_lab import fake_lab
from support.wired_lab import Clients, Wired

from pytest_llmchaos import faults, loads
from pytest_llmchaos.errors import BadScenario, FaultNotObserved, InvalidExperiment
from pytest_llmchaos.evidence.journal import read
from pytest_llmchaos.faults.compositions import wired_services
from pytest_llmchaos.host import measurement_lock
from pytest_llmchaos.lab import gates, injector
from pytest_llmchaos.model import BeginsAtMoment
from pytest_llmchaos.runtime import undo

LOAD = loads.open_loop(rate_rps=2)
THIRD = "after:chat#3.first_token"
KILL = faults.timed(faults.kill("model-1"), at=THIRD)


@pytest.fixture
def lab(tmp_path, monkeypatch):
    clock, log = Clock(), []
    runtime = Wired(clock)
    runtime.log = log
    monkeypatch.setattr("pytest_llmchaos.lab.lab.RunningLoad", lambda *_, **__: Clients(log))
    monkeypatch.setattr(gates, "require_clean", lambda _: None)
    monkeypatch.setattr(measurement_lock, "slot_file", lambda name: tmp_path / f"{name}.lock")
    monkeypatch.setattr(injector, "time", clock)
    monkeypatch.setattr(injector, "revert_until_done", functools.partial(undo.revert_until_done, deadline_s=0.0))
    judge = lambda _lab, record, *_: record.seen()  # noqa: E731 - one line of a fake
    with fake_lab(tmp_path, clock, runtime, judge=judge) as made:
        yield made


def test_a_timed_fault_is_the_fault_with_its_message():
    assert str(KILL) == f"kill model-1 {THIRD}"
    assert str(faults.timed(faults.kill("model-1"), at=THIRD, on="api")) == f"kill model-1 {THIRD} on api"
    assert KILL.needs == faults.kill("model-1").needs | {"proxy"}
    assert (KILL.lifetime, KILL.fidelity, KILL.target) == ("lasting", "real", "model-1")
    assert KILL.expects == faults.kill("model-1").expects
    assert KILL.strength == {"at": THIRD}
    stop = faults.timed(faults.stop("api", grace_s=2), at="after:request#1.received", on="model-1")
    assert stop.strength == {"at": "after:request#1.received", "on": "model-1", "grace_s": 2}
    (act,) = KILL.plan(Random(1), ["api", "model-1"])
    assert (act.victim, act.fault.kind) == ("model-1", "kill")
    assert isinstance(act.fault, BeginsAtMoment)
    assert str(act) == f"kill model-1 at +0 s, begins {THIRD}"
    (act,) = stop.plan(Random(1), ["api", "model-1"])
    assert str(act) == "stop api at +0 s, begins after:request#1.received on model-1"


def test_the_agent_stands_where_the_messages_are():
    services = ["api", "model-1", "model-2"]
    assert wired_services([KILL], services) == ("model-1",)
    assert wired_services([faults.timed(faults.kill("model-*"), at=THIRD)], services) == ("model-1", "model-2")
    assert wired_services([faults.timed(faults.kill("model-*"), at=THIRD, on="api")], services) == ("api",)
    assert wired_services([faults.together(KILL, faults.kill("api"))], services) == ("model-1",)


def test_the_fault_begins_while_the_message_is_held(lab, monkeypatch):
    kill = lab.runtime.kill

    def watched(service):
        lab.runtime.log.append(f"kill {service}")
        lab.runtime.log += [one.kind for one in lab.runtime.wire_faults("model-1").faults if one.active]
        kill(service)

    monkeypatch.setattr(lab.runtime, "kill", watched)
    with lab.load(LOAD, wire=["model-1"]), lab.inject(KILL):
        assert not any(one.active for one in lab.runtime.wire_faults("model-1").faults)

    mine = [one for one in lab.runtime.log if one in ("hold model-1", "kill model-1", "hold")]
    assert mine == ["hold model-1", "kill model-1", "hold"]
    events = [line["what"] for line in read(lab.journal.path) if line["kind"] == "event"]
    assert "kill model-1 began 0.0 ms after chat#3.first_token on model-1" in events


def test_the_message_is_held_until_the_victim_is_dead(lab, monkeypatch):
    """A process that got SIGKILL may still send, and its peer must not get that."""
    held, observed = [], type(KILL.primitive).observed

    def late(self, runtime, victim, since_unix_s):
        held.append([one.kind for one in runtime.wire_faults("model-1").faults if one.active])
        return observed(self, runtime, victim, since_unix_s) if len(held) > 2 else None

    monkeypatch.setattr(type(KILL.primitive), "observed", late)
    with lab.load(LOAD, wire=["model-1"]), lab.inject(KILL):
        pass

    assert held == [["hold"]] * 3


@pytest.mark.parametrize(("make", "most_s"), [(faults.kill, None), (faults.restart, None), (faults.stop, 0.5)])
def test_a_message_is_let_go_while_its_victim_drains(monkeypatch, make, most_s):
    runtime, asked = Wired(Clock()), {}
    runtime.log = []
    runtime.wire_arm(["model-1"])
    start = runtime.wire_start
    monkeypatch.setattr(runtime, "wire_start", lambda *about, **more: asked.update(more) or start(*about, **more))

    with faults.timed(make("model-1"), at=THIRD).primitive.moment(runtime, "model-1"):
        assert asked.get("most_s") == most_s


def test_a_message_that_does_not_come_is_not_observed(lab):
    lab.runtime.deaf = True

    with (
        pytest.raises(FaultNotObserved, match=r"was to begin after:chat#3\.first_token, and within 30 s model-1 got 2"),
        lab.load(LOAD, wire=["model-1"]),
        lab.inject(KILL),
    ):
        pytest.fail("the block must not be entered")

    assert lab.runtime.state("model-1").running
    assert not any(one.active for one in lab.runtime._wire_faults.values())


@pytest.mark.parametrize(("suspended_s", "is_late"), [(34.9, False), (35.0, True)])
def test_a_message_that_passed_while_pytest_was_suspended_is_no_moment(lab, monkeypatch, suspended_s, is_late):
    """The agent's lease of 35 s lets the message go."""
    wait = lab.runtime.wire_wait

    def suspended(*asked):
        found = wait(*asked)
        injector.time.advance(suspended_s)
        return found

    monkeypatch.setattr(lab.runtime, "wire_wait", suspended)
    late = pytest.raises(FaultNotObserved, match=r"which passed after 35 s, and pytest went on after 35\.0 s: it was")
    with late if is_late else nullcontext(), lab.load(LOAD, wire=["model-1"]), lab.inject(KILL):
        assert not is_late

    assert not any(one.active for one in lab.runtime._wire_faults.values())


@pytest.mark.parametrize(("suspended_s", "is_late"), [(0.4, False), (0.6, True)])
def test_a_stop_that_begins_after_its_message_went_on_is_no_stop_at_it(lab, monkeypatch, suspended_s, is_late):
    """The agent lets the message of a stop go 0.5 s after it came."""
    wait = lab.runtime.wire_wait

    def suspended(*asked):
        found = wait(*asked)
        injector.time.advance(suspended_s)
        return found

    monkeypatch.setattr(lab.runtime, "wire_wait", suspended)
    stop = faults.timed(faults.stop("model-1"), at="after:chat#3.received")
    late = pytest.raises(
        FaultNotObserved, match=r"which lasts 0\.5 s, and it began 0\.60 s after its start: the machine"
    )
    with late if is_late else nullcontext(), lab.load(LOAD, wire=["model-1"]), lab.inject(stop):
        assert not is_late

    assert lab.runtime.state("model-1").running


@pytest.mark.parametrize(
    ("make", "event", "why"),
    [
        (faults.kill, "received", r"passed after 35 s, and the fault was proven after 35\.0 s, so it may"),
        (faults.kill, "delivered", None),
        (faults.stop, "received", r"which lasts 0\.5 s, and it began 35\.00 s after its start"),
    ],
)
def test_a_message_that_goes_on_before_the_death_of_its_victim_is_no_moment(lab, monkeypatch, make, event, why):
    """A stop's message goes on by itself, and a delivered one has gone."""
    fault = faults.timed(make("model-1"), at=f"after:chat#3.{event}")
    inject = type(fault.primitive).inject

    def slow(self, runtime, victim):
        injector.time.advance(35.0)
        inject(self, runtime, victim)

    monkeypatch.setattr(type(fault.primitive), "inject", slow)
    late = nullcontext() if why is None else pytest.raises(FaultNotObserved, match=why)
    with late, lab.load(LOAD, wire=["model-1"]), lab.inject(fault):
        assert why is None

    assert lab.runtime.state("model-1").running


def test_a_timed_fault_without_an_agent_is_refused(lab):
    fault = faults.timed(faults.kill("model-1"), at=THIRD, on="api")

    with (
        pytest.raises(InvalidExperiment, match="needs a fault agent in the way of api before"),
        lab.load(LOAD, wire=["model-1"]),
        lab.inject(fault),
    ):
        pytest.fail("the block must not be entered")


@pytest.mark.parametrize(
    "at", ["", "chat#3.first_token", "after:chat.first_token", "after:chat#0.answered", "after:call#1.answered", 3]
)
def test_another_message_is_refused(at):
    with pytest.raises(BadScenario, match=r"faults\.timed\(at=\.\.\.\) must be .*after:chat#3\.first_token.*got"):
        faults.timed(faults.kill("model-1"), at=at)


@pytest.mark.parametrize(
    "fault",
    [faults.none(), faults.flaky("api"), faults.kill(["model-1", "model-2"]), KILL, "kill"],
    ids=str,
)
def test_other_faults_are_refused(fault):
    with pytest.raises(BadScenario, match=r"faults\.timed\(fault\) must be"):
        faults.timed(fault, at=THIRD)


def test_messages_count_on_one_named_service_and_within_seconds():
    with pytest.raises(BadScenario, match="name of one service"):
        faults.timed(faults.kill("model-1"), at=THIRD, on="model-*")
    with pytest.raises(BadScenario, match=r"within_s=\.\.\.\) must be a number of seconds"):
        faults.timed(faults.kill("model-1"), at=THIRD, within_s=0)
    with pytest.raises(BadScenario, match=r"within_s=\.\.\.\) must be at most 3595 seconds, got 3596"):
        faults.timed(faults.kill("model-1"), at=THIRD, within_s=3596)


# Calls of tools


REFUND = "after:desk.refund#2.answered"


def test_a_message_may_be_a_call_of_a_tool_of_the_service_that_it_names():
    timed = faults.timed(faults.crash("agent"), at=REFUND)
    (act,) = timed.plan(Random(1), ["agent", "desk"])

    assert str(timed) == f"crash agent {REFUND}"
    assert str(act) == f"crash agent at +0 s, begins {REFUND}"
    assert (act.fault.on, act.fault.tool, act.fault.number) == ("desk", "refund", 2)
    assert timed.strength == {"at": REFUND}
    assert wired_services([timed], ["agent", "desk"]) == ("desk",)
    assert faults.timed(faults.crash("agent"), at="after:desk.*#1.delivered").primitive.tool == "*"
    with pytest.raises(BadScenario, match=r"timed\(on=\.\.\.\) must not be given, as .* names desk, got 'api'"):
        faults.timed(faults.crash("agent"), at=REFUND, on="api")


def test_the_agent_holds_a_call_of_the_tool(monkeypatch):
    runtime, asked = Wired(Clock()), {}
    runtime.log = []
    runtime.wire_arm(["model-1"])
    fault = faults.timed(faults.crash("api"), at="after:model-1.refund#2.answered").primitive
    start = runtime.wire_start
    monkeypatch.setattr(runtime, "wire_start", lambda *about, **more: asked.update(more) or start(*about, **more))

    with fault.moment(runtime, "api") as moment:
        assert moment.at == "after model-1.refund#2.answered"

    assert asked == {"lease_s": 35.0, "seed": 0, "event": "answered", "number": 2, "match": {"tool": "refund"}}
    runtime.deaf = True
    with (
        pytest.raises(FaultNotObserved, match=r"within 30 s model-1 got 2 calls of refund: raise"),
        fault.moment(runtime, "api"),
    ):
        pytest.fail("the block must not be entered")


@pytest.mark.parametrize("make", [faults.crash, faults.kill])
def test_kill_and_crash_take_the_message_themselves(make):
    assert make("agent", at=REFUND, within_s=9) == faults.timed(make("agent"), at=REFUND, within_s=9)
    assert make("agent", at=THIRD, on="api") == faults.timed(make("agent"), at=THIRD, on="api")
    with pytest.raises(BadScenario, match=r"on='api' of .* agent needs at, the message"):
        make("agent", on="api")
    with pytest.raises(BadScenario, match=r"timed\(fault\) must be"):
        make(["agent", "api"], at=THIRD)


# Every boundary


def every(plan="plan: refund 17; mail 17", **about):
    return faults.every_boundary(faults.crash("agent"), **{"plan": plan, "model": "api", "tools": "desk", **about})


def test_every_boundary_of_a_plan_is_enumerated():
    made = every(every_s=2)

    assert [(after_s, one.primitive.at, one.primitive.on) for after_s, one in made.parts] == [
        (0, "after:chat#1.delivered", "api"),
        (2, "after:desk.refund#1.received", "desk"),
        (4, "after:desk.refund#1.answered", "desk"),
        (6, "after:desk.refund#1.delivered", "desk"),
        (8, "after:chat#1.received", "api"),
        (10, "after:chat#1.delivered", "api"),
        (12, "after:desk.mail#1.received", "desk"),
        (14, "after:desk.mail#1.answered", "desk"),
        (16, "after:desk.mail#1.delivered", "desk"),
        (18, "after:chat#1.received", "api"),
        (20, "after:chat#1.delivered", "api"),
    ]
    assert str(made) == "every_boundary(crash agent, refund; mail)"
    assert (made.blast_radius, made.lifetime, made.fidelity, made.target) == (1, "lasting", "real", "agent")
    assert wired_services([made], ["agent", "api", "desk"]) == ("api", "desk")
    assert len(made.plan(Random(1), ["agent", "api", "desk"])) == 11
    assert made.with_lease(60).blast_radius == 1


def test_the_load_lasts_until_the_last_boundary_of_an_agent_that_is_back_in_five_seconds():
    assert every(plan="a; b; c; d").last_act_s == 100
    assert every(plan="a; b; c; d", every_s=9).last_act_s == 180
    assert every().parts[-1][0] == 5, "an agent that is back at once is hit again at once"


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"plan": ""}, r"plan=\.\.\.\) must be the tools of a task, 1 to 50, .* got ''"),
        ({"plan": "refund;"}, r"got 'refund;'"),
        ({"plan": 7}, r"got 7"),
        ({"plan": ";".join(["a"] * 51)}, r"1 to 50"),
        ({"model": "api*"}, r"every_boundary\(model=\.\.\.\) must be the name of one service, got 'api\*'"),
        ({"tools": 7}, r"every_boundary\(tools\)\(target\)|every_boundary\(tools\)"),
        ({"every_s": 0}, r"every_boundary\(every_s=\.\.\.\) must be a number of seconds above 0"),
    ],
)
def test_a_wrong_plan_is_refused(about, message):
    with pytest.raises(BadScenario, match=message):
        every(**about)


def test_each_boundary_waits_for_the_victim(lab, monkeypatch):
    """It is back 3 s after each crash."""
    crash, begun = lab.runtime.crash, []

    def crashed(service):
        assert lab.runtime.state(service).running
        begun.append(lab.runtime.log[-1])
        crash(service)

    monkeypatch.setattr(lab.runtime, "crash", crashed)
    tick = lab._tick

    def repaired(*about):
        if not lab.runtime.state("model-1").running:
            lab.runtime.start("model-1")
        return tick(*about)

    monkeypatch.setattr(lab, "_tick", repaired)
    fault = faults.every_boundary(faults.crash("model-1"), plan="refund", model="api", tools="model-2", every_s=0.001)
    with lab.load(LOAD, wire=["api", "model-2"]), lab.inject(fault, blast_radius=1) as injected:
        assert [act.victim for act in injected.acts] == ["model-1"] * 6

    assert begun == ["hold api", *["hold model-2"] * 3, "hold api", "hold api"]
