"""Deaths in a fault: full disks, Docker restarts, workers, timers."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import sessions, tiny_stack
from support.dying import BESIDE_OTHERS
from support.gone import LATEST_S, seconds_until_gone
from support.second_daemon import second_daemon
from support.stacks import require
from support.tiny_stack import LONG, Engine, clean_after_s
from support.waiting import until

from pytest_llmchaos.runtime.docker import docker_cli

pytestmark = [pytest.mark.stack, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def image():
    require("sim")
    return tiny_stack.image()


def make(folder, image, **more):
    return tiny_stack.make(folder, image, conftest=BESIDE_OTHERS, **more)


@pytest.fixture
def engine():
    made = Engine()
    yield made
    made.close()


@pytest.fixture
def tiny(image, tmp_path):
    """A scenario whose pause lasts until something else ends it."""
    return make(tmp_path / "tiny", image, fault="pause", more=LONG)


def in_force(reports, child):
    """Wait until the fault is proven. Returns the line that names the stack."""

    def proven():
        assert child.poll() is None, sessions.said(reports)
        return sessions.of_kind(reports, "proof")

    until(proven, "the fault was proven", 60)
    return sessions.of_kind(reports, "stack")[0]


@contextlib.contextmanager
def ended(child):
    """End the session with the test in any case."""
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def no_noise(said):
    """One clear error, without a traceback or pytest internals."""
    assert "Traceback" not in said, said
    assert "INTERNALERROR" not in said, said


def command_of(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_a_worker_that_crashes_takes_its_stack_with_it(tiny, engine):
    with ended(tiny.start("-p", "xdist", "-n", "1", "--max-worker-restart=0")) as child:
        stack = in_force(tiny.reports, child)
        worker = int(stack["owner"].split(":")[0])
        assert worker != child.pid
        os.kill(worker, signal.SIGKILL)
        died_s = time.monotonic()
        seconds_until_gone(lambda: engine.left(stack["project"]), died_s)
        child.wait(timeout=30)
        clean_after_s(tiny, stack["project"], engine, died_s, gone_s=LATEST_S)

    said = (tiny.reports / "output.txt").read_text()
    assert child.returncode == 1, said
    assert "llmchaos: worker gw0 died; its watchdog removes its stack" in said


def kill_watchdog(tiny):
    (watchdog,) = (
        pid for pid in tiny_stack.pids_of(tiny.folder) if b"pytest_llmchaos.cleanup.watchdog" in command_of(pid)
    )
    os.kill(watchdog, signal.SIGKILL)


def test_orphans_of_a_crashed_worker_without_a_watchdog_are_swept_at_the_end(tiny, engine):
    with ended(tiny.start("-p", "xdist", "-n", "1", "--max-worker-restart=0")) as child:
        stack = in_force(tiny.reports, child)
        kill_watchdog(tiny)
        os.kill(int(stack["owner"].split(":")[0]), signal.SIGKILL)
        child.wait(timeout=30)

    assert engine.left(stack["project"]) == []


def heal(*options):
    command = [sys.executable, "-m", "pytest_llmchaos.cli", "heal", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == ("--dry-run" in options), done.stderr
    return done.stdout


def test_orphans_without_a_watchdog_are_removed_by_the_command(tiny, engine):
    with ended(tiny.start()) as child:
        project = in_force(tiny.reports, child)["project"]
        kill_watchdog(tiny)
    left = engine.left(project)
    assert left

    assert f"would remove {project}" in heal("--dry-run")
    assert engine.left(project) == left

    assert f"removing {project}" in heal()
    assert engine.left(project) == []


def test_a_timer_that_ends_the_process_at_once_leaves_nothing(tiny, engine):
    with ended(tiny.start("--timeout=12", "--timeout-method=thread")) as child:
        stack = in_force(tiny.reports, child)
        child.wait(timeout=30)
        clean_after_s(tiny, stack["project"], engine, time.monotonic())

    assert child.returncode == 1
    assert "Timeout" in (tiny.reports / "output.txt").read_text()
    assert sessions.of_kind(tiny.reports, "undone") == []


def test_two_parallel_sessions_leave_each_other_alone(image, tmp_path, engine):
    first, second = (make(tmp_path / name, image, fault="pause", more=LONG) for name in ("first", "second"))
    with ended(first.start()) as living:
        stack = in_force(first.reports, living)
        before = engine.looks(stack["project"])
        with ended(second.start()) as waiting:
            # Its stack is started once no other session measures.
            until(lambda: f"process {living.pid} " in sessions.said(second.reports), "it waited", 60)
            assert sessions.of_kind(second.reports, "stack_up") == []
            assert engine.looks(stack["project"]) == before
            waiting.send_signal(signal.SIGINT)
            waiting.wait(timeout=30)
        assert engine.looks(stack["project"]) == before

        assert stack["project"] not in heal()
        assert engine.looks(stack["project"]) == before
        living.send_signal(signal.SIGINT)
        living.wait(timeout=30)
    assert [line["ok"] for line in sessions.of_kind(first.reports, "undone")] == [True]
    assert engine.left(stack["project"]) == []


@pytest.mark.sampled
@pytest.mark.parametrize("fault", ["pause", "partition"])
def test_a_target_removed_by_another_process_ends_the_trial_without_a_verdict(image, tmp_path, engine, fault):
    tiny = make(tmp_path / "tiny", image, fault=fault, more=", settle_within_s=3, fault_s=3")
    tiny.scenario("later", *tiny_stack.FAULTS["kill"])
    with ended(tiny.start()) as child:
        stack = in_force(tiny.reports, child)
        docker_cli.run(["docker", "rm", "--force", f"{stack['project']}-desk-1"])
        child.wait(timeout=60)

    said = (tiny.reports / "output.txt").read_text()
    assert child.returncode == 1, said
    no_noise(said)
    assert (
        f"NoVictim: desk was removed by another process while {fault} was in force: nothing is left to revert" in said
    )
    assert "desk was removed by another process, so the stack is incomplete" in said
    assert [line["ok"] for line in sessions.of_kind(tiny.reports, "undone")] == [True]
    assert [trial["verdict"] for trial in sessions.run_json(tiny.reports)["trials"]] == ["invalid", "invalid"]
    assert engine.left(stack["project"]) == []


@pytest.fixture
def disk(tmp_path):
    """A small file system for the evidence."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    folder = tmp_path / "tiny" / "disk"
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk):
    fill_file(disk / "filler", b"\0" * 4096)
    assert os.statvfs(disk).f_bavail == 0


