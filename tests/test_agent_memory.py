"""Faults that outlive their agent, and its image."""

import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.waiting import until

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.runtime.docker import agent_image, agent_memory
from pytest_llmchaos.runtime.docker.agent_memory import Memory
from pytest_llmchaos.runtime.docker.agent_post import Post

START = {"do": "start", "fault": {"kind": "flaky", "lease_s": 60, "seed": 1, "status": 503}}


class Agent:
    """An agent that counts its ids from 1, with hits that the test sets."""

    def __init__(self, *, refuses: str = "") -> None:
        self.faults: dict[str, dict] = {}
        self.asked: list[dict] = []
        self.refuses = refuses

    def __call__(self, asked):
        self.asked.append(dict(asked))
        if asked["do"] == "start":
            if self.refuses:
                return {"error": self.refuses}
            fault = asked["fault"]
            id_ = f"f{len(self.faults) + 1}"
            self.faults[id_] = {
                "id": id_,
                "kind": fault["kind"],
                "state": "active",
                "lease_s": fault["lease_s"],
                "left_s": fault["lease_s"],
                "counters": {"met": 0, "hit": 0},
            }
            return {"ok": dict(self.faults[id_])}
        if asked["do"] == "end":
            if asked["id"] not in self.faults:
                return {"error": "no such fault"}
            self.faults[asked["id"]] |= {"state": "ended", "left_s": 0.0}
            return {"ok": dict(self.faults[asked["id"]])}
        if asked["do"] == "wait":
            return {"ok": dict(self.faults[asked["id"]])}
        return {"ok": {"at_unix_s": time.time(), "faults": [dict(one) for one in self.faults.values()]}}

    def hit(self, id_, times):
        self.faults[id_]["counters"] = {"met": times, "hit": times}


def test_a_fault_keeps_its_start_and_its_first_hit_in_the_next_agent():
    memory, first, second = Memory(), Agent(), Agent()
    memory.ask(first, START)
    first.faults["f1"] |= {"started_unix_s": 10.0, "hit_unix_s": None}
    memory.ask(first, {"do": "list"})
    memory.put_back(second)
    second.faults["f1"] |= {"started_unix_s": 20.0, "hit_unix_s": 21.0}

    hit = faults_of(memory, second)["f1"]
    assert (hit["started_unix_s"], hit["hit_unix_s"]) == (10.0, 21.0)
    second.faults["f1"] |= {"hit_unix_s": 30.0}
    assert faults_of(memory, second)["f1"]["hit_unix_s"] == 21.0


def faults_of(memory, agent):
    return {one["id"]: one for one in memory.ask(agent, {"do": "list"})["ok"]["faults"]}


def test_a_fault_keeps_its_id_and_counts_in_the_next_agent_for_the_rest_of_its_lease():
    memory, first, second = Memory(), Agent(), Agent()
    id_ = memory.ask(first, START)["ok"]["id"]
    first.hit(id_, 3)
    faults_of(memory, first)

    assert memory.put_back(second) == []
    second.hit("f1", 2)

    (state,) = faults_of(memory, second).values()
    assert (state["id"], state["state"], state["counters"]) == (id_, "active", {"met": 5, "hit": 5})
    (again,) = second.asked[:1]
    assert again["fault"] == {**START["fault"], "lease_s": pytest.approx(60, abs=5)}
    assert again["fault"]["lease_s"] < 60


def test_ids_of_two_agents_do_not_meet():
    memory, first, second = Memory(), Agent(), Agent()
    old = memory.ask(first, START)["ok"]["id"]
    memory.ask(first, {"do": "end", "id": old})
    memory.put_back(second)
    new = memory.ask(second, START)["ok"]["id"]

    assert second.faults.keys() == {"f1"}
    assert new != old
    states = faults_of(memory, second)
    assert {id_: one["state"] for id_, one in states.items()} == {old: "ended", new: "active"}

    memory.ask(second, {"do": "end", "id": new})

    assert second.faults["f1"]["state"] == "ended"
    assert faults_of(memory, second)[new]["state"] == "ended"


def test_while_no_agent_is_there_faults_are_listed_and_ended_but_not_started():
    memory, first, second = Memory(), Agent(), Agent()
    id_ = memory.ask(first, START)["ok"]["id"]

    assert memory.without_agent({"do": "list"})["ok"]["faults"][0]["state"] == "active"
    assert memory.without_agent(START) is None
    assert memory.without_agent({"do": "end", "id": id_})["ok"]["state"] == "ended"
    assert memory.without_agent({"do": "list"})["ok"]["faults"][0]["state"] == "ended"

    memory.put_back(second)
    assert second.asked == []


def test_faults_that_no_agent_performed_for_too_long_have_ended():
    memory, second = Memory(), Agent()
    memory.ask(Agent(), START)

    memory.end_all()

    assert memory.without_agent({"do": "list"})["ok"]["faults"][0]["state"] == "ended"
    assert memory.put_back(second) == []
    assert second.asked == []


@pytest.mark.parametrize(
    ("away_s", "is_down", "started", "lost"),
    [(6, False, "noon", True), (3, False, "noon", False), (6, True, "noon", False), (6, False, "one", False)],
    ids=["too long", "a moment", "its container is down", "its container was restarted"],
)
def test_an_agent_is_lost_if_it_stays_away_from_a_container_that_runs(away_s, is_down, started, lost):
    post = Post("web", None, lambda: None, lambda _: None, None)
    post._is_down, post._armed_at, post._started = is_down, "noon", started
    post._away_s = time.monotonic() - away_s

    assert post._was_lost() is lost


