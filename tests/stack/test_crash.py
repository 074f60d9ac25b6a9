"""Cleanup of a run that dies or is cancelled in a fault."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest
from support import sessions
from support.gone import seconds_until_gone
from support.stacks import require
from support.tiny_stack import Engine
from support.waiting import until

from pytest_llmchaos.host.identity import process_started
from pytest_llmchaos.runtime.docker import docker_cli

pytestmark = pytest.mark.stack


@pytest.fixture
def bystander():
    """A foreign container next to the run's own, with a similar name."""
    require("sim")
    image = docker_cli.run(
        ["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "llmchaos/services"]
    ).split()[0]
    name = f"llmchaos-bystander-{os.getpid()}"
    docker_cli.run(["docker", "run", "--detach", "--name", name, "--entrypoint", "sleep", image, "600"])
    yield name
    docker_cli.run(["docker", "rm", "--force", name])


def state_of(container):
    return docker_cli.run(
        ["docker", "inspect", "--format", "{{.State.Running}} {{.State.Paused}} {{.State.StartedAt}}", container]
    )


def test_sigkill_in_a_fault_leaves_only_a_report(tmp_path, bystander):
    before = state_of(bystander)
    child = sessions.start(tmp_path, "scenarios", "-k", "kill_api", "--chaos-backend=sim")
    try:
        until(lambda: sessions.of_kind(tmp_path, "proof"), "the fault was proven", 90)
        stack = sessions.of_kind(tmp_path, "stack")[0]
        load = sessions.of_kind(tmp_path, "process")[0]
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    killed = time.monotonic()

    with contextlib.closing(Engine()) as engine:
        project = stack["project"]
        seconds_until_gone(lambda: engine.left(project), killed, last_start_s=lambda: engine.last_start_s(project))
    until(lambda: process_started(load["pid"]) != load["started"], "the load generator was gone", 1)
    assert state_of(bystander) == before

    directory = next(tmp_path.glob("2*"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest_llmchaos.cli", "report", str(directory)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    trial = sessions.run_json(tmp_path)["trials"][0]
    assert trial["verdict"] == "invalid"
    assert "ended before" in trial["reason"]


@pytest.mark.nightly("test_deaths cancels a session on a small stack, test_local_runtime the lab by either signal")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_cancelled_run_reverts_its_fault_and_removes_its_stack(tmp_path, number):
    require("sim")
    child = sessions.start(tmp_path, "scenarios", "-k", "kill_api", "--chaos-backend=sim")
    try:
        until(lambda: sessions.of_kind(tmp_path, "proof"), "the fault was proven", 90)
        stack = sessions.of_kind(tmp_path, "stack")[0]
        child.send_signal(number)
        child.wait(timeout=30)
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()

    assert sessions.leftovers(stack["project"]) == []
    assert sessions.of_kind(tmp_path, "undone")[0]["ok"] is True
    assert child.returncode == 2
