"""Loads outside a trial: gates, draws and errors."""

import contextlib
import random
import threading
import time
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
from support.fake_runtime import FakeRuntime
from support.judged_world import Performed, judge

from pytest_llmchaos import experiment, faults, loads
from pytest_llmchaos.errors import (
    Aborted,
    BadScenario,
    InvalidExperiment,
    LoadNotHeld,
    NotReady,
    NotRecovered,
    PartialScrape,
    TruthsDisagree,
)
from pytest_llmchaos.evidence.journal import Journal, read
from pytest_llmchaos.host import measurement_lock
from pytest_llmchaos.lab import gates
from pytest_llmchaos.lab.current_test import CurrentTest
from pytest_llmchaos.lab.lab import Lab
from pytest_llmchaos.model import Injection, Undo
from pytest_llmchaos.plan.schedule import plan_trial
from pytest_llmchaos.subject.lab import Endpoint, lab_subject
from pytest_llmchaos.trial.own_load import judge_own_load
from pytest_llmchaos.trial.perform import perform

LOAD = loads.open_loop(rate_rps=2)


class Sidecar(FakeRuntime):
    """The fake on the wall clock, with Prometheus and a remediator to stop."""

    def __init__(self):
        super().__init__(("api", "model-1", "model-2", "remediator", "prometheus"))

    def now(self):
        return time.time()

    def start_remediator(self):
        self.start("remediator")

    def stop_remediator(self):
        self.kill("remediator")


class Clients:
    """A load without a generator. Its plan is in `sent`."""

    sent: list = []  # noqa: RUF012 - emptied by each test

    def __init__(self, load, arrivals, **_):
        self.pid, self.t0_unix_s, self.t0_monotonic_s = 1, time.time(), time.monotonic()
        self.sent.append(tuple(arrivals))

    def launch(self):
        return None

    start = check_alive = launch

    def stop(self, *, drain=True):
        self.drained = getattr(self, "drained", drain)


@pytest.fixture
def lab_of(tmp_path, monkeypatch):
    """A lab without a load generator, whose gates a test can close."""
    monkeypatch.setattr("pytest_llmchaos.lab.lab.RunningLoad", Clients)
    monkeypatch.setattr(Clients, "sent", [])
    monkeypatch.setattr(gates, "require_clean", lambda lab: lab.runtime.touched.append("looked over"))
    monkeypatch.setattr(measurement_lock, "slot_file", lambda name: tmp_path / f"{name}.lock")
    made = []

    def make(refused=None, *, worker="", seed=42):
        def judged(_lab, record, _load, _injected):
            if refused is not None:
                raise refused
            return record.seen()

        journal = Journal(tmp_path / f"journal{worker}.jsonl")
        made.append(journal)
        return Lab(
            runtime=Sidecar(),
            subject=replace(lab_subject("sim"), pushgateway=None),
            journal=journal,
            directory=tmp_path,
            seed=seed,
            say=lambda *_: None,
            judge=judged,
            worker=worker,
        )

    yield make
    for journal in made:
        journal.close()


def written(lab, kind):
    return [line for line in read(lab.journal.path) if line["kind"] == kind]


def verdicts(lab):
    return [(line["verdict"], line.get("reason")) for line in written(lab, "judged")]


