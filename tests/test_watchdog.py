"""Watchdog: detection of pytest's death and its cleanup."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.waiting import until

from pytest_llmchaos.cleanup import watchdog
from pytest_llmchaos.evidence.run_manifest import RunManifest
from pytest_llmchaos.host import identity
from pytest_llmchaos.runtime.docker import docker_cli

# Prints the pids of its watchdog and of a forked child, then ends in the given way.
PYTEST = """
import os, sys, time
from pathlib import Path
from pytest_llmchaos.cleanup import watchdog
from pytest_llmchaos.evidence.run_manifest import RunManifest
from pytest_llmchaos.host import identity
folder = sys.argv[1]
manifest = RunManifest(
    runtime="none", project="p", owner=identity.owner_label(), owned=True, journal=f"{folder}/none", directory=folder
)
dog = watchdog.start(manifest, Path(folder, "watchdog.log"))
child = os.fork()
if child == 0:
    time.sleep(60)
print(dog.pid, child, flush=True)
if sys.argv[2] == "dismisses":
    dog.dismiss()
    sys.exit(dog._process.returncode)
else:
    time.sleep(60)
"""


@pytest.fixture
def session(tmp_path):
    """Start a pytest with a forked child. Returns it and its watchdog's pid."""
    started = []

    def start(how):
        process = subprocess.Popen([sys.executable, "-c", PYTEST, str(tmp_path), how], stdout=subprocess.PIPE)
        dog, child = map(int, process.stdout.readline().split())
        started.extend([(process, child)])
        return process, dog

    yield start
    for process, child in started:
        process.kill()
        process.wait()
        process.stdout.close()
        os.kill(child, signal.SIGKILL)


def test_the_death_of_pytest_is_seen_while_a_forked_child_of_it_lives(session, tmp_path):
    process, dog = session("waits")

    process.kill()
    process.wait()

    until(lambda: not identity.process_started(dog), "the watchdog has done its work", 5)
    assert (tmp_path / "watchdog.log").read_text().splitlines()[-1] == "clean"


def test_a_goodbye_is_enough_while_a_forked_child_lives(session, tmp_path):
    process, dog = session("dismisses")

    assert process.wait(timeout=20) == 0, "dismiss() waited for the pipe's end, and killed the watchdog"
    assert not identity.process_started(dog)
    assert (tmp_path / "watchdog.log").read_text() == ""


def test_the_watchdog_uses_the_daemon_of_its_run_even_if_the_context_changes(tmp_path, monkeypatch):
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(docker_cli, "daemon", lambda: docker_cli.Daemon(host="unix:///chosen/docker.sock"))
    about = {"runtime": "compose", "project": "p", "owner": identity.owner_label(), "owned": True}
    manifest = RunManifest(**about, journal=str(tmp_path / "none"), directory=str(tmp_path))

    dog = watchdog.start(manifest, tmp_path / "watchdog.log")
    try:
        until(lambda: b"cleanup.watchdog" in Path(f"/proc/{dog.pid}/cmdline").read_bytes())
        environment = Path(f"/proc/{dog.pid}/environ").read_bytes().split(b"\0")
    finally:
        dog.dismiss()

    assert b"DOCKER_HOST=unix:///chosen/docker.sock" in environment


def test_a_pipe_that_ends_without_a_goodbye_is_a_death():
    read_fd, write_fd = os.pipe()
    os.close(write_fd)
    try:
        assert watchdog._ends_clean(read_fd, identity.owner_label()) is False
    finally:
        os.close(read_fd)


@pytest.fixture
def pipe():
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


@pytest.mark.parametrize("owner", ["{gone}", "{other}"], ids=["no such process", "another process of that number"])
def test_without_a_pidfd_the_start_time_identifies_the_process(monkeypatch, pipe, owner):
    with subprocess.Popen(["true"]) as process:
        process.wait()
    _, _, boot, namespace = identity.owner_label().split(":")
    named = {"gone": f"{process.pid}:5:{boot}:{namespace}", "other": f"{os.getpid()}:5:{boot}:{namespace}"}
    monkeypatch.setattr(watchdog, "LOOK_S", 0.01)

    assert watchdog._ends_clean(pipe[0], owner.format_map(named)) is False


def test_an_owner_in_doubt_is_waited_for_through_the_pipe(monkeypatch, pipe):
    looks = []

    def look(owner):
        looks.append(owner)
        if len(looks) == 3:
            os.write(pipe[1], watchdog.GOODBYE)
        return "unknown"

    monkeypatch.setattr(watchdog, "LOOK_S", 0.001)
    monkeypatch.setattr(watchdog, "liveness", look)

    assert watchdog._ends_clean(pipe[0], "x") is True
    assert looks == ["x"] * 3
