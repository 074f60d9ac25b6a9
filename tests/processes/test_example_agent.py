"""The agent of examples/agents/openai_agents with a scripted model and desk."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from support.agents_world import STEPS, AgentProcess, World
from support.waiting import until

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.runtime.local import prerequisites

EXAMPLE = Path(__file__).parents[2] / "examples" / "agents" / "openai_agents"
WRITES = STEPS[1:]
pytestmark = [
    pytest.mark.nightly("test_lab_agents_process: the same contract and faults with the lab's own agents"),
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module")
def packages():
    try:
        return prerequisites.agents_packages(EXAMPLE / "requirements.lock")
    except NotReady as lacking:
        pytest.skip(str(lacking))


class ExampleAgent(AgentProcess):
    def __init__(self, world, state_dir, packages):
        super().__init__(world, state_dir, "example")
        self.tasks_file = state_dir / "tasks.sqlite"
        self._packages = packages

    def start(self):
        server = f"http://127.0.0.1:{self.world.port}"
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(self._packages), "PORT": str(self.port)}
        env |= {
            "MODEL": "m",
            "MODEL_URL": f"{server}/v1",
            "DESK_URL": f"{server}/mcp",
            "STATE_DIR": str(self._state_dir),
        }
        with (self._state_dir / "log").open("ab") as log:
            command = [sys.executable, "-S", str(EXAMPLE / "agent.py")]
            self.process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        self.world.kill = self.kill
        until(self.alive, f"the agent listens: {self._state_dir}/log", within_s=90)


@pytest.fixture(scope="module")
def agent(packages, tmp_path_factory):
    with World() as world, ExampleAgent(world, tmp_path_factory.mktemp("example"), packages) as process:
        yield process


# What the world does, the task's end, words of its error, and its effects.
ENDS = [
    ("healthy", {}, "disciplined", "completed", None, WRITES),
    ("lost answer", {"refund": ["lost"]}, "disciplined", "completed", None, WRITES),
    ("session gone", {"mail": ["gone"]}, "disciplined", "completed", None, WRITES),
    ("refused", {"refund": ["is_error"]}, "disciplined", "failed", "no such order", ["mail 17"]),
    ("runaway", {}, "runaway", "failed", "budget steps", WRITES),
    ("malformed", {}, "malformed", "failed", "Invalid JSON", []),
    ("parallel", {}, "parallel", "completed", None, WRITES),
]


def test_a_task_ends_as_its_calls_did_and_no_effect_is_doubled(agent):
    wrong = []
    for name, faults, manner, *expected in ENDS:
        agent.world.reset(**faults)
        agent.world.manner = manner
        state = agent.perform(name.replace(" ", "-"))
        seen = [state["status"], state["error"], agent.world.effects]
        words = expected[1]
        fits = seen[1] is None if words is None else words in (seen[1] or "")
        wrong += [] if fits and [seen[0], seen[2]] == [expected[0], expected[2]] else [(name, expected, seen)]

    assert wrong == []


def test_a_killed_agent_performs_its_task_again_without_a_second_effect(agent):
    for number, (tool, how) in enumerate([("refund", "kill"), ("refund", "kill_before"), ("mail", "kill")]):
        agent.world.reset(**{tool: [how]})
        assert agent.begin(f"killed-{number}").status_code == 202
        until(lambda: agent.process.poll() is not None, "the agent is killed")
        agent.start()

        assert agent.end(f"killed-{number}").json()["status"] == "completed", (tool, how)
        assert agent.world.effects == WRITES, (tool, how)


def test_the_contract_of_tasks(agent):
    agent.world.reset(refund=["hang"])

    assert agent.begin("held").status_code == 202
    assert agent.begin("held").status_code == 200
    until(lambda: "refund 17" in [step for step, _ in agent.world.calls], "the call is on its way")
    assert agent.client.delete("/tasks/held").status_code == 202
    assert agent.end("held").json()["status"] == "cancelled"
    assert agent.end("never").status_code == 404
    assert agent.world.effects == []


def rename(path, old, new):
    with closing(sqlite3.connect(path)) as rows:
        rows.execute(f"ALTER TABLE {old} RENAME TO {new}")


def test_a_task_that_could_not_be_saved_is_performed_when_it_is_sent_again(agent):
    agent.world.reset()
    rename(agent.tasks_file, "tasks", "away")
    refused = agent.begin("unsaved").status_code
    rename(agent.tasks_file, "away", "tasks")

    assert refused == 503
    assert agent.perform("unsaved")["status"] == "completed"
    assert agent.world.effects == WRITES


# A session with the desk that replaces a cancel by an error of its own.
BREAKING = """
import asyncio, contextlib, pathlib, sqlite3, sys
import agent

class Breaking(agent.Service):
    @contextlib.asynccontextmanager
    async def _desk(self):
        try:
            await asyncio.sleep(60)
            yield
        except asyncio.CancelledError:
            raise RuntimeError("the session broke") from None

async def main():
    store = agent.Store(pathlib.Path(sys.argv[1]))
    service = Breaking(store=store, model=None, desk_url="")
    for task_id, limit_s in (("cancelled", 60.0), ("late", 0.05)):
        agent.TASK_S = limit_s
        task, _ = service.accept(task_id, "x")
        await asyncio.sleep(0.01)
        if task_id == "cancelled":
            await asyncio.wait_for(service.cancel(task), 5)
        await asyncio.wait_for(task.ended.wait(), 5)
        print(task.status, task.error)
    agent.TASK_S = 60.0
    task, _ = service.accept("left", "x")
    await asyncio.sleep(0.01)
    store.save = full
    try:
        await asyncio.wait_for(service.cancel(task), 5)
    except sqlite3.Error as error:
        print(task.status, task.ended.is_set(), error, list(service._runs))
    del store.save
    for task_id in ("first", "second"):
        service.accept(task_id, "x")
        await asyncio.sleep(0.01)
    await asyncio.wait_for(service.close(), 5)
    print(list(service._runs), [task.status for task in store.all()])

def full(task):
    raise sqlite3.OperationalError("disk full")

asyncio.run(main())
"""


def test_a_cancel_that_the_sdk_answers_with_an_error_ends_the_task(packages, tmp_path):
    done = subprocess.run(
        [sys.executable, "-S", "-c", BREAKING, str(tmp_path / "tasks.sqlite")],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join([str(packages), str(EXAMPLE)])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.stdout.splitlines() == [
        "cancelled None",
        "failed budget seconds exceeded: 0.05 s. RuntimeError: the session broke",
        "cancelled True disk full []",
        "[] ['cancelled', 'failed', 'running', 'running', 'running']",
    ], done.stderr


BAD_BODIES = [
    b"{",
    b"[]",
    b'{"id": "bad"}',
    b'{"id": "bad", "input": "\\ud800"}',
    b"\xff",
    b'{"id": null, "input": null}',
    b'{"id": "bad", "input": 1}',
    b'{"id": "", "input": "x"}',
    b'{"id": "a/bad", "input": "x"}',
]


def test_a_bad_request_is_refused_and_leaves_no_task(agent):
    assert [agent.client.post("/tasks", content=body).status_code for body in BAD_BODIES] == [400] * len(BAD_BODIES)
    assert agent.end("bad").status_code == 404
    agent.world.reset()
    agent.perform("good")
    assert agent.end("good", "x").status_code == 400