class TestEntry:
    """The begin of a load."""

    def test_a_load_has_the_machine_to_itself_until_it_is_judged(self, lab_of):
        lab, found = lab_of(), []

        def other():
            try:
                with measurement_lock.measuring(deadline_s=0.0):
                    found.append("free")
            except NotReady:
                found.append("taken")

        def look():
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()

        with lab.load(LOAD):
            look()
        look()

        assert found == ["taken", "free"]

    def test_a_load_is_checked_and_gets_the_remediator_that_it_names(self, lab_of):
        lab = lab_of()
        lab.remediator.ensure(False)  # as a control arm leaves it
        lab.runtime.touched.clear()

        with lab.load(LOAD):
            assert lab.remediator.running
        with lab.load(LOAD, remediator=False):
            assert not lab.remediator.running

        assert lab.runtime.touched[0] == "looked over"
        assert [line["remediator"] for line in written(lab, "judged")] == [True, False]

    def test_a_wait_for_entry_lasts_five_minutes_at_most_by_default(self, lab_of):
        lab = lab_of()

        for longest in ({}, {"longest_s": 30.0}):
            with lab.load(LOAD, **longest):
                pass

        assert [arrivals[-1].due_s for arrivals in Clients.sent] == [299.5, 29.5]

    def test_a_load_with_requests_of_its_own_sends_those(self, lab_of):
        lab, own = lab_of(), LOAD.schedule(random.Random(1), 5.0)

        with lab.load(LOAD, arrivals=own):
            pass

        assert Clients.sent == [own]

    def test_a_load_is_refused_next_to_another_load(self, lab_of):
        lab = lab_of()

        with lab.load(LOAD), pytest.raises(InvalidExperiment, match="a load is running already"), lab.load(LOAD):
            pytest.fail("two loads at once")

        assert verdicts(lab) == [("held", None)]

    def test_a_load_of_a_fixture_blocks_a_trial_and_goes_on(self, lab_of):
        lab, fault = lab_of(), faults.kill("api")
        made = experiment(load=LOAD, fault=fault).kwargs["experiment"]
        about = {"scenario": "s", "hypothesis": "", "experiment": made, "fault": fault, "repeat": 0, "seed": 1}
        plan = plan_trial(**about, services=lab.subject.targets)

        with lab.load(LOAD):
            with pytest.raises(InvalidExperiment, match="lab still runs on this stack"):
                perform(lab, plan)
            assert lab.record is not None

        assert verdicts(lab) == [("held", None)]

    def test_a_load_is_refused_while_a_fault_of_this_run_is_open(self, lab_of, monkeypatch):
        lab = lab_of()
        monkeypatch.undo()
        with lab.recording() as record:
            record.intent("kill", "api", Undo(op="ensure_running", service="api"))

        with pytest.raises(InvalidExperiment, match=r"is not reverted \(ensure_running api\): run `llmchaos heal`"):
            lab.require_clean()

    def test_a_fault_that_no_block_injected_is_an_error_at_its_end(self, lab_of):
        lab = lab_of()

        with pytest.raises(InvalidExperiment, match=r"kill api was not injected: .* without `with`"), lab.load(LOAD):
            lab.inject(faults.kill("api"))
        with lab.load(LOAD), lab.inject(faults.kill("api")) as injected:
            pass

        assert injected.victims == ("api",)
        assert [verdict for verdict, _ in verdicts(lab)] == ["invalid", "held"]


class TestEnd:
    """The end of a load."""

    @pytest.mark.parametrize("gate", [LoadNotHeld("late"), TruthsDisagree("two stories"), PartialScrape("a hole")])
    def test_a_load_is_an_error_if_a_gate_refuses_it(self, lab_of, gate):
        lab = lab_of(gate)

        with pytest.raises(type(gate)), lab.load(LOAD):
            pass

        assert verdicts(lab) == [(gate.verdict, f"{type(gate).__name__}: {gate}")]
        assert lab.reasons.explains_action(time.time()) != isinstance(gate, TruthsDisagree)

    def test_the_end_of_a_load_names_the_tests_own_error_as_what_the_gate_made_void(self, lab_of):
        own = AssertionError("assert 3 <= 2")

        with pytest.raises(LoadNotHeld) as raised, lab_of(LoadNotHeld("late")).load(LOAD):
            raise own

        assert raised.value.__cause__ is own

    @pytest.mark.parametrize("own", [AssertionError("assert 3 <= 2"), NotRecovered("it is down"), KeyError("x")])
    def test_the_end_of_a_load_keeps_the_tests_own_error_if_no_gate_refuses_it(self, lab_of, own):
        lab = lab_of()

        with pytest.raises(type(own)) as raised, lab.load(LOAD) as load:
            raise own

        assert raised.value is own
        assert load.drained, "what became of open requests is evidence"
        assert verdicts(lab) == [("held", None)]

    def test_the_end_of_a_load_keeps_the_cause_of_what_a_gate_refuses(self, lab_of):
        cause = OSError("no answer")
        refused = TruthsDisagree("two stories")
        refused.__cause__ = cause

        with pytest.raises(TruthsDisagree) as raised, lab_of(refused).load(LOAD):
            pass

        assert raised.value.__cause__ is cause

    @pytest.mark.parametrize("error", [OSError("no daemon"), InvalidExperiment("not clean")], ids=repr)
    def test_a_load_is_not_judged_if_it_never_began(self, lab_of, monkeypatch, error):
        def not_clean(_lab):
            raise error

        monkeypatch.setattr(gates, "require_clean", not_clean)
        lab, judged = lab_of(), []
        lab._judge = lambda *_: judged.append("a judge")

        with pytest.raises(type(error)), lab.load(LOAD):
            pytest.fail("the block must not be entered")

        assert judged == []
        assert lab.running_load is None

    @pytest.mark.parametrize("own", [Aborted("enough"), KeyboardInterrupt()])
    def test_a_load_is_not_judged_if_it_was_interrupted(self, lab_of, own):
        lab = lab_of(LoadNotHeld("late"))

        with pytest.raises(type(own)), lab.load(LOAD) as load:
            raise own

        assert verdicts(lab) == [("invalid", f"{type(own).__name__}: {own}")]
        assert not load.drained

    def test_tasks_that_a_load_leaves_are_noted_until_another_load_of_tasks_leaves_none(self, lab_of, monkeypatch):
        lab, left = lab_of(), []
        lab.subject = replace(lab.subject, agents=Endpoint(service="api"))
        for load, uncancelled in ((loads.tasks(), 2), (LOAD, 0), (loads.tasks(), 0)):
            summary = SimpleNamespace(uncancelled=uncancelled)
            monkeypatch.setattr(Clients, "stop", lambda _, summary=summary, **__: summary)
            with lab.load(load):
                pass
            left.append(lab.has_left_tasks)

        assert left == [True, True, False]


