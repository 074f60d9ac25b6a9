"""`lab.inject`: its journal, early ends, and faults that cannot be reverted."""

import contextlib
import functools
import itertools
import sys
import time
from dataclasses import dataclass, replace

import pytest
from support.clock import Clock
from support.fake_runtime import FakeRuntime

from pytest_llmchaos import experiment, faults, loads
from pytest_llmchaos.errors import (
    Aborted,
    FaultNotObserved,
    HealFailed,
    InvalidExperiment,
    NotReady,
    NoVictim,
    Unsupported,
)
from pytest_llmchaos.evidence.journal import Journal, open_intents, read
from pytest_llmchaos.faults.base import OnTarget
from pytest_llmchaos.faults.kill import Kill
from pytest_llmchaos.host import measurement_lock
from pytest_llmchaos.lab import injector
from pytest_llmchaos.lab.lab import Lab
from pytest_llmchaos.model import Injection, Proof, RuntimeEvent, Sample, Undo
from pytest_llmchaos.plan.schedule import arrivals_of, plan_trial
from pytest_llmchaos.runtime import undo as heal
from pytest_llmchaos.stats.windows import windows
from pytest_llmchaos.subject.lab import lab_subject
from pytest_llmchaos.trial import perform
from pytest_llmchaos.trial.own_load import judge_own_load


