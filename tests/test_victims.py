"""Containers of a scaled service: draw, proof, revert."""

import itertools
import random
import time
from types import SimpleNamespace

import pytest
from support.fake_lab import ClockedRuntime, fake_lab

from pytest_llmchaos import experiment, faults, loads
from pytest_llmchaos.errors import BadScenario, HealFailed, InvalidExperiment, NoVictim
from pytest_llmchaos.evidence import journal_lines as lines
from pytest_llmchaos.evidence.journal import Journal, open_intents, read
from pytest_llmchaos.evidence.run_manifest import RunManifest
from pytest_llmchaos.evidence.trial_result import Planned, PlanNote
from pytest_llmchaos.model import Undo
from pytest_llmchaos.plan.schedule import entry_of, plan_trial
from pytest_llmchaos.runtime.docker import attached, notes, restrictions
from pytest_llmchaos.runtime.docker.compose import ComposeRuntime
from pytest_llmchaos.runtime.docker.replicas import Replicas
from pytest_llmchaos.runtime.docker.sharing import AGENT
from pytest_llmchaos.subject.lab import lab_subject

THREE = {"api": (1, 2, 3)}


class Box:
    """A container of the service `web`, as the SDK lists it."""

    def __init__(self, number):
        self.id = self.name = f"shop-web-{number}"
        self.labels = {
            "com.docker.compose.project": "shop",
            "com.docker.compose.service": "web",
            "com.docker.compose.container-number": str(number),
            "llmchaos.run": "r",
            "llmchaos.owner": "o",
            "llmchaos.allow": "true",
        }
        self.attrs = {
            "State": {"Running": True, "Paused": False, "ExitCode": 0, "StartedAt": "0001-01-01T00:00:00Z"},
            "HostConfig": {"Memory": number * 2**20, "MemorySwap": number * 2**20},
            "NetworkSettings": {"Networks": {}},
            "Config": {},
        }
        self.done = []

    def update(self, *, mem_limit, memswap_limit):
        self.done.append((mem_limit, memswap_limit))

    def start(self):
        self.done.append("start")


def boxes_of(*numbers):
    return [Box(number) for number in numbers]


def runtime_on(boxes, directory):
    runtime = ComposeRuntime(lab_subject("sim"), project="shop", run="r", owner="o", directory=directory)
    runtime._client = SimpleNamespace(containers=SimpleNamespace(list=lambda **_: list(boxes)), close=lambda: None)
    return runtime


def planned(repeat):
    return Planned(scenario="s", hypothesis="", fault="kill api", remediator=True, repeat=repeat, plan=PlanNote())


@pytest.fixture
def lab(tmp_path):
    with fake_lab(tmp_path, time, ClockedRuntime(time, scaled=THREE)) as made:
        yield made


class TestDraw:
    """The number depends on the seed and on how many containers there are."""

    def test_the_order_in_which_docker_lists_the_containers_changes_nothing(self):
        orders = list(itertools.permutations((1, 2, 3)))
        drawn = {Replicas().aim("web", boxes_of(*order), random.Random(7), None) for order in orders}

        assert len(drawn) == 1

    def test_every_container_can_be_drawn(self):
        drawn = {Replicas().aim("web", boxes_of(1, 2, 3), random.Random(seed), None) for seed in range(30)}

        assert drawn == {1, 2, 3}

    def test_a_number_that_no_container_has_is_refused_with_those_there_are(self):
        with pytest.raises(NoVictim, match=r"target 'web#4' matches no container .*; available: web#1, web#3"):
            Replicas().aim("web", boxes_of(3, 1), random.Random(1), 4)

    def test_the_only_container_of_a_service_has_no_number(self):
        assert Replicas().aim("web", boxes_of(1), random.Random(1), None) is None
        assert Replicas().aim("web", boxes_of(1), random.Random(1), 1) is None

    def test_a_runtime_of_processes_refuses_a_number(self, lab):
        with pytest.raises(NoVictim, match=r"target 'model-1#2' is one of several containers.*: drop the number"):
            lab.runtime.aim("model-1", random.Random(1), 2)


