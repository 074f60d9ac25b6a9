"""The order of a trial, on a clock that only waiting advances."""

from __future__ import annotations

import errno
import os
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from support.fake_runtime import FakeRuntime

from pytest_llmchaos import experiment, faults, loads
from pytest_llmchaos.errors import (
    Aborted,
    EvidenceLost,
    HealFailed,
    InvalidExperiment,
    LoadNotHeld,
    NotReady,
    ProvesNothing,
    Unsupported,
)
from pytest_llmchaos.evidence import trial_record
from pytest_llmchaos.evidence.journal import Journal, read
from pytest_llmchaos.evidence.trial_result import LoadResult
from pytest_llmchaos.host import measurement_lock
from pytest_llmchaos.lab import gates, injector
from pytest_llmchaos.lab import lab as labs
from pytest_llmchaos.lab.lab import Lab
from pytest_llmchaos.plan.schedule import plan_trial
from pytest_llmchaos.runtime import undo
from pytest_llmchaos.subject.lab import lab_subject
from pytest_llmchaos.trial import perform as performing
from pytest_llmchaos.trial.own_load import judge_own_load
from pytest_llmchaos.trial.perform import Performed, perform
from pytest_llmchaos.trial.recovery import Recovery
from pytest_llmchaos.trial.trial import Trial

BEGIN_UNIX_S = 1_000_000.0


class Clock:
    """The time module with a clock that only `sleep` advances, from any start."""

    def __init__(self):
        self.now_s = 0.0

    def time(self):
        return BEGIN_UNIX_S + self.now_s

    def monotonic(self):
        return self.now_s - 500.0

    def sleep(self, seconds):
        self.now_s += seconds


class Runtime(FakeRuntime):
    """The fake runtime on that clock."""

    def __init__(self, clock):
        super().__init__()
        self.now = clock.time


class Clients:
    """A load with answered requests, except in seconds for which `bad` is true."""

    def __init__(self, load, arrivals, *, clock, **_):
        self.pid, self._clock, self.load, self.arrivals = os.getpid(), clock, load, arrivals
        self.asked, self.drained, self.rejoined_s = [], [], 0.0
        self.bad_until_s = 0.0

    def launch(self):
        return None

    check_alive = launch

    def start(self):
        self.t0_unix_s, self.t0_monotonic_s = self._clock.time(), self._clock.monotonic()

    def stop(self, *, drain=True):
        self.drained.append(drain)

    def now_s(self):
        return self._clock.monotonic() - self.t0_monotonic_s

    def not_steady(self, steady_s):
        return None if self.now_s() >= steady_s else "only just begun"

    def recovery_s(self, from_s, stable_s):
        self.asked.append((self.now_s(), from_s, stable_s))
        good_s = max(from_s, self.bad_until_s)
        return good_s if self.now_s() - good_s >= stable_s else None

    def replicas_answering(self, since_s):
        self.since_s = since_s
        return {"model-1", "model-2"} if self.now_s() >= self.rejoined_s else {"model-2"}

    def live_window(self, _seconds):
        return SimpleNamespace(offered=0)


