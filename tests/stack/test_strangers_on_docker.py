"""A stranger's compose file runs as it is, next to its owner's stack."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from support import sessions
from support.stacks import BOOTSTRAP, ROOT, require
from support.waiting import until

from pytest_llmchaos.runtime.docker import docker_cli

pytestmark = [pytest.mark.stack, pytest.mark.timeout(280)]

FILES = ROOT / "tests" / "support" / "stranger"


@pytest.fixture
def stack(tmp_path):
    """A copy of the stranger's folder, and the image that this machine has for it."""
    require("sim")
    command = [sys.executable, str(BOOTSTRAP), "env", "--backend", "sim"]
    images = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    folder = tmp_path / "stranger's stack"
    shutil.copytree(FILES, folder)
    (folder / "frozen_gateway.py").rename(folder / "test_frozen_gateway.py")
    for path in (tmp_path, folder):
        path.chmod(0o755)
    return folder, {"STRANGER_IMAGE": images["LLMCHAOS_SERVICES_IMAGE"]}


@pytest.fixture
def at_work(stack):
    """The same stack, which its owner has started and works with."""
    folder, environment = stack
    project = f"stranger{os.getpid()}"

    def compose(*words):
        command = ["docker", "compose", "-p", project, *words]
        about = docker_cli.environment({**environment, "PWD": str(folder)})
        return docker_cli.run(command, env=about, timeout_s=90, folder=folder)

    compose("up", "--detach")
    running = lambda: compose("ps", "--status", "running", "--services").split()  # noqa: E731 - read again each time
    until(lambda: "pull" not in running(), "the job that nothing waits for ended", 20)
    yield project
    compose("down", "--volumes", "--timeout", "1")


def looks(project):
    """Containers, networks and volumes of a project, with what a run could change."""
    chosen = f"label=com.docker.compose.project={project}"
    found = []
    for kind, shown in (
        ("container", "{{.Name}} {{.Id}} {{.State.StartedAt}} {{.State.Paused}} {{.RestartCount}}"),
        ("network", "{{.Name}} {{.Id}} {{len .Containers}}"),
        ("volume", "{{.Name}} {{.CreatedAt}}"),
    ):
        names = docker_cli.run(
            ["docker", kind, "ls", "--quiet", "--filter", chosen, *(["--all"] * (kind == "container"))]
        ).split()
        found += docker_cli.run(["docker", kind, "inspect", "--format", shown, *sorted(names)]).splitlines()
    return sorted(found)


def test_a_strangers_file_runs_unchanged_next_to_its_owners_stack(stack, at_work, tmp_path):
    folder, environment = stack
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    owners = looks(at_work)

    command = [sys.executable, "-m", "pytest", "-p", "no:randomly", "-p", "no:cacheprovider"]

    def run():
        return subprocess.run(
            [*command, "-c", str(folder / "pyproject.toml"), f"--rootdir={folder}", str(folder)],
            cwd=tmp_path,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=250,
            check=False,
        )

    done = sessions.measured(folder / "reports", run, output_of=lambda ended: ended.stdout)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout
    gateway, batch = sessions.of_kind(folder / "reports", "intent")
    number = batch["undo"]["args"]["replica"]
    assert (gateway["victim"], batch["victim"]) == ("gateway", f"batch#{number}")
    assert number in {1, 2}
    project = sessions.of_kind(folder / "reports", "stack")[0]["project"]
    assert sessions.leftovers(project) == []
    assert looks(at_work) == owners
    assert {path: path.read_bytes() for path in before} == before
    written = {path.relative_to(folder).parts[0] for path in folder.rglob("*") if path not in before}
    assert written <= {"reports", "__pycache__", "db"}