class TestTrial:
    """One load hits one container of a service."""

    def hit(self, lab, repeat, *injected):
        lab.runtime.hit.clear()
        with lab.recording(planned(repeat)) as record:
            for fault in injected:
                with lab.inject(fault):
                    pass
        return set(lab.runtime.hit), record

    def test_the_same_trial_hits_the_same_container_and_trials_differ(self, lab):
        first = [self.hit(lab, repeat, faults.kill("api"))[0] for repeat in range(12)]
        again = [self.hit(lab, repeat, faults.kill("api"))[0] for repeat in range(12)]

        assert first == again
        assert set().union(*first) == {"api#1", "api#2", "api#3"}

    def test_all_faults_of_a_load_hit_the_same_container(self, lab):
        for repeat in range(6):
            hit, _ = self.hit(lab, repeat, faults.kill("api"), faults.pause("api"))

            assert len(hit) == 1

    def test_a_named_container_is_hit_and_a_later_fault_follows(self, lab):
        for repeat in range(6):
            hit, record = self.hit(lab, repeat, faults.kill("api#2"), faults.pause("api"))

            assert hit == {"api#2"}
            assert record.seen().victim == "api#2"

    def test_a_second_container_of_the_service_is_refused_and_not_touched(self, lab):
        with (
            pytest.raises(InvalidExperiment, match=r"api#3 cannot be hit: .* hit api#2; use a load for each"),
            lab.recording(planned(0)),
            lab.inject(faults.kill("api#2")),
            lab.inject(faults.kill("api#3")),
        ):
            pytest.fail("api#3 was hit")

        assert set(lab.runtime.hit) == {"api#2"}

    def test_a_plan_that_names_two_containers_of_a_service_is_refused(self):
        made = experiment(load=loads.open_loop(rate_rps=8), fault=faults.kill(["api#1", "api#2"]), blast_radius=2)
        with pytest.raises(BadScenario, match="'s' hits api#1 and api#2: a trial hits one container"):
            self.plan(made)

    def test_a_schedule_has_the_number_that_a_scenario_names(self):
        made = experiment(load=loads.open_loop(rate_rps=8), fault=faults.kill("api#2"))

        entry = entry_of(self.plan(made))

        assert (entry.fault, entry.injections[0].victim) == ("kill api#2", "api#2")

    @staticmethod
    def plan(made):
        found = made.kwargs["experiment"]
        return plan_trial(
            scenario="s", hypothesis="", experiment=found, fault=found.faults[0], repeat=0, seed=1, services=["api"]
        )

    def test_journal_and_report_name_the_container(self, lab):
        (name,), record = self.hit(lab, 3, faults.kill("api"))
        lines = list(read(lab.journal.path))

        (intent,) = [line for line in lines if line["kind"] == "intent"]
        (undone,) = [line for line in lines if line["kind"] == "undone"]
        (event,) = [line for line in lines if line["kind"] == "event"]
        number = int(name.partition("#")[2])
        assert (intent["victim"], undone["victim"], event["what"]) == (name, name, f"kill {name}")
        assert intent["undo"] == {"op": "ensure_running", "service": "api", "args": {"replica": number}}
        assert record.seen().victim == name

    def test_a_service_with_one_container_has_no_number(self, lab):
        hit, record = self.hit(lab, 0, faults.kill("model-1"))

        assert (hit, record.seen().victim) == ({"model-1"}, "model-1")