class World:
    """A lab, its plan and its load, with all waits and the judge's arguments."""

    def __init__(self, tmp_path, clock, fault, **arguments):
        self.clock, self.waits, self.looks, self.judged, self.begins = clock, [], [], [], lambda load: None
        self.part_s = 0.0
        self.lab = Lab(
            runtime=Runtime(clock),
            subject=replace(lab_subject("sim"), pushgateway=None),
            journal=Journal(tmp_path / "journal.jsonl"),
            directory=tmp_path,
            seed=42,
            say=lambda _, what, left_s: self.tick(what, left_s),
            judge=judge_own_load,
        )
        self.lab._prometheus = SimpleNamespace(clock_offset_s=lambda: 0.0, vector=lambda *_, **__: {})
        self.phases_said = []
        self.lab.signals = SimpleNamespace(phase=self.phases_said.append, fault=lambda *_, **__: None)
        made = experiment(load=loads.open_loop(rate_rps=2), fault=fault, **arguments).kwargs["experiment"]
        self.plan = plan_trial(
            scenario="s",
            hypothesis="",
            experiment=made,
            fault=made.faults[0],
            repeat=0,
            seed=1,
            services=self.lab.subject.targets,
        )

    def tick(self, what, left_s):
        if not self.waits or self.waits[-1][0] != what:
            self.waits.append((what, round(left_s, 6)))

    def load(self, load, arrivals, **about):
        self.running = Clients(load, arrivals, clock=self.clock, **about)
        self.begins(self.running)
        return self.running

    def take_part(self, _lab, _record, _injected, *, must):
        self.looks.append((self.running.now_s(), must))
        return self.running.now_s() >= self.part_s

    def judge(self, _lab, plan, record, load, injected, *, settled, effects):
        about = {"injected": injected, "settled": settled, "effects": effects}
        self.judged.append(SimpleNamespace(load=load, phases=list(record.phases), **about))
        return Trial(
            name=record.trial, plan=plan, windows={}, slos={}, slo_errors={}, detect_s=None, detected_by=None,
            coincident=(), recover=Recovery(), settle=Recovery(), repaired_by=None, victims=(), fired=(), acted=(),
            noticed=(), restarts={}, findings=(), events=(), load=LoadResult(),
        )  # fmt: skip

    def repair_at(self, at_s, service="model-1"):
        """Let the system start the service at that second of the load."""
        running = self.lab._tick

        def tick(what, left_s):
            running(what, left_s)
            if self.running.now_s() >= at_s and not self.lab.runtime.state(service).running:
                self.lab.runtime.start(service)

        self.lab._tick = tick

    def lines(self, kind):
        return [line for line in read(self.lab.journal.path) if line["kind"] == kind]


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Return the world of a fault, with four ticks a second."""
    clock, made = Clock(), []
    for module in (performing, labs, injector, trial_record, undo):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(labs, "TICK_S", 0.25)
    monkeypatch.setattr(gates, "require_clean", lambda _: None)
    monkeypatch.setattr(measurement_lock, "slot_file", lambda name: tmp_path / f"{name}.lock")

    def make(fault, **arguments):
        made.append(World(tmp_path, clock, fault, **arguments))
        monkeypatch.setattr(labs, "RunningLoad", made[-1].load)
        monkeypatch.setattr(performing, "take_part", made[-1].take_part)
        monkeypatch.setattr(performing.judge, "judge", made[-1].judge)
        return made[-1]

    yield make
    for one in made:
        one.lab.journal.close()


def phases(world):
    return [(one.name, one.from_s, one.to_s) for one in world.judged[0].phases]


class TestLastingFault:
    def test_a_lasting_fault_is_held_until_it_is_repaired_and_clients_were_served_for_the_stable_seconds(self, world):
        it = world(faults.kill("model-1"), steady_s=8, stable_s=4)
        it.repair_at(10.0)

        done = perform(it.lab, it.plan)

        assert done.require().name == done.name == "001"
        assert phases(it) == [("steady", 0.0, 8.0), ("fault", 8.0, 12.0), ("recovery", 12.0, 12.0)]
        assert it.phases_said == ["steady", "fault", "recovery", "none"]
        assert it.judged[0].settled
        assert it.judged[0].load is it.running
        assert it.judged[0].effects is None

    @pytest.mark.parametrize(("policy", "scales"), [(None, False), ("slo()", True)])
    def test_the_stack_is_prepared_for_the_trials_policy(self, world, monkeypatch, policy, scales):
        it, prepared = world(faults.kill("model-1"), autoscaler=policy), []
        monkeypatch.setattr(performing, "prepare", lambda *_, scales: prepared.append(scales))
        monkeypatch.setattr(labs, "steer", lambda *_: None)
        it.repair_at(10.0)

        perform(it.lab, it.plan)

        assert prepared == [scales]

    def test_the_last_row_of_the_ledger_is_read_at_the_end_of_the_steady_phase(self, world, monkeypatch):
        it, looks = world(faults.kill("model-1"), steady_s=8, stable_s=4), []

        def before_fault(begin):
            looks.append((begin, it.running.now_s(), it.lab.runtime.state("model-1").running))
            return "kept"

        monkeypatch.setattr(performing, "ledger_begin", lambda *_: "begin")
        monkeypatch.setattr(performing, "ledger_before_fault", before_fault)
        it.repair_at(10.0)

        perform(it.lab, it.plan)

        assert looks == [("begin", 8.0, True)]
        assert it.judged[0].effects == "kept"

    def test_a_lasting_fault_counts_the_stable_seconds_before_its_phase_ended_as_recovered(self, world):
        it = world(faults.kill("model-1"), stable_s=4)
        it.repair_at(10.0)

        perform(it.lab, it.plan)

        assert {asked[1:] for asked in it.running.asked} == {(8.0, 4.0)}
        assert it.running.since_s == 8.0

    def test_a_lasting_fault_is_checked_twice_a_second_once_clients_are_served(self, world):
        """Each query of an engine's faults starts a process in its container."""
        it = world(faults.kill("model-1"), stable_s=4)
        it.repair_at(9.0)
        it.part_s = 13.75

        perform(it.lab, it.plan)

        assert it.looks == [(12.0, True), (12.5, True), (13.0, True), (13.5, True), (14.0, True)]

    def test_a_lasting_fault_may_end_before_its_victim_takes_part(self, world):
        it = world(faults.kill("model-1"), stable_s=4)
        it.repair_at(13.0)
        it.part_s = 15.0

        perform(it.lab, it.plan)

        assert it.looks[0] == (13.0, True), "no victim is looked at before its fault is over"
        assert it.judged[0].injected.over_unix_s == BEGIN_UNIX_S + 13.0
        assert phases(it)[1] == ("fault", 8.0, 15.0)

    def test_a_lasting_fault_of_several_is_held_until_each_is_over(self, world):
        it = world(faults.kill(["model-1", "model-2"]), stable_s=4)
        it.repair_at(9.0, "model-1")
        it.repair_at(16.0, "model-2")

        perform(it.lab, it.plan)

        assert it.judged[0].injected.over_unix_s == BEGIN_UNIX_S + 16.0

    def test_a_lasting_fault_that_hurts_clients_is_held_until_they_are_served(self, world):
        it = world(faults.kill("model-1"), stable_s=4)
        it.repair_at(9.0)
        it.begins = lambda load: setattr(load, "bad_until_s", 14.0)

        perform(it.lab, it.plan)

        assert phases(it)[1:] == [("fault", 8.0, 18.0), ("recovery", 18.0, 18.0)]

    def test_a_lasting_fault_ends_at_its_deadline_and_the_service_then_has_half_a_minute(self, world):
        it = world(faults.kill("model-1"), repair_within_s=20)
        it.begins = lambda load: setattr(load, "bad_until_s", 1000.0)

        perform(it.lab, it.plan)

        assert it.waits == [("steady", 44.0), ("fault", 20.0), ("recovery", 30.0)]
        assert not it.judged[0].settled
        assert it.judged[0].injected.over_unix_s is None