def fill_file(path, with_what=b"\n"):
    with contextlib.suppress(OSError), path.open("ab", buffering=0) as file:
        while True:
            file.write(with_what)


@pytest.mark.sampled
@pytest.mark.parametrize("full", ["journal", "samples"])
def test_a_disk_that_fills_up_in_a_fault_is_one_clear_error_and_all_is_reverted(image, tmp_path, disk, engine, full):
    tiny = make(tmp_path / "tiny", image, fault="pause", more=", settle_within_s=3, fault_s=3")
    tiny.scenario("later", *tiny_stack.FAULTS["kill"])
    with ended(tiny.start(f"--chaos-report={disk}")) as child:
        stack = in_force(disk, child)
        fill(disk)
        if full == "journal":  # else the rest of its last block has room for a few lines
            (journal,) = disk.glob("2*/journal.jsonl")
            fill_file(journal)
        child.wait(timeout=60)

    said = (tiny.reports / "output.txt").read_text()
    assert child.returncode not in {0, 2}, said
    no_noise(said)
    told = {
        "journal": r"EvidenceLost: the line '\w+' cannot be written to .*journal.jsonl: No space left on device",
        "samples": r"EvidenceLost: the clients' samples cannot be written to .*: its disk is full",
    }
    assert re.search(told[full], said), said
    assert len(re.findall(r"^ERROR ", said, flags=re.MULTILINE)) == 1, said
    assert "evidence lost: the session stops, because its journal or samples cannot be written" in said
    assert "llmchaos: the journal is incomplete" in said or full == "samples"
    assert "the report cannot be written" in said
    assert engine.left(stack["project"]) == []
    assert tiny_stack.processes_of(tiny.folder) == []


def test_a_full_disk_does_not_stop_the_watchdog(disk, tiny, engine):
    with ended(tiny.start(f"--chaos-report={disk}")) as child:
        stack = in_force(disk, child)
        fill(disk)
    died_s = time.monotonic()

    clean_after_s(tiny, stack["project"], engine, died_s)


def compose(tiny, *words):
    command = ["docker", "compose", "-f", str(tiny.folder / "compose.yaml"), *words]
    return docker_cli.run(command, env=docker_cli.environment(tiny.environment), timeout_s=90)


@pytest.fixture
def taken_over(image, tmp_path, engine):
    """A stack of another owner, a scenario that kills its desk, and a port taker."""
    tiny = make(tmp_path / "tiny", image, fault="kill", more=", repair_within_s=3", attach=True)
    project = f"tinydesk{os.getpid()}"
    tiny.environment.update(COMPOSE_PROJECT_NAME=project, TINY_DESK_PORT="29330")
    compose(tiny, "up", "--detach", "--wait")
    yield tiny, project
    compose(tiny, "down", "--volumes", "--timeout", "0")