class TestRevert:
    """The revert finds the container, also from another process."""

    def test_each_containers_own_settings_are_kept_and_restored(self, tmp_path):
        boxes = boxes_of(2, 1, 3)
        subject = SimpleNamespace(targets=("web",))
        runtime = runtime_on(boxes, tmp_path)
        runtime.subject = subject
        runtime._remember()
        runtime.aim("web", random.Random(1), 3)
        for box in boxes:
            box.attrs["HostConfig"] = {"Memory": 64 * 2**20}

        other = runtime_on(boxes, tmp_path)
        other._found = restrictions.read_as_found(tmp_path / "as_found.json")
        other._replicas.count(other._found)
        other.undo(Undo(op="ensure_memory", service="web", args={"replica": 3}))

        assert sorted(restrictions.read_as_found(tmp_path / "as_found.json")) == ["web#1", "web#2", "web#3"]
        assert {box.name: box.done for box in boxes} == {
            "shop-web-1": [],
            "shop-web-2": [],
            "shop-web-3": [(3 * 2**20, 3 * 2**20)],
        }

    def dead_run(self, tmp_path, monkeypatch, boxes, *undos):
        """The note of an attached run that died with these undos open."""
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        folder = tmp_path / "r"
        folder.mkdir()
        about = {"runtime": "compose", "owned": False, "owner": "1:2:boot", "project": "shop", "run": "r"}
        manifest = notes.note(
            RunManifest(**about, targets=("web",), journal=str(folder / "journal.jsonl"), directory=str(folder))
        )
        runtime = runtime_on(boxes, folder)
        runtime.subject = SimpleNamespace(targets=("web",))
        runtime._remember()
        notes.keep_as_found(manifest)
        for box in boxes:
            del box.labels["llmchaos.owner"]  # it is the user's stack
        with_journal = Journal(folder / "journal.jsonl")
        for number, undo in enumerate(undos):
            intend(with_journal, number, undo)
        with_journal.close()

        def found(*, filters, **_):
            """No box is a fault agent."""
            return [] if AGENT in filters.get("label", ()) else list(boxes)

        monkeypatch.setattr(
            attached.AttachedRuntime,
            "_new_client",
            lambda _: SimpleNamespace(containers=SimpleNamespace(list=found), close=lambda: None),
        )
        return manifest

    def test_the_cleanup_reverts_the_container_of_the_journal(self, tmp_path, monkeypatch):
        boxes = boxes_of(1, 2, 3)
        undos = [Undo(op=op, service="web", args={"replica": 2}) for op in ("ensure_running", "ensure_memory")]
        manifest = self.dead_run(tmp_path, monkeypatch, boxes, *undos)
        boxes[1].attrs["State"]["Running"] = False
        for box in boxes:
            box.attrs["HostConfig"] = {"Memory": 64 * 2**20}

        attached.heal(manifest, deadline_s=0)

        assert [box.done for box in boxes] == [[], [(2 * 2**20, 2 * 2**20), "start"], []]

    def test_the_cleanup_without_a_journal_restores_every_container(self, tmp_path, monkeypatch):
        boxes = boxes_of(1, 2)
        manifest = self.dead_run(tmp_path, monkeypatch, boxes)
        notes.intents_of(manifest).unlink(missing_ok=True)
        (tmp_path / "r" / "journal.jsonl").unlink()
        for box in boxes:
            box.attrs["State"]["Running"] = False

        with pytest.raises(HealFailed, match="its open faults in project shop are unknown"):
            attached.heal(manifest, deadline_s=0)

        assert [box.done for box in boxes] == [["start"], ["start"]]


def intend(journal, number, undo):
    note = lines.UndoNote(op=undo.op, service=undo.service, args=dict(undo.args))
    journal.write(lines.Intent(id=f"001#{number}", trial="001", step="inject", fault="kill", victim="web#2", undo=note))


def test_an_open_fault_of_a_journal_keeps_its_number(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    intend(journal, 1, Undo(op="ensure_running", service="web", args={"replica": 2}))
    journal.close()

    assert open_intents(journal.path).undos == (Undo(op="ensure_running", service="web", args={"replica": 2}),)


def test_the_state_of_a_scaled_service_is_that_of_the_container_that_is_hit(tmp_path):
    boxes = boxes_of(1, 2)
    boxes[1].attrs["State"]["Running"] = False
    runtime = runtime_on(boxes, tmp_path)
    runtime.subject = SimpleNamespace(targets=("web",))
    runtime._remember()

    runtime.aim("web", random.Random(1), 2)

    assert runtime.state("web") == runtime.states()["web"]
    assert not runtime.state("web").running
    assert runtime.state("web").identity == "shop-web-2"