class TestReplicas:
    """A gateway ejects a replica for 5 s, then for 10 s, and has 2 s more to use it."""

    @pytest.fixture
    def repaired(self, world):
        it = world(faults.kill("model-1"))
        it.repair_at(9.0)
        return it

    def test_replicas_that_do_not_answer_yet_are_waited_for(self, repaired):
        repaired.begins = lambda load: setattr(load, "rejoined_s", 17.0)

        perform(repaired.lab, repaired.plan)

        assert repaired.waits[-1] == ("replicas", 12.0)
        assert phases(repaired)[-1] == ("recovery", 12.0, 17.0)

    def test_replicas_that_never_answer_are_left_to_the_judge(self, repaired):
        repaired.begins = lambda load: setattr(load, "rejoined_s", 1000.0)

        perform(repaired.lab, repaired.plan)

        assert repaired.judged[0].settled
        assert phases(repaired)[-1] == ("recovery", 12.0, 24.25)

    def test_replicas_answer_though_some_answers_name_no_replica(self, repaired):
        repaired.begins = lambda load: setattr(load, "replicas_answering", lambda _: {"model-1", "model-2", ""})

        perform(repaired.lab, repaired.plan)

        assert phases(repaired)[-1] == ("recovery", 12.0, 12.0)

    def test_replicas_that_no_header_names_are_not_waited_for(self, repaired):
        repaired.lab.subject = replace(repaired.lab.subject, replica_header=None)
        repaired.begins = lambda load: setattr(load, "rejoined_s", 1000.0)

        perform(repaired.lab, repaired.plan)

        assert phases(repaired)[-1] == ("recovery", 12.0, 12.0)