class TestName:
    """The record of a load."""

    def test_a_load_has_the_name_of_its_test_and_its_injected_fault(self, lab_of):
        lab = lab_of()
        lab.test.begin("test_odd.py::test_it", "It holds.")

        with lab.load(LOAD):
            with lab.inject(faults.kill("api")):
                pass
            with lab.inject(faults.pause("model-1")):
                pass
        with lab.load(LOAD):
            pass

        first, second = written(lab, "judged")
        assert (first["scenario"], first["hypothesis"]) == ("test_odd.py::test_it", "It holds.")
        assert (first["fault"], first["victim"]) == ("kill api, pause model-1", "api, model-1")
        assert (second["fault"], second["victim"], second["repeat"]) == ("none", None, 1)

    def test_the_name_of_one_fault_comes_with_its_target_and_fidelity(self, lab_of):
        lab = lab_of()

        with lab.load(LOAD), lab.inject(faults.kill("model-*")):
            pass

        (judged,) = written(lab, "judged")
        assert (judged["fault"], judged["target"], judged["fidelity"]) == ("kill model-*", "model-*", "real")
        assert judged["victim"].startswith("model-")

    def test_a_named_phase_is_a_window_of_its_own(self, lab_of):
        lab = lab_of()

        with lab.load(LOAD):
            lab.running_load.check_alive = lambda: None
            with lab.phase("quiet"):
                pass

        assert [line["name"] for line in written(lab, "phase")] == ["quiet"]

    def test_the_name_of_a_folder_has_the_worker_in_it(self, lab_of):
        first, second = lab_of(worker="gw0"), lab_of(worker="gw1")

        with first.load(LOAD) as _, second.recording() as record:
            assert first.record.directory != record.directory
            assert (first.record.trial, record.trial) == ("gw0-001", "gw1-001")


class TestDraws:
    """Victims and arrivals depend on the seed and the test alone."""

    def drawn(self, lab, name, times=1):
        lab.test.begin(name)
        victims = []
        with lab.load(LOAD):
            for _ in range(times):
                with lab.inject(faults.kill("model-*")) as injected:
                    victims += injected.victims
        return victims, Clients.sent[-1]

    def test_draws_depend_neither_on_order_nor_on_what_else_runs_nor_on_the_worker(self, lab_of):
        names = [f"test_a.py::test_{i}" for i in range(12)]
        first, second = lab_of(), lab_of(worker="gw1")

        forward = {name: self.drawn(first, name, 3) for name in names}
        backward = {name: self.drawn(second, name, 3) for name in reversed(names[::3])}

        assert {name: forward[name] for name in backward} == backward

    def test_draws_differ_between_tests_between_draws_of_one_and_by_the_seed(self, lab_of):
        lab = lab_of()
        names = [f"test_a.py::test_{i}" for i in range(12)]

        found = {name: self.drawn(lab, name, 6) for name in names}
        other = {name: self.drawn(lab_of(seed=43, worker="gw1"), name, 6) for name in names}

        victims = Counter(victim for victims, _ in found.values() for victim in victims)
        assert set(victims) == {"model-1", "model-2"}
        assert any(len(set(victims)) == 2 for victims, _ in found.values())
        assert len({arrivals for _, arrivals in found.values()}) == len(names)
        assert found != other

    def test_draws_of_random_times_depend_on_the_test_and_the_load(self, lab_of):
        lab, load = lab_of(), loads.poisson(rate_rps=5)

        def sent(name):
            lab.test.begin(name)
            for _ in range(2):
                with lab.load(load):
                    pass
            return Clients.sent[-2:]

        (one, two), other, again = sent("a"), sent("b"), sent("a")

        assert one != two
        assert other != [one, two] == again

    def test_draws_of_a_shared_fixture_are_its_own(self):
        test = CurrentTest(42)
        test.begin("test_a.py::test_one")
        before = test.rng("kill", test.number("kill")).random()
        with test.within("test_a.py::shared"):
            shared = test.rng("kill", test.number("kill")).random()
        number = test.number("kill")

        other = CurrentTest(42)
        other.begin("test_a.py::test_two")
        with other.within("test_a.py::shared"):
            assert other.rng("kill", other.number("kill")).random() == shared
        assert number == 1, "what the fixture drew counts for itself"
        assert shared != before