def test_an_end_is_idempotent_and_an_unknown_id_is_for_the_agent_to_refuse():
    memory, agent = Memory(), Agent()
    id_ = memory.ask(agent, START)["ok"]["id"]

    ends = [memory.ask(agent, {"do": "end", "id": id_})["ok"]["state"] for _ in range(2)]

    assert ends == ["ended", "ended"]
    assert memory.ask(agent, {"do": "end", "id": "f9"}) == {"error": "no such fault"}


def test_a_lease_that_ran_out_is_not_put_back():
    memory, first, second = Memory(), Agent(), Agent()
    memory.ask(first, {**START, "fault": {**START["fault"], "lease_s": 0.01}})
    until(lambda: memory.without_agent({"do": "list"})["ok"]["faults"][0]["state"] == "ended", "the lease runs out")

    assert memory.put_back(second) == []
    assert second.asked == []
    (state,) = memory.without_agent({"do": "list"})["ok"]["faults"]
    assert (state["state"], state["left_s"]) == ("ended", 0.0)


def test_what_an_agent_refuses_is_no_fault_and_is_named_if_it_was_one():
    memory = Memory()
    assert memory.ask(Agent(refuses="no such kind"), START) == {"error": "no such kind"}
    assert memory.without_agent({"do": "list"})["ok"]["faults"] == []

    memory.ask(Agent(), START)
    assert memory.put_back(Agent(refuses="no such kind")) == ["flaky: no such kind"]


def test_a_fault_that_the_next_agent_lacks_can_be_ended_and_does_not_return():
    memory, fresh = Memory(), Agent()
    id_ = memory.ask(Agent(), START)["ok"]["id"]

    assert memory.ask(fresh, {"do": "end", "id": id_})["ok"]["state"] == "ended"
    assert memory.put_back(fresh) == []
    assert fresh.faults == {}


def test_a_fault_that_an_agent_refused_counts_as_ended():
    memory, agent = Memory(), Agent()
    id_ = memory.ask(Agent(), START)["ok"]["id"]
    memory.put_back(Agent(refuses="no such kind"))

    assert memory.ask(agent, {"do": "end", "id": id_})["ok"]["state"] == "ended"
    assert agent.asked == []


def test_a_wait_is_for_the_agents_own_id_and_a_held_message_is_never_held_again():
    memory, first, second = Memory(), Agent(), Agent()
    hold = {"do": "start", "fault": {**START["fault"], "kind": "hold"}}
    memory.ask(first, START)
    memory.put_back(second)
    id_ = memory.ask(second, hold)["ok"]["id"]

    assert memory.ask(second, {"do": "wait", "id": id_, "deadline_s": 2})["ok"]["id"] == id_
    assert second.asked[-1] == {"do": "wait", "id": "f2", "deadline_s": 2}

    third = Agent()
    assert memory.put_back(third) == []
    assert [one["kind"] for one in third.faults.values()] == ["flaky"]
    assert memory.ask(third, {"do": "wait", "id": id_, "deadline_s": 2})["ok"]["state"] == "ended"
    assert memory.without_agent({"do": "wait", "id": id_})["ok"]["state"] == "ended"


@given(st.lists(st.sampled_from(["start", "end", "agent"]), max_size=12))
def test_after_any_history_active_faults_are_those_that_were_not_ended(history):
    memory, agent, active = Memory(), Agent(), []
    for step in history:
        if step == "start":
            active.append(memory.ask(agent, START)["ok"]["id"])
        elif step == "end" and active:
            memory.ask(agent, {"do": "end", "id": active.pop()})
        elif step == "agent":
            agent = Agent()
            memory.put_back(agent)

    states = faults_of(memory, agent)

    assert {id_ for id_, one in states.items() if one["state"] == "active"} == set(active)
    assert sum(one["state"] == "active" for one in agent.faults.values()) == len(active)
    assert agent_memory.Memory().without_agent({"do": "list"})["ok"]["faults"] == []


# The image.


@pytest.fixture
def bootstrap(tmp_path, monkeypatch):
    """A set-up that the test writes."""
    monkeypatch.delenv(agent_image.VARIABLE, raising=False)
    monkeypatch.setattr(agent_image, "stack_dir", lambda: tmp_path)
    return tmp_path / "bootstrap.py"


def test_the_image_is_the_one_of_the_set_up(bootstrap):
    bootstrap.write_text("import sys; assert sys.argv[1:] == ['agent', '--show']; print('llmchaos/fault-agent:1')")

    assert agent_image.agent_image() == "llmchaos/fault-agent:1"


def test_an_image_that_is_missing_is_named_with_the_command_that_builds_it(bootstrap):
    bootstrap.write_text("import sys; sys.exit('expected the image of the fault agent, which the daemon lacks')")

    with pytest.raises(NotReady) as refused:
        agent_image.agent_image()

    assert str(refused.value) == (
        f"the image of the fault agent is missing: run `{sys.executable} {bootstrap} agent`, which takes a minute once"
    )


def test_a_set_up_that_fails_is_quoted(bootstrap):
    bootstrap.write_text("import sys; sys.exit('Docker does not answer')")

    with pytest.raises(NotReady, match=r"is missing \(Docker does not answer\): run"):
        agent_image.agent_image()


def test_the_environment_may_name_the_image(monkeypatch):
    monkeypatch.setenv(agent_image.VARIABLE, "mirror/agent:2")
    monkeypatch.setattr(agent_image.docker_cli, "has_image", lambda name: name == "mirror/agent:2")

    assert agent_image.agent_image() == "mirror/agent:2"