class TestPassingFault:
    def test_a_passing_fault_is_held_for_its_seconds_and_settles_once_its_victim_takes_part(self, world):
        it = world(faults.pause("model-1"), fault_s=5, settle_within_s=50)
        it.part_s = 20.0

        perform(it.lab, it.plan)

        assert it.waits == [("steady", 44.0), ("fault", 5.0), ("recovery", 50.0)]
        assert phases(it)[1:] == [("fault", 8.0, 13.25), ("recovery", 13.25, 20.0)]
        assert {asked[1:] for asked in it.running.asked} == {(13.25, 4.0)}
        assert {must for _, must in it.looks} == {False}
        assert min(at_s for at_s, _ in it.looks) == 17.25, "a victim is looked at once clients are served"

    def test_a_passing_fault_that_did_not_settle_in_time_is_judged_unsettled(self, world):
        it = world(faults.pause("model-1"), fault_s=5, settle_within_s=10)
        it.part_s = 1000.0

        perform(it.lab, it.plan)

        assert not it.judged[0].settled


class TestControlArm:
    @pytest.mark.parametrize(("beside", "held_s"), [({}, 4.0), ({"fault_s": 6}, 6.0), ({"fault_s": 2}, 4.0)])
    def test_a_control_arm_is_held_as_long_as_a_passing_fault_or_as_a_settle(self, world, beside, held_s):
        it = world([faults.none(), *([faults.pause("api")] if beside else [])], **beside)

        perform(it.lab, it.plan)

        assert it.waits[1] == ("no fault", held_s)
        assert phases(it)[1] == ("fault", 8.0, 8.0 + held_s + 0.25)
        assert it.looks == []

    def test_a_control_arm_settles_when_clients_are_served_for_the_stable_seconds(self, world):
        it = world(faults.none(), stable_s=2)

        perform(it.lab, it.plan)

        assert it.judged[0].settled
        assert phases(it)[2] == ("recovery", 10.25, 12.25)
        assert {asked[1:] for asked in it.running.asked} == {(10.25, 2.0)}


@pytest.mark.parametrize("fault", [faults.kill("api"), faults.none()], ids=str)
def test_an_abort_condition_ends_every_arm(world, fault):
    it = world(fault, abort_if=lambda live: live.offered > 1)
    it.begins = lambda load: setattr(load, "live_window", lambda _: SimpleNamespace(offered=2))

    assert isinstance(perform(it.lab, it.plan).error, Aborted)


@pytest.mark.parametrize(
    ("phase", "said"),
    [(performing._hold_fault, "before the fault"), (performing._hold_settled, "before the recovery")],
    ids=["fault", "recovery"],
)
def test_a_phase_without_a_load_proves_nothing(world, phase, said):
    it = world(faults.kill("api"))

    with it.lab.recording() as record, pytest.raises(ProvesNothing, match=f"the load ended {said}"):
        phase(it.lab, it.plan, record, injector.Injected())