class TestArguments:
    """Arguments of `inject`."""

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            ({"abort_if": 3}, r"lab.inject\(abort_if=...\) must be a function of the live window"),
            ({"abort_if": lambda: True}, r"lab.inject\(abort_if=...\) must be a function of the live window"),
            ({"blast_radius": -1}, r"lab.inject\(blast_radius=...\) must be a whole number of services, got -1"),
            ({"blast_radius": True}, r"lab.inject\(blast_radius=...\) must be a whole number"),
            (
                {"blast_radius": 0},
                r"lab.inject\(blast_radius=0\) is smaller than what 'kill api' may hit \(1 services\)",
            ),
            ({"patience_s": -1}, r"lab.inject\(patience_s=...\) must be a number of seconds from 0 to 3600, got -1"),
            ({"patience_s": "40"}, r"lab.inject\(patience_s=...\) must be a number of seconds"),
        ],
    )
    def test_arguments_that_are_wrong_are_refused_when_inject_is_called(self, lab_of, wrong, said):
        lab = lab_of()

        with lab.load(LOAD), pytest.raises(BadScenario, match=said):
            lab.inject(faults.kill("api"), **wrong)

        assert lab.runtime.state("api").running

    @pytest.mark.parametrize(("patience_s", "is_taken"), [(0, True), (3600, True), (-0.5, False), (3600.5, False)])
    def test_arguments_of_patience_go_from_none_to_an_hour(self, lab_of, patience_s, is_taken):
        refusal = contextlib.nullcontext() if is_taken else pytest.raises(BadScenario, match="from 0 to 3600")

        lab = lab_of()
        with lab.recording(), refusal, lab.inject(faults.kill("api"), patience_s=patience_s):
            pass

    def test_arguments_of_acts_without_a_limit_leave_them_without_one(self, lab_of):
        """A plan has checked them already."""
        lab = lab_of()
        acts = [Injection(after_s=0.0, fault=faults.kill(it).primitive, victim=it) for it in ("api", "model-1")]

        with lab.load(LOAD), lab.inject(acts) as injected:
            pass
        with (
            lab.load(LOAD),
            pytest.raises(
                BadScenario, match=r"lab.inject\(blast_radius=1\) is smaller than what 'kill api .*, kill model-1"
            ),
        ):
            lab.inject(acts, blast_radius=1)

        assert injected.victims == ("api", "model-1")

    def test_what_is_no_fault_is_refused(self, lab_of):
        lab = lab_of()

        with lab.load(LOAD), pytest.raises(BadScenario, match=r"lab.inject\(...\) must be a fault such as"):
            lab.inject("kill api")

    def test_an_engines_fault_outlasts_the_load(self, lab_of):
        lab, leases = lab_of(), []
        start = lab.runtime.engine_start

        def started(*args, lease_s, **options):
            leases.append(lease_s)
            return start(*args, lease_s=lease_s, **options)

        lab.runtime.engine_start = started
        for longest_s in (100.0, 900.0):
            with lab.load(LOAD, longest_s=longest_s), lab.inject(faults.hang("model-1")):
                pass

        assert leases[0] == 300
        assert 900 < leases[1] <= 960


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with judge(tmp_path_factory.mktemp("own-load")) as served:
        yield served


