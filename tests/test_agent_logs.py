"""Logs of fault agents that leave."""

from types import SimpleNamespace

import pytest

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.runtime.docker import agent_container, sdk
from pytest_llmchaos.runtime.docker.agent_post import Post
from pytest_llmchaos.runtime.docker.compose import ComposeRuntime
from pytest_llmchaos.runtime.docker.sharing import AGENT

ARMED, REMOVED = b'{"event": "armed"}\n', b'{"event": "removed"}\n'


class Agent:
    """A container as the SDK shows it. Keeps the order of what is done to it."""

    def __init__(self, said=ARMED + REMOVED, *, target="model#2", ends=True):
        self.id = self.name = "agent"
        self.labels = {AGENT: target, agent_container.VICTIM: "victim"}
        self.said, self.ends, self.done = said, ends, []

    def kill(self, signal):
        self.done.append(signal)

    def wait(self, timeout):
        if not self.ends:
            raise TimeoutError(timeout)
        return {"StatusCode": 0}

    def logs(self, *, tail):
        if "remove" in self.done:
            raise sdk.errors.NotFound("no such container")
        self.done.append("logs")
        return self.said

    def remove(self, **_):
        self.done.append("remove")


class Client:
    """A Docker that lists these containers, and whose victim has ended."""

    def __init__(self, *agents):
        self.containers, self._agents = self, agents

    def list(self, **_):
        return list(self._agents)

    def get(self, _):
        raise sdk.errors.NotFound("no such container")

    def close(self):
        pass


@pytest.fixture
def kind(tmp_path):
    return agent_container.Kind(image="agent:1", project="shop", labels={}, logs=tmp_path / "run" / "logs")


@pytest.fixture
def log(tmp_path):
    """Log of one agent, in a run's folder."""
    (tmp_path / "run").mkdir()
    return tmp_path / "run" / "logs" / "fault-agent-model#2.txt"


def test_each_agent_of_a_target_adds_its_log_to_one_file(kind, log):
    for agent in (Agent(), Agent(), Agent(target="gateway")):
        agent_container.end(Client(), kind, agent)
        assert agent.done[-1] == "remove"

    assert log.read_bytes() == 2 * (ARMED + REMOVED)
    assert {one.name for one in log.parent.iterdir()} == {"fault-agent-gateway.txt", log.name}


def test_the_log_of_an_agent_that_hangs_is_kept_too(kind, log):
    agent_container.end(Client(), kind, Agent(ARMED, ends=False))

    assert log.read_bytes() == ARMED


def test_secrets_are_replaced(kind, log):
    agent_container.end(
        Client(), kind, Agent(b"refused: Authorization: Bearer sk-proj-abcdefghijklmnopqrstuv\n" + REMOVED)
    )

    assert b"abcdefghij" not in log.read_bytes()


def test_an_empty_log_leaves_no_file(kind, log):
    agent_container.keep_log(Agent(b""), kind.logs)

    assert not log.parent.exists()


def test_a_report_folder_that_was_removed_stays_so(kind):
    agent = Agent()

    agent_container.end(Client(), kind, agent)

    assert not kind.logs.parent.exists()
    assert agent.done[-1] == "remove"


def test_the_log_is_kept_when_the_service_restarts(kind, log):
    post = Post("model#2", kind, Client, lambda _: None, None)
    post._agent = Agent(ARMED)

    post._clear()

    assert log.read_bytes() == ARMED
    assert post._agent is None


def test_agents_that_are_in_the_way_at_the_end_of_the_stack_leave_their_logs(kind, log, monkeypatch):
    agent, runtime = Agent(ARMED), ComposeRuntime.__new__(ComposeRuntime)
    runtime.project, runtime._directory, runtime._labels = "shop", kind.logs.parent, {"llmchaos.owner": "me"}
    runtime._posts, runtime._client, runtime._reader = {}, Client(agent), None
    runtime.compose = SimpleNamespace(close=lambda: None)
    monkeypatch.setattr(ComposeRuntime, "keep_logs", lambda _: None)
    monkeypatch.setattr("pytest_llmchaos.runtime.docker.removal.remove_owned", lambda *_: agent.done.append("remove"))

    runtime.down()

    assert log.read_bytes() == ARMED
    assert agent.done == ["logs", "remove"]


def test_a_run_without_a_log_still_ends(kind, log, monkeypatch):
    log.parent.mkdir()
    log.mkdir()  # as a full disk: it cannot be written

    agent_container.end(Client(), kind, agent := Agent())

    assert agent.done[-1] == "remove"


def test_an_agent_that_ends_wrongly_is_refused_with_its_log(kind, log, monkeypatch):
    broom = Agent(b"no such table\n", ends=True)
    monkeypatch.setattr(broom, "wait", lambda timeout: {"StatusCode": 1})
    broom.start = lambda: None
    monkeypatch.setattr(agent_container, "running", lambda *_: SimpleNamespace(name="victim"))
    monkeypatch.setattr(agent_container.Kind, "create", lambda *_: broom)

    with pytest.raises(NotReady, match=r"may still be there \(status 1\): no such table"):
        agent_container.end(Client(), kind, Agent(ARMED))

    assert log.read_bytes() == ARMED + b"no such table\n"