def take_port(port):
    """Listen on the dead desk's port, so Docker cannot start it."""

    def taken():
        taker = socket.socket()
        taker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taker.bind(("127.0.0.1", port))
        except OSError:
            taker.close()
            return None
        taker.listen()
        return taker

    return until(taken, f"port {port} was free", 5)


def refused(container):
    """Docker's error for its last attempt to start the container."""
    return docker_cli.run(["docker", "inspect", "--format", "{{.State.Error}}", container]).strip()


def test_a_revert_that_docker_refuses_ends_the_session_and_names_the_command(taken_over, engine):
    tiny, project = taken_over
    tiny.scenario("later", *tiny_stack.FAULTS["pause"])
    before = engine.looks(project)
    with ended(tiny.start("--chaos-unleash")) as child:
        in_force(tiny.reports, child)
        taker = take_port(29330)
        begin_s = time.monotonic()
        child.wait(timeout=60)
        tried_s = time.monotonic() - begin_s

    said = (tiny.reports / "output.txt").read_text()
    assert child.returncode == 1, said
    no_noise(said)
    assert tried_s >= 15, "it was not retried until the deadline"
    assert f"HealFailed: could not revert ensure_running on desk of {project} within 15 s" in said
    assert "run `llmchaos heal`" in said
    assert "stopping after" in said or "heal_failed:" in said
    trials = sessions.run_json(tiny.reports)["trials"]
    assert [(trial["verdict"], trial["healed"]) for trial in trials] == [("heal_failed", False)]
    assert engine.looks(project) != before

    kill_watchdog(tiny)  # else it is faster than the command
    taker.close()

    assert f"removing open faults of {project}" in heal()
    assert engine.looks(project) == before


def test_a_revert_that_works_at_a_later_attempt_is_no_failure(taken_over, engine):
    tiny, project = taken_over
    before = engine.looks(project)
    with ended(tiny.start("--chaos-unleash")) as child:
        stack = in_force(tiny.reports, child)
        assert stack["project"] == project
        with contextlib.closing(take_port(29330)):
            until(lambda: refused(f"{project}-desk-1"), "the daemon refused an undo", 30)
        child.wait(timeout=60)

    said = (tiny.reports / "output.txt").read_text()
    assert "HealFailed" not in said
    assert [line["ok"] for line in sessions.of_kind(tiny.reports, "undone")] == [True]
    assert engine.looks(project) == before


@pytest.fixture(scope="module")
def daemon(image, tmp_path_factory):
    with second_daemon(tmp_path_factory.mktemp("daemon")) as made:
        made.load(image, *tiny_stack.judge_images(image).values())
        yield made


@pytest.mark.sampled
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_a_docker_restart_in_a_fault_is_waited_for_and_leaves_nothing(image, tmp_path, daemon, number):
    tiny = make(tmp_path / "tiny", image, fault="pause", more=", settle_within_s=3, fault_s=2")
    tiny.environment["DOCKER_HOST"] = daemon.host
    with ended(tiny.start()) as child:
        stack = in_force(tiny.reports, child)
        daemon.end(number)
        daemon.start()
        child.wait(timeout=90)

    said = (tiny.reports / "output.txt").read_text()
    engine = Engine(daemon.host)
    assert child.returncode == 1, said
    no_noise(said)
    assert sessions.run_json(tiny.reports)["trials"][0]["verdict"] in {"invalid", "heal_failed"}
    assert engine.left(stack["project"]) == []
    assert tiny_stack.processes_of(tiny.folder) == []


def test_a_run_that_dies_while_docker_is_down_is_removed_once_it_is_back(image, tmp_path, daemon):
    tiny = make(tmp_path / "tiny", image, fault="pause", more=LONG)
    tiny.environment["DOCKER_HOST"] = daemon.host
    with ended(tiny.start()) as child:
        stack = in_force(tiny.reports, child)
        daemon.end()
    until(lambda: "not clean yet" in watchdogs_log(tiny), "the watchdog met a daemon that does not answer", 10)
    daemon.start()
    engine = Engine(daemon.host)

    clean_after_s(tiny, stack["project"], engine, time.monotonic(), gone_s=5)


def watchdogs_log(tiny):
    return "".join(path.read_text() for path in tiny.reports.glob("2*/watchdog.log"))