class TestEvidence:
    """Gates on the recordings of a load, and its record."""

    @pytest.fixture
    def performed(self, world, tmp_path):
        return Performed(tmp_path, *world)

    def judged(self, performed):
        with performed.load() as (record, running):
            record.phases = record.phases[:1]
            return judge_own_load(performed.lab, record, running, performed.injected)

    def test_an_accepted_load_records_phases_events_and_its_own_figures(self, performed):
        result = self.judged(performed)

        assert [(phase.name, phase.offered) for phase in result.phases] == [("steady", 160)]
        assert result.load.achieved_ratio == 1.0
        assert {"api die", "api start", "alert ServiceDown fires"} <= {event.what for event in result.events}

    def test_a_load_of_a_load_that_was_not_held_is_refused(self, performed):
        performed.summary = replace(performed.summary, achieved_ratio=0.9)

        with pytest.raises(LoadNotHeld):
            self.judged(performed)

    def test_a_load_is_refused_if_clients_and_prometheus_disagree(self, performed):
        performed.seen[5] = replace(performed.seen[5], outcome="truncated")

        with pytest.raises(TruthsDisagree):
            self.judged(performed)

    def test_a_load_with_holes_in_the_scrapes_is_refused_even_without_a_steady_phase(self, performed):
        performed.lab.subject = replace(performed.lab.subject, scrape_jobs=("api", "gap"))

        with performed.load() as (record, running):
            record.phases.clear()
            with pytest.raises(PartialScrape):
                judge_own_load(performed.lab, record, running, performed.injected)

    def test_a_load_without_an_answer_is_refused(self, performed):
        performed.seen = []

        with pytest.raises(InvalidExperiment, match="no request was answered"):
            self.judged(performed)


class TestRest:
    """While another process measures, the stack is neither scraped nor repaired."""

    def test_a_rest_pauses_the_remediator_first_and_resumes_it_last_once_all_is_scraped_again(
        self, lab_of, monkeypatch
    ):
        lab, seen = lab_of(), []
        monkeypatch.setattr(gates, "TICK_S", 0.0)
        targets = iter([0.0, float("inf")])

        def scraped():
            seen.append(lab.runtime.state("remediator").paused)
            return [
                SimpleNamespace(job=job, up=True, last_scrape_unix_s=at)
                for at in [next(targets)]
                for job in lab.subject.scrape_jobs
            ]

        lab._prometheus = SimpleNamespace(targets=scraped)

        with gates.at_rest(lab):
            assert lab.runtime.state("prometheus").paused
        acts = [(event.service, event.action) for event in lab.runtime._events]

        assert seen == [True, True], "it must not see the gap"
        assert acts == [
            ("remediator", "pause"),
            ("prometheus", "pause"),
            ("prometheus", "unpause"),
            ("remediator", "unpause"),
        ]

    def test_a_rest_resumes_both_if_the_wait_is_interrupted(self, lab_of):
        lab = lab_of()

        with pytest.raises(KeyboardInterrupt), gates.at_rest(lab):
            raise KeyboardInterrupt

        assert not any(state.paused for state in lab.runtime.states().values())

    def test_a_rest_leaves_a_stopped_remediator_and_a_stack_of_others_alone(self, lab_of, monkeypatch):
        monkeypatch.setattr(gates, "wait_until", lambda *_: None)
        lab = lab_of()
        lab.remediator.ensure(False)
        lab.runtime.touched.clear()
        with gates.at_rest(lab):
            assert set(lab.runtime.touched) == {"prometheus"}

        lab.subject = replace(lab.subject, attach=True)
        lab.runtime.touched.clear()
        with gates.at_rest(lab):
            pass
        assert lab.runtime.touched == []

    def test_a_load_rests_while_it_waits_for_its_turn(self, lab_of, monkeypatch):
        monkeypatch.setattr(gates, "wait_until", lambda *_: None)
        lab, said = lab_of(), threading.Event()
        lab._say = lambda *_: said.set()
        inside, leave = threading.Event(), threading.Event()

        def other():
            with measurement_lock.measuring():
                inside.set()
                leave.wait(10)

        thread = threading.Thread(target=other)
        thread.start()
        assert inside.wait(10)
        frozen = []

        def watch():
            said.wait(10)
            deadline = time.monotonic() + 10
            while not lab.runtime.state("prometheus").paused and time.monotonic() < deadline:
                said.wait(0)
            frozen.append(lab.runtime.state("prometheus").paused)
            leave.set()

        watcher = threading.Thread(target=watch)
        watcher.start()
        with lab.load(LOAD):
            assert not lab.runtime.state("prometheus").paused
            assert not lab.runtime.state("remediator").paused
        watcher.join()
        thread.join()

        assert frozen == [True]