class Clocked(FakeRuntime):
    """The fake on the wall clock. Its events are later than the calls."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self._clock = itertools.count(int(time.time()) + 1)

    def now(self):
        return max(super().now(), time.time())


class Clients:
    """A load with one failed request in `of`."""

    def __init__(self, of=2, offered=10):
        outcomes = ["ok" if number % of else "refused" for number in range(offered)]
        self._samples = [
            Sample(number / 10, number / 10, None, number / 10 + 0.1, 0.0, 1, outcome, "", f"r{number}")
            for number, outcome in enumerate(outcomes)
        ]

    def live_window(self, seconds):
        return windows(self._samples, [("live", 0.0, seconds)])[0]


@pytest.fixture
def lab_on(tmp_path, monkeypatch):
    """A lab on a fake runtime whose deadlines are over at the first look."""
    monkeypatch.setattr(injector, "PROOF_DEADLINE_S", 0.0)
    monkeypatch.setattr(injector, "prove_reverted", functools.partial(heal.prove_reverted, deadline_s=0.0))
    monkeypatch.setattr(injector, "revert_until_done", functools.partial(heal.revert_until_done, deadline_s=0.0))
    monkeypatch.setattr(measurement_lock, "slot_file", lambda name: tmp_path / f"{name}.lock")
    made = []

    def make(runtime):
        subject = replace(lab_subject("sim"), pushgateway=None)
        journal = Journal(tmp_path / "journal.jsonl")
        made.append(journal)
        return Lab(
            runtime=runtime,
            subject=subject,
            journal=journal,
            directory=tmp_path,
            seed=42,
            say=lambda *_: None,
            judge=judge_own_load,
        )

    yield make
    for journal in made:
        journal.close()


def written(lab, *kinds):
    return [line for line in read(lab.journal.path) if line["kind"] in kinds]


def hold(lab, fault, inside=lambda: None, **options):
    """Run `inside` in a block of `lab.inject`."""
    with lab.inject(fault, **options):
        inside()


def test_a_fault_is_journalled_before_it_acts_and_reverted_at_the_end_of_its_block(lab_on):
    runtime = Clocked()
    lab = lab_on(runtime)

    with lab.recording(), lab.inject(faults.kill("api")) as injected:
        assert not runtime.state("api").running

    assert runtime.state("api").running
    assert injected.victims == ("api",)
    assert [line["kind"] for line in written(lab, "intent", "proof", "undone")] == [
        "intent",
        "proof",
        "proof",
        "undone",
    ]
    assert open_intents(lab.journal.path).undos == ()


def test_the_undo_is_on_disk_when_the_fault_acts(lab_on):
    lab = lab_on(Clocked())
    on_disk = []

    @dataclass(frozen=True, kw_only=True)
    class Late(Kill):
        def inject(self, runtime, victim):
            on_disk.extend(open_intents(lab.journal.path).undos)
            super().inject(runtime, victim)

    with lab.recording():
        hold(lab, OnTarget(primitive=Late(), target="api"))

    assert on_disk == [Undo(op="ensure_running", service="api")]


def test_a_fault_whose_call_raised_is_reverted_because_it_may_have_acted(lab_on):
    runtime = Clocked()
    lab = lab_on(runtime)

    @dataclass(frozen=True, kw_only=True)
    class Cut(Kill):
        def inject(self, runtime, victim):
            super().inject(runtime, victim)
            raise OSError("the daemon's answer was cut off")

    with lab.recording(), pytest.raises(OSError, match="cut off"):
        hold(lab, OnTarget(primitive=Cut(), target="api"), lambda: pytest.fail("the block must not be entered"))

    assert runtime.state("api").running
    assert [(line["victim"], line["ok"]) for line in written(lab, "undone")] == [("api", True)]
    assert open_intents(lab.journal.path).undos == ()


class Now(FakeRuntime):
    """The fake, on the wall clock."""

    def now(self):
        return time.time()


def test_a_fault_lasts_from_the_runtimes_event_to_the_beginning_of_our_revert(lab_on):
    runtime = Now()
    lab = lab_on(runtime)

    with lab.recording(), lab.inject(faults.kill("api")) as injected:
        pass

    at_unix_s = {event.action: event.at_unix_s for event in runtime.events(0.0, float("inf"))}
    assert injected.start_unix_s == injected.last_unix_s == at_unix_s["die"]
    assert at_unix_s["die"] < injected.reverted_unix_s < at_unix_s["start"]


def test_what_the_instrument_does_to_a_service_is_its_own_from_the_fault_to_the_revert(lab_on, monkeypatch):
    monkeypatch.setattr(injector, "OWN_SLACK_S", 0.0)
    runtime = Now()
    lab = lab_on(runtime)

    with lab.recording(), lab.inject(faults.kill("api")) as injected:
        runtime.restart("model-1")

    events = runtime.events(0.0, float("inf"))
    assert [event.action for event in events if injected.is_own(event)] == ["kill", "die", "start"]
    assert [event.action for event in events if not injected.is_own(event)] == ["die", "start"]


def test_a_fault_is_reverted_if_ctrl_c_ends_its_block(lab_on):
    runtime = Clocked()
    lab = lab_on(runtime)

    def interrupt():
        raise KeyboardInterrupt

    with lab.recording(), pytest.raises(KeyboardInterrupt):
        hold(lab, faults.kill("api"), interrupt)

    assert runtime.state("api").running
    assert open_intents(lab.journal.path).undos == ()


def test_blocks_of_one_load_are_judged_as_one(lab_on):
    runtime = Clocked()
    lab = lab_on(runtime)

    with lab.recording():
        with lab.inject(faults.kill("api")) as first:
            pass
        with lab.inject(faults.restart("model-1")) as second:
            pass
    whole = injector.merged([first, second])

    assert (whole.victims, whole.proven) == (("api", "model-1"), [*first.proven, *second.proven])
    assert (whole.start_unix_s, whole.last_unix_s) == (first.start_unix_s, second.last_unix_s)
    assert whole.reverted_unix_s == second.reverted_unix_s
    assert whole.own == [*first.own, *second.own]
    assert {act.service for act in whole.own} == {"api", "model-1"}


def test_a_block_inside_another_leaves_it_the_clients_that_it_floods_with(lab_on):
    runtime = Clocked()
    lab = lab_on(runtime)

    with lab.recording(), lab.inject(faults.kill("model-1")):
        lent = runtime.flood
        with lab.inject(faults.kill("api")):
            within = runtime.flood
        after = runtime.flood

    assert lent is not None
    assert within is after is lent
    assert runtime.flood is None


@pytest.mark.parametrize("inside", [False, True], ids=["right after the injection", "while the fault is held"])
def test_an_abort_condition_ends_the_block_and_reverts(lab_on, inside):
    runtime = Clocked()
    lab = lab_on(runtime)
    lab.running_load = Clients(of=2)
    broken = lambda live: live.availability < 0.7  # noqa: E731 - as a scenario writes it

    met = r"the abort condition was met: <live: 10 requests, 5 failed, 5\.0 s>; the fault was reverted"
    with lab.recording(), pytest.raises(Aborted, match=met):
        hold(lab, faults.kill("api"), lambda: lab.abort_check(broken), abort_if=None if inside else broken)

    assert runtime.state("api").running
    assert [line["ok"] for line in written(lab, "undone")] == [True]


@pytest.mark.parametrize(
    ("clients", "condition"),
    [
        pytest.param(Clients(of=10), lambda live: live.availability < 0.7, id="a condition that is not met"),
        pytest.param(
            Clients(offered=0), lambda live: live.availability < 0.7, id="no answer yet, so no window to check"
        ),
        pytest.param(None, lambda live: True, id="no load"),
        pytest.param(Clients(), None, id="no condition"),
    ],
)
def test_nothing_else_aborts(lab_on, clients, condition):
    lab = lab_on(Clocked())
    lab.running_load = clients

    with lab.recording(), lab.inject(faults.kill("api"), abort_if=condition) as injected:
        lab.abort_check(condition)

    assert injected.reverted_unix_s is not None


def test_a_failed_revert_is_reported_with_the_command_and_stays_open_in_the_journal(lab_on):
    lab = lab_on(Clocked(broken=True))

    with (
        lab.recording() as record,
        pytest.raises(HealFailed, match=r"could not revert ensure_running on api .* run `llmchaos heal`"),
    ):
        hold(lab, faults.kill("api"))

    assert record.healed is False
    assert [line["ok"] for line in written(lab, "undone")] == [False]
    assert [undo.service for undo in open_intents(lab.journal.path).undos] == ["api"]


def test_two_faults_of_one_kind_on_one_service_are_two_intents_and_the_unreverted_one_is_open(lab_on):
    runtime = Clocked()
    lab = lab_on(runtime)
    second_ctrl_c(runtime, "api", times=1)
    twice = faults.sequence(faults.limit_cpu("api", cores=0.5), then=faults.limit_cpu("api", cores=0.1), after_s=0.01)

    with lab.recording(), pytest.raises(KeyboardInterrupt):
        hold(lab, twice)

    intents, undone = written(lab, "intent"), written(lab, "undone")
    assert [line["id"] for line in intents] == ["001#1", "001#2"]
    assert [(line["intent"], line["ok"]) for line in undone] == [("001#2", False), ("001#1", True)]
    assert {line["intent"] for line in written(lab, "proof")} == {"001#1", "001#2"}
    assert len(open_intents(lab.journal.path).undos) == 1


def test_a_revert_that_no_witness_sees_has_failed(lab_on):
    @dataclass(frozen=True, kw_only=True)
    class Scarred(Kill):
        def healed(self, runtime, victim, since_unix_s):
            return None

    lab = lab_on(Clocked())

    with (
        lab.recording(),
        pytest.raises(HealFailed, match=r"kill on api is still in force .* run `llmchaos heal`"),
    ):
        hold(lab, OnTarget(primitive=Scarred(), target="api"))


def test_every_revert_is_tried_even_after_a_failed_one(lab_on):
    runtime = Clocked()
    lab = lab_on(runtime)
    undo = runtime.undo

    def stubborn(one):
        if one.service == "api":
            raise HealFailed("api stays down")
        undo(one)

    runtime.undo = stubborn
    with lab.recording(), pytest.raises(HealFailed, match="api stays down"):
        hold(lab, faults.together(faults.kill("model-1"), faults.kill("api")))

    assert runtime.state("model-1").running
    assert sorted((line["victim"], line["ok"]) for line in written(lab, "undone")) == [
        ("api", False),
        ("model-1", True),
    ]


def second_ctrl_c(runtime, *services, times=sys.maxsize):
    """Interrupt the revert in these services, so many times."""
    undo, left = runtime.undo, itertools.count(times, -1)

    def interrupted(one):
        if one.service in services and next(left) > 0:
            raise KeyboardInterrupt(f"again, at {one.service}")
        undo(one)

    runtime.undo = interrupted


def test_every_revert_is_tried_even_after_an_interrupted_one_and_the_session_ends(lab_on):
    runtime = Clocked()
    lab = lab_on(runtime)
    second_ctrl_c(runtime, "api")

    with lab.recording() as record, pytest.raises(KeyboardInterrupt, match="again, at api"):
        hold(lab, faults.together(faults.kill("model-1"), faults.kill("model-2"), faults.kill("api")))

    assert runtime.state("model-1").running
    assert runtime.state("model-2").running
    assert [(line["victim"], line["ok"]) for line in written(lab, "undone")] == [
        ("api", False),
        ("model-2", True),
        ("model-1", True),
    ]
    assert [undo.service for undo in open_intents(lab.journal.path).undos] == ["api"]
    assert record.healed is False


def test_the_first_of_several_interrupts_is_the_one_that_is_raised(lab_on):
    runtime = Clocked()
    lab = lab_on(runtime)
    second_ctrl_c(runtime, "api", "model-1")

    with lab.recording(), pytest.raises(KeyboardInterrupt, match="again, at api"):
        hold(lab, faults.together(faults.kill("model-1"), faults.kill("model-2"), faults.kill("api")))

    assert runtime.state("model-2").running


@pytest.mark.parametrize("step", ["undo", "healed"])
def test_a_foreign_fault_that_raises_anything_at_its_end_is_not_reverted(lab_on, step):
    @dataclass(frozen=True, kw_only=True)
    class Faulty(Kill):
        pass

    def broken(self, *_):
        raise ValueError("not what I expected")

    runtime = Clocked()
    lab = lab_on(runtime)
    faulty = OnTarget(primitive=Faulty(), target="api")

    with lab.recording() as record, pytest.raises(HealFailed, match=r"ValueError: not what I expected.*llmchaos heal"):
        hold(lab, faults.together(faults.kill("model-1"), faulty), lambda: setattr(Faulty, step, broken))

    assert runtime.state("model-1").running
    assert ("model-1", True) in [(line["victim"], line["ok"]) for line in written(lab, "undone")]
    assert [undo.service for undo in open_intents(lab.journal.path).undos] == ["api"]
    assert record.healed is False


@pytest.mark.parametrize(
    "error", [NotReady("the daemon restarts"), OSError("no answer"), KeyError("not yet")], ids=repr
)
def test_an_unclear_first_look_is_repeated(error):
    runtime, seen = Clocked(), []

    @dataclass(frozen=True, kw_only=True)
    class Hesitant(Kill):
        def healed(self, runtime, victim, since_unix_s):
            seen.append(victim)
            if len(seen) == 1:
                raise error
            return Proof(step="healed", witness="the second look", at_unix_s=1.0)

    proof = heal.prove_reverted(runtime, Injection(after_s=0.0, fault=Hesitant(), victim="api"), 0.0)

    assert proof.witness == "the second look"


def test_a_process_from_before_the_fault_is_no_proof_of_its_end():
    """The fault did not take hold, or the runtime shows an old state."""
    runtime = Clocked()
    act = Injection(after_s=0.0, fault=Kill(), victim="api")

    with pytest.raises(HealFailed, match="kill on api is still in force"):
        heal.prove_reverted(runtime, act, time.time(), deadline_s=0.0)
    runtime.restart("api")

    assert heal.prove_reverted(runtime, act, time.time() - 1).witness == "runtime state running"


def test_a_victim_that_ended_while_it_was_frozen_is_no_failed_revert():
    """Another process killed it, so no fault is left in force."""
    runtime = Clocked()
    act = Injection(after_s=0.0, fault=faults.pause("api").primitive, victim="api")
    act.fault.inject(runtime, "api")
    with pytest.raises(HealFailed, match="pause on api is still in force"):
        heal.prove_reverted(runtime, act, time.time(), deadline_s=0.0)
    runtime.unpause("api")
    runtime.kill("api")

    with pytest.raises(
        NoVictim, match=r"api ended with status 137 while pause was in force, so nothing is left to revert"
    ):
        heal.prove_reverted(runtime, act, time.time(), deadline_s=0.0)


def test_a_revert_stays_unproven_while_the_runtime_does_not_answer(monkeypatch):
    runtime = Clocked()
    act = Injection(after_s=0.0, fault=faults.pause("api").primitive, victim="api")

    def hang(_):
        raise OSError("no answer")

    monkeypatch.setattr(runtime, "state", hang)

    with pytest.raises(HealFailed, match=r"pause on api is still in force 0 s after its revert: no answer"):
        heal.prove_reverted(runtime, act, time.time(), deadline_s=0.0)


def test_a_victim_that_runs_and_is_unhealthy_is_not_repaired():
    runtime = Clocked()
    act = Injection(after_s=0.0, fault=Kill(), victim="api")
    begun_s = time.time()
    runtime.restart("api")
    well = runtime.state("api")

    runtime._states["api"] = replace(well, healthy=False)
    assert not heal.is_over(runtime, act, begun_s)
    runtime._states["api"] = well
    assert heal.is_over(runtime, act, begun_s)


@pytest.mark.parametrize(
    "error", [NotReady("the daemon restarts"), OSError("no answer"), KeyError("not yet")], ids=repr
)
def test_a_revert_without_effect_is_tried_again(error):
    runtime = Clocked()
    runtime.kill("api")
    undo, tried = runtime.undo, []

    def at_the_second_try(one):
        tried.append(one)
        if len(tried) == 1:
            raise error
        undo(one)

    runtime.undo = at_the_second_try
    heal.revert_until_done(runtime, Undo(op="ensure_running", service="api"))

    assert runtime.state("api").running


def test_a_fault_that_no_witness_saw_is_reverted_and_proves_nothing(lab_on):
    runtime = Clocked(deaf=True)
    lab = lab_on(runtime)

    with (
        lab.recording(),
        pytest.raises(FaultNotObserved, match="kill api: no witness saw it within 0 s; expected: up == 0"),
    ):
        hold(lab, faults.kill("api"), lambda: pytest.fail("the block must not be entered"))

    assert runtime.state("api").running


def test_a_fault_that_its_lease_ended_before_its_revert_proves_nothing(lab_on):
    runtime = Clocked()
    lab = lab_on(runtime)

    with (
        lab.recording(),
        pytest.raises(FaultNotObserved, match="gpu_saturation model-1 ended before its revert"),
        lab.inject(faults.gpu_saturation("model-1")),
    ):
        runtime.end_lease("model-1", "gpu_saturation")

    assert open_intents(lab.journal.path).undos == ()


def test_a_fault_that_a_restart_of_its_victim_ended_was_one(lab_on):
    runtime = Clocked()
    lab = lab_on(runtime)

    with lab.recording(), lab.inject(faults.gpu_saturation("model-1")):
        runtime.restart("model-1")

    assert open_intents(lab.journal.path).undos == ()


class Needless(Kill):
    """A kill that needs no ability."""

    needs = frozenset()


def test_what_cannot_or_may_not_be_done_is_refused_before_anything_is_written(lab_on):
    runtime = Clocked()
    runtime.abilities = frozenset({"events"})
    lab = lab_on(runtime)
    stranger = [Injection(after_s=0.0, fault=Needless(), victim="grafana")]

    with lab.recording():
        with pytest.raises(Unsupported, match="the fake runtime cannot kill, start, which this fault needs"):
            hold(lab, faults.kill("api"))
        with pytest.raises(InvalidExperiment, match="grafana may not be hit; targets are api, model-1, model-2"):
            hold(lab, stranger)
    with pytest.raises(InvalidExperiment, match="this needs a load"):
        hold(lab, faults.kill("api"))

    assert written(lab, "intent") == []
    assert runtime.touched == []


@pytest.mark.parametrize(
    ("stop", "message"),
    [
        ("kill", "model-1 does not run, and an attached stack is not changed: start it yourself"),
        ("pause", "model-1 is paused, and an attached stack is not changed: unpause it yourself"),
    ],
)
def test_what_its_owner_stopped_in_a_stack_of_others_is_not_started_again(lab_on, stop, message):
    runtime = Clocked()
    getattr(runtime, stop)("model-1")
    runtime.touched.clear()
    lab = lab_on(runtime)
    lab.subject = replace(lab.subject, attach=True)

    with pytest.raises(InvalidExperiment, match=message):
        lab.require_clean()

    assert runtime.touched == []


@pytest.mark.parametrize(
    ("error", "verdict"),
    [(HealFailed("api stays down"), "heal_failed"), (Aborted("enough"), "invalid"), (KeyboardInterrupt(), "invalid")],
    ids=["heal_failed", "aborted", "interrupted"],
)
def test_however_a_trial_ends_its_verdict_is_in_the_journal(lab_on, monkeypatch, error, verdict):
    def fail(*_):
        raise error

    monkeypatch.setattr(perform, "_perform", fail)
    lab = lab_on(Clocked())
    fault = faults.kill("api")
    made = experiment(load=loads.open_loop(rate_rps=2, max_tokens=8), fault=fault).kwargs["experiment"]
    plan = plan_trial(
        scenario="s", hypothesis="", experiment=made, fault=fault, repeat=0, seed=1, services=lab.subject.targets
    )

    with contextlib.suppress(KeyboardInterrupt):
        assert perform.perform(lab, plan).error is error

    (judged,) = written(lab, "judged")
    assert judged["verdict"] == verdict
    assert judged["reason"].startswith(f"{type(error).__name__}: {error}")


@pytest.mark.parametrize("settles", [True, False])
def test_whether_the_service_settled_in_time_is_known_to_the_judge(lab_on, monkeypatch, settles):
    lab, fault, judged = lab_on(Clocked()), faults.kill("api"), []
    lab.running_load = Clients()
    made = experiment(load=loads.open_loop(rate_rps=2, max_tokens=8), fault=fault).kwargs["experiment"]
    plan = plan_trial(
        scenario="s", hypothesis="", experiment=made, fault=fault, repeat=0, seed=1, services=lab.subject.targets
    )
    monkeypatch.setattr(lab, "load", lambda *_, **__: contextlib.nullcontext(lab.running_load))
    monkeypatch.setattr(lab, "hold_steady", lambda _: None)
    monkeypatch.setattr(lab, "hold_until", lambda _, what, **__: settles or what == "fault")
    monkeypatch.setattr(perform.judge, "judge", lambda *_, settled, **__: judged.append(settled))

    with lab.recording() as record:
        perform._perform(lab, plan, record)

    assert judged == [settles]


def test_a_trial_follows_its_experiment_and_its_plan(lab_on, monkeypatch):
    """Load, repair, steady phase, abort condition and blast radius."""
    lab, fault, asked = lab_on(Clocked()), faults.kill("model-*"), {}
    made = experiment(
        load=loads.open_loop(rate_rps=2, max_tokens=8),
        fault=fault,
        remediator=False,
        steady_s=3,
        abort_if=lambda live: live.availability < 0.7,
        blast_radius=2,
    ).kwargs["experiment"]
    plan = plan_trial(
        scenario="s", hypothesis="", experiment=made, fault=fault, repeat=0, seed=1, services=lab.subject.targets
    )

    @contextlib.contextmanager
    def load(what, **about):
        asked["load"] = (what, about)
        lab.running_load = Clients(of=2)
        yield lab.running_load

    def inject(acts, **about):
        asked["inject"] = (acts, about)
        return contextlib.nullcontext(injector.Injected())

    monkeypatch.setattr(lab, "load", load)
    monkeypatch.setattr(lab, "inject", inject)
    monkeypatch.setattr(lab, "hold_steady", lambda steady_s: asked.update(steady_s=steady_s))

    with lab.recording() as record, pytest.raises(Aborted, match="the abort condition was met"):
        perform._perform(lab, plan, record)

    what, about = asked["load"]
    assert (what, about["arrivals"], about["remediator"]) == (made.load, arrivals_of(plan), False)
    acts, about = asked["inject"]
    assert (acts, about["blast_radius"], about["abort_if"]) == (plan.injections, 2, made.abort_if)
    assert asked["steady_s"] == 3


class Served(Clients):
    """Clients that another replica serves, whatever happens to the victim."""

    def recovery_s(self, from_s, stable_s):
        return from_s


@pytest.mark.parametrize("fault", [faults.hang("model-1"), faults.kill("model-1")], ids=str)
@pytest.mark.parametrize("repaired", [True, False], ids=["repaired", "never repaired"])
def test_a_lasting_fault_is_held_until_nothing_of_it_is_left_not_just_until_clients_are_well(
    lab_on, monkeypatch, fault, repaired
):
    runtime, looks = Clocked(), itertools.count(1)
    lab = lab_on(runtime)
    lab.running_load = Served()
    made = experiment(load=loads.open_loop(rate_rps=2), fault=fault, repair_within_s=1).kwargs["experiment"]
    plan = plan_trial(
        scenario="s", hypothesis="", experiment=made, fault=fault, repeat=0, seed=1, services=lab.subject.targets
    )

    def tick(*_):
        if next(looks) == 3 and repaired:
            runtime.undo(plan.injections[0].fault.undo("model-1"))

    monkeypatch.setattr(lab, "_tick", tick)
    monkeypatch.setattr(perform, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(perform, "take_part", lambda *_, **__: next(looks) > 4)

    with lab.recording() as record, lab.inject(plan.injections) as injected:
        perform._hold_fault(lab, plan, record, injected)

    assert (4 < next(looks) < 8) is repaired, "only the deadline ends a fault without a repair"
    assert (injected.over_unix_s is not None) is repaired


@dataclass(frozen=True, kw_only=True)
class Watched(Kill):
    """A kill that is seen at look `at_look`, and keeps the times of all looks."""

    at_look: int
    asked: list
    since: list

    def observed(self, runtime, victim, since_unix_s):
        self.asked.append(since_unix_s)
        return Proof(step="injected", witness="it", at_unix_s=5.0) if len(self.asked) == self.at_look else None

    def healed(self, runtime, victim, since_unix_s):
        self.since.append(since_unix_s)
        return super().healed(runtime, victim, 0.0)


class TestProof:
    """The proof of an injection."""

    @pytest.fixture
    def clock(self, monkeypatch):
        clock = Clock()
        monkeypatch.setattr(injector, "time", clock)
        return clock

    @pytest.fixture
    def hit(self, lab_on, clock):
        """Inject a fault that is seen at this look."""

        def acted(at_look):
            lab, fault = lab_on(Clocked()), Watched(at_look=at_look, asked=[], since=[])
            with (
                lab.recording() as record,
                lab.inject([Injection(after_s=0.0, fault=fault, victim="api")]) as injected,
            ):
                pass
            return record, injected, fault

        return acted

    def test_a_proof_is_sought_50_times_a_second_for_5_s(self, hit, clock, monkeypatch):
        monkeypatch.undo()
        monkeypatch.setattr(injector, "time", clock)

        with pytest.raises(FaultNotObserved, match="within 5 s"):
            hit(at_look=9999)

        assert 5 < clock.passed_s < 5.04
        assert set(clock.sleeps) == {0.02}

    def test_a_proof_has_a_last_look_after_the_deadline(self, hit, clock):
        with pytest.raises(FaultNotObserved):
            hit(at_look=3)
        assert len(clock.sleeps) == 1

        _, injected, _ = hit(at_look=2)
        assert injected.start_unix_s == 5.0

    def test_a_proof_dates_from_the_act_to_the_millisecond(self, hit, clock):
        begun_s = clock.time()

        _, _, fault = hit(at_look=1)

        assert fault.asked == [begun_s - 0.001]

    def test_dates_the_fault(self, hit):
        record, injected, fault = hit(at_look=1)

        assert (injected.start_unix_s, injected.last_unix_s) == (5.0, 5.0)
        assert fault.since == [5.0], "the restart came after the fault"
        (event,) = record.events
        assert (event.at_s, event.source, event.what, event.service) == (
            record.at_s(5.0),
            "instrument",
            "kill api",
            "api",
        )

    def test_proof_of_the_end_suffices_after_an_unseen_start(self, lab_on, clock):
        lab, fault = lab_on(Clocked()), Watched(at_look=9, asked=[], since=[])

        with lab.recording(), pytest.raises(FaultNotObserved):
            hold(lab, [Injection(after_s=0.0, fault=fault, victim="api")])

        assert fault.since == [0.0]


def test_the_first_act_begins_the_fault_and_the_last_one_is_its_last(lab_on):
    lab = lab_on(Clocked())

    with lab.recording() as record, lab.inject(faults.together(faults.kill("model-1"), faults.kill("api"))) as injected:
        pass

    first, last = [proof.at_s for proof in record.proofs if proof.step == "injected"]
    assert first < last
    assert (record.at_s(injected.start_unix_s), record.at_s(injected.last_unix_s)) == (first, last)


@pytest.mark.parametrize(
    ("service", "at_unix_s", "is_own"),
    [
        ("api", 100.0 - 0.02, True),
        ("api", 100.0 - 0.03, False),
        ("api", 105.0, True),
        ("api", 110.0 + 0.02, True),
        ("api", 110.0 + 0.03, False),
        ("api", 500.0, False),
        ("model-1", 105.0, False),
        ("aaa", 105.0, False),
    ],
)
def test_an_event_is_the_instruments_own_within_the_time_of_its_act_and_a_fiftieth_of_a_second(
    service, at_unix_s, is_own
):
    injected = injector.Injected()
    injected.own = [injector.OwnAct(service="api", from_unix_s=100.0, to_unix_s=110.0)]
    service = "".join(list(service))  # an equal text that is another object

    event = RuntimeEvent(at_unix_s=at_unix_s, service=service, action="die")

    assert injected.is_own(event) is is_own


def test_blocks_in_which_nothing_was_seen_leave_the_times_to_the_others():
    seen, unseen = injector.Injected(), injector.Injected()
    seen.start_unix_s, seen.last_unix_s, seen.reverted_unix_s = 10.0, 20.0, 30.0

    for blocks in ([seen, unseen], [unseen, seen], [seen]):
        whole = injector.merged(blocks)
        assert (whole.start_unix_s, whole.last_unix_s, whole.reverted_unix_s) == (10.0, 20.0, 30.0)
    for blocks in ([unseen], []):
        whole = injector.merged(blocks)
        assert (whole.start_unix_s, whole.last_unix_s, whole.reverted_unix_s) == (None, None, None)


@pytest.mark.parametrize("broken", [False, True])
def test_a_fault_is_shown_to_prometheus_from_its_proof_to_its_revert_however_that_ends(lab_on, broken):
    lab, shown = lab_on(Clocked(broken=broken)), []
    lab.signals.fault = lambda kind, victim, *, active: shown.append((kind, victim, active))

    with lab.recording(), contextlib.suppress(HealFailed):
        hold(lab, faults.kill("api"))

    assert shown == [("kill", "api", True), ("kill", "api", False)]


def test_a_record_with_a_failed_revert_keeps_it_whatever_is_reverted_later(lab_on):
    lab = lab_on(Clocked())

    with lab.recording() as record:
        record.healed = False
        hold(lab, faults.kill("api"))

    assert record.healed is False


@pytest.mark.parametrize(
    ("error", "why"),
    [(KeyboardInterrupt(), "KeyboardInterrupt"), (KeyboardInterrupt("again"), "again")],
    ids=["bare", "said"],
)
def test_the_reason_of_an_interrupted_revert_is_in_the_journal(lab_on, monkeypatch, error, why):
    def broken(*_):
        raise error

    monkeypatch.setattr(injector, "revert_until_done", broken)
    lab = lab_on(Clocked())

    with lab.recording(), pytest.raises(KeyboardInterrupt):
        hold(lab, faults.kill("api"))

    (undone,) = written(lab, "undone")
    assert (undone["ok"], undone["why"]) == (False, why)


def test_a_victim_that_was_removed_is_done_with(lab_on):
    runtime = Clocked()
    lab = lab_on(runtime)

    with lab.recording() as record, pytest.raises(NoVictim):
        hold(lab, faults.kill("api"), lambda: runtime.remove("api"))

    (undone,) = written(lab, "undone")
    assert (undone["op"], undone["ok"]) == ("ensure_running", True)
    assert "api was removed by another process" in undone["why"]
    assert record.healed
    assert open_intents(lab.journal.path).undos == ()