class TestEnd:
    @pytest.fixture
    def ended(self, world, monkeypatch):
        """Return the outcome and the world of a trial whose judge raised this."""

        def by(error):
            it = world(faults.none())

            def judge(*_, **__):
                raise error

            monkeypatch.setattr(performing.judge, "judge", judge)
            return perform(it.lab, it.plan), it

        return by

    def test_the_end_is_one_value_for_journal_and_caller(self, world):
        it = world(faults.kill("model-1"))
        it.repair_at(9.0)

        done = perform(it.lab, it.plan)
        (line,) = it.lines("judged")

        assert (line["trial"], line["verdict"], line["judged"], line["reason"]) == ("001", "held", True, None)
        assert (done.result.trial, done.result.verdict, done.result.victim) == ("001", "held", "model-1")
        assert done.error is None

    def test_the_end_by_our_own_error_keeps_that_error(self, ended):
        error = LoadNotHeld("it ran late")
        done, it = ended(error)

        assert (done.name, done.error, error.__cause__, done.trial) == ("001", error, None, None)
        assert (done.result.verdict, done.result.reason) == ("invalid", "LoadNotHeld: it ran late")
        assert [line["reason"] for line in it.lines("judged")] == ["LoadNotHeld: it ran late"]

    @pytest.mark.parametrize(
        ("error", "explained"), [(LoadNotHeld("it ran late"), True), (NotReady("no stack"), False)]
    )
    def test_the_end_by_a_busy_machine_explains_the_services_reactions(self, ended, error, explained):
        _, it = ended(error)

        assert it.lab.reasons.explains_action(time.time()) == explained

    def test_the_end_by_an_error_of_the_machine_is_invalid(self, ended):
        error = ConnectionResetError("the daemon is gone")
        done, it = ended(error)

        assert type(done.error) is InvalidExperiment
        assert str(done.error) == "the trial broke off: ConnectionResetError: the daemon is gone"
        assert done.error.__cause__ is error
        assert [line["verdict"] for line in it.lines("judged")] == ["invalid"]

    @pytest.mark.parametrize(
        ("file", "said"),
        [("samples.jsonl", "samples.jsonl cannot be written: "), (None, "a file of the trial cannot be written: ")],
    )
    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS])
    def test_the_end_by_a_disk_that_takes_no_more_is_lost_evidence(self, ended, number, file, said):
        done, _ = ended(OSError(number, "no room", file))

        assert isinstance(done.error, EvidenceLost)
        assert str(done.error) == f"{said}no room"

    def test_the_end_by_anything_else_is_raised_after_its_verdict_is_written(self, ended):
        with pytest.raises(ZeroDivisionError):
            ended(ZeroDivisionError("a defect"))

    def test_the_end_by_a_time_limit_names_the_phase(self, world, monkeypatch):
        it = world(faults.kill("api"))

        def limit(*_):
            raise KeyboardInterrupt("Timeout >20 s")

        monkeypatch.setattr(performing, "_hold_fault", limit)

        with pytest.raises(KeyboardInterrupt) as raised:
            perform(it.lab, it.plan)

        assert raised.value.__notes__ == ["trial 001 was interrupted in its fault phase"]
        assert [line["reason"] for line in it.lines("judged")] == [
            "KeyboardInterrupt: Timeout >20 s; trial 001 was interrupted in its fault phase"
        ]

    def test_the_end_by_a_fault_that_cannot_be_reverted_keeps_its_verdict(self, ended):
        done, _ = ended(HealFailed("api stays down"))

        assert done.result.verdict == "heal_failed"

    def test_the_end_with_a_full_journal_still_returns_its_result(self, ended, monkeypatch):
        def full(*_):
            raise EvidenceLost("no space left")

        monkeypatch.setattr(trial_record.Record, "judge", full)
        done, _ = ended(LoadNotHeld("it ran late"))

        assert str(done.error) == "it ran late"


def test_a_trial_that_the_runtime_cannot_perform_has_no_record(world):
    it = world(faults.kill("api"))
    it.lab.runtime.abilities = frozenset()

    done = perform(it.lab, it.plan)

    assert isinstance(done.error, Unsupported)
    assert (done.name, done.trial, done.result) == ("", None, None)
    assert it.lines("trial") == []


def test_only_a_performed_trial_is_returned():
    with pytest.raises(NotReady, match="the trial was not performed"):
        Performed().require()
    with pytest.raises(HealFailed, match="api stays down"):
        Performed(error=HealFailed("api stays down")).require()
