"""Faults on the wire of a user's stack, as a witness in that stack sees them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import closing

import docker
import pytest
from support import docker_agents, sessions
from support.stacks import BOOTSTRAP, ROOT, require
from support.waiting import until

from pytest_llmchaos.runtime.docker import agent_image, docker_cli

pytestmark = [pytest.mark.stack, pytest.mark.timeout(120)]

FILES = ROOT / "tests" / "support" / "outsider"
# What becomes of a chat of the witness.
SEEN = {"truncate": "truncated", "reset": "ConnectionResetError"}
# The gate has one of each, in a stack of the run and in one at work.
OTHER = pytest.mark.nightly("the other test has this fault, and test_fault_agent_on_docker ends agents of both stacks")


@pytest.fixture
def client():
    with closing(docker.DockerClient(base_url=docker_cli.docker_host(), timeout=20)) as made:
        yield made


@pytest.fixture
def stack(tmp_path):
    """A copy of the user's folder, and the images that this machine has for it."""
    require("sim")
    command = [sys.executable, str(BOOTSTRAP), "env", "--backend", "sim"]
    images = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    folder = tmp_path / "outsider"
    shutil.copytree(FILES, folder)
    (folder / "broken_wire.py").rename(folder / "test_broken_wire.py")
    for path in (tmp_path, folder):
        path.chmod(0o755)
    environment = {
        "OUTSIDER_IMAGE": images["LLMCHAOS_SERVICES_IMAGE"],
        "OUTSIDER_HAPROXY_IMAGE": images["LLMCHAOS_HAPROXY_IMAGE"],
    }
    return folder, environment


@pytest.fixture
def at_work(stack, client):
    """The same stack, started by its owner and used by the witness."""
    folder, environment = stack
    project = f"outsider{os.getpid()}"
    environment["COMPOSE_PROJECT_NAME"] = project

    def compose(*words):
        about = docker_cli.environment({**environment, "PWD": str(folder)})
        return docker_cli.run(["docker", "compose", *words], env=about, timeout_s=90, folder=folder)

    compose("up", "--detach", "--wait")
    (watcher,) = containers(client, project, "watcher")
    until(lambda: said_by(watcher.logs(), "chat"), "the witness is at work", 20)
    yield project
    compose("down", "--volumes", "--timeout", "1")


def containers(client, project, *services):
    """A project's containers, or those of some services."""
    found = client.containers.list(all=True, filters={"label": f"com.docker.compose.project={project}"})
    return [one for one in found if not services or one.labels["com.docker.compose.service"] in services]


def looks(client, project):
    """Everything of the containers that a run could change."""
    found = []
    for one in containers(client, project):
        state, networks = one.attrs["State"], one.attrs["NetworkSettings"]["Networks"]
        addresses = sorted((name, about["IPAddress"]) for name, about in networks.items())
        found.append((one.name, one.id, state["StartedAt"], state["Status"], one.attrs["RestartCount"], addresses))
    return sorted(found)


def run_in(folder, environment, *args):
    command = [sys.executable, "-m", "pytest", "-p", "no:randomly", "-p", "no:cacheprovider", *args]

    def run():
        env = {**os.environ, **environment}
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=100, check=False)
        return done.returncode, done.stdout + done.stderr

    return sessions.measured(folder / "reports", run, output_of=lambda ended: ended[1])


def said_by(log, kind):
    """Lines of the witness, behind a timestamp if the run kept them."""
    lines = [json.loads(line[line.index("{") :]) for line in log.decode().splitlines() if "{" in line]
    return [line for line in lines if kind in line]


def require_seen(reports, log, kind):
    """The witness met the fault, at one container, as long as it was in force.

    In a stack at work it has also met the faults of sessions that were disturbed and
    ran again, each at a container of its own.
    """
    (trial,) = sessions.run_json(reports)["trials"]
    assert (trial["verdict"], trial["fault"]) == ("held", f"{kind} brain")
    (fault,), (intent,), proofs = trial["undo"], sessions.of_kind(reports, "intent"), sessions.of_kind(reports, "proof")
    begin_s, end_s = intent["at_unix_s"], proofs[-1]["at_unix_s"]
    (run,) = sessions.of_kind(reports, "run")
    hit = [one for one in said_by(log, "chat") if one["chat"] != "whole" and one["began"] >= run["at_unix_s"]]

    assert {one["chat"] for one in hit} == {SEEN[kind]}
    assert len({one["to"] for one in hit}) == 1  # and no chat with the other container
    assert len(hit) >= 5
    assert all(begin_s <= one["at"] and one["began"] <= end_s for one in hit)
    counters = fault["counts"]["counters"]
    assert len(hit) < counters["hit"] <= counters["met"]  # clients of the load were hit too
    assert f"hit {counters['hit']:.0f} of {counters['met']:.0f} " in proofs[-1]["witness"]

    kept = said_by(log, "kept")
    assert sorted(one["name"] for one in kept if one["kept"] == "opened") == ["brain", "brain", "notes"]
    assert not [one for one in kept if one["kept"] == "broken"]
    assert len({one["to"] for one in kept if one["at"] > end_s}) == 3  # alive after the fault


def require_gone(client, reports):
    """Nothing with the label of the run is left, and the agents left their logs."""
    (run,) = (line["run"] for line in sessions.of_kind(reports, "run"))
    assert client.containers.list(all=True, filters={"label": f"llmchaos.run={run}"}) == []
    logs = (reports / "latest" / "logs").glob("fault-agent-brain*.txt")
    assert {one.name: one.read_text().count('"removed"') for one in logs} == {
        "fault-agent-brain#1.txt": 1,
        "fault-agent-brain#2.txt": 1,
    }


@pytest.mark.parametrize("kind", ["truncate", pytest.param("reset", marks=OTHER)])
def test_a_witness_in_a_stack_of_the_run_sees_the_fault_as_proven(stack, client, kind):
    folder, environment = stack

    code, said = run_in(folder, environment, "-k", kind)

    assert code == 0, said
    require_seen(folder / "reports", (folder / "reports" / "latest" / "logs" / "watcher.txt").read_bytes(), kind)
    require_gone(client, folder / "reports")
    assert sessions.leftovers(sessions.of_kind(folder / "reports", "stack")[0]["project"]) == []


@pytest.mark.parametrize("kind", ["reset", pytest.param("truncate", marks=OTHER)])
def test_a_witness_in_a_stack_at_work_sees_the_fault_as_proven_and_nothing_else(stack, at_work, client, kind):
    folder, environment = stack
    before = looks(client, at_work)
    brains, (watcher,) = containers(client, at_work, "brain"), containers(client, at_work, "watcher")

    code, said = run_in(folder, environment, "-k", kind, "-o", "llmchaos_attach=true", "--chaos-unleash")

    assert code == 0, said
    require_seen(folder / "reports", watcher.logs(), kind)
    require_gone(client, folder / "reports")
    assert looks(client, at_work) == before
    for brain in brains:
        assert "llmchaos" not in docker_agents.rules_of(brain, agent_image.agent_image(), labels={})
        assert brain.exec_run(["sh", "-c", "true"]).exit_code != 0  # as in an image without a shell
