"""Processes under supervisord: acts, timed events, cleanup."""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import local_world
from support.local_world import DEAF, PARENT, world
from support.waiting import until

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.host import identity
from pytest_llmchaos.runtime.local import cleanup
from pytest_llmchaos.runtime.local.process_groups import group_members
from pytest_llmchaos.runtime.local.supervisord_config import Process

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.local_world import World


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


def test_a_killed_service_is_seen_dead_at_once_with_its_exit_code_and_stays_down(lab: World) -> None:
    lab.start(lab.process("api"))
    begin = time.time()

    assert lab.control.call("kill", "api", "SIGKILL")
    until(lambda: lab.times("die"), "the death in the events")

    assert lab.events("api") == [("start", {}), ("kill", {"signal": "9"}), ("die", {"exitCode": "137"})]
    assert begin <= lab.times("kill")[0] <= lab.times("die")[0] <= time.time()
    seen = lab.control.inspect()["api"]
    assert (seen.running, seen.pid, seen.exit_code) == (False, 0, 137)


def test_a_death_is_recorded_at_once_and_not_one_loop_later(lab: World) -> None:
    lab.start(lab.process("api"))
    late_s = []
    for _ in range(5):
        lab.control.call("kill", "api", "SIGKILL")
        lab.control.wait_dead("api")
        late_s.append(lab.times("die")[-1] - lab.times("kill")[-1])
        lab.control.call("start", "api")

    assert statistics.median(late_s) < 0.3  # supervisor's own loop runs once a second


def test_a_crashed_service_dies_without_a_kill_in_the_events(lab: World) -> None:
    lab.start(lab.process("api"))

    assert lab.control.call("crash", "api")
    until(lambda: lab.times("die"), "the death in the events")

    assert lab.events("api") == [("start", {}), ("die", {"exitCode": "137"})]


@pytest.mark.parametrize(
    ("command", "code"), [("import sys; sys.exit(3)", "3"), ("import os; os.kill(os.getpid(), 15)", "143")]
)
def test_a_service_that_ends_by_itself_has_its_exit_code(lab: World, command: str, code: str) -> None:
    lab.start(lab.process("api", command))

    until(lambda: lab.times("die"), "the death in the events")

    assert lab.events("api")[-1] == ("die", {"exitCode": code})
    assert lab.control.inspect()["api"].exit_code == int(code)


def test_a_program_that_does_not_exist_is_refused_by_name(lab: World) -> None:
    with pytest.raises(NotReady, match=r"no-such-program"):
        lab.start(Process(service="api", command=("/no-such-program",), environment={}))


@pytest.mark.parametrize("act", [("kill", "api", "SIGKILL"), ("crash", "api")])
def test_the_children_of_a_service_die_with_it(lab: World, tmp_path: Path, act: tuple[str, ...]) -> None:
    child_file = tmp_path / "child"
    lab.start(lab.process("api", PARENT, CHILD_FILE=str(child_file)))
    until(child_file.exists, "the child")
    child = int(child_file.read_text())

    lab.control.call(*act)

    assert until(lambda: identity.process_started(child) == "", "the child's death")


def test_pause_stops_every_process_of_the_service_and_unpause_wakes_them(lab: World, tmp_path: Path) -> None:
    child_file = tmp_path / "child"
    lab.start(lab.process("api", PARENT, CHILD_FILE=str(child_file)))
    until(child_file.exists, "the child")
    group = lab.pid("api")

    assert lab.control.call("pause", "api")
    assert sorted(group_members(group).values()) == ["T", "T"]
    assert lab.control.inspect()["api"].paused

    assert lab.control.call("unpause", "api")
    assert "T" not in group_members(group).values()
    assert not lab.control.inspect()["api"].paused
    assert [action for action, _ in lab.events("api")] == ["start", "pause", "unpause"]


def test_a_service_frozen_by_another_process_is_seen_frozen(lab: World) -> None:
    lab.start(lab.process("api"))

    os.kill(lab.pid("api"), signal.SIGSTOP)

    assert until(lambda: lab.control.inspect()["api"].paused, "seeing the frozen service")


def test_a_paused_service_dies_of_a_kill(lab: World) -> None:
    lab.start(lab.process("api"))
    lab.control.call("pause", "api")

    lab.control.call("kill", "api", "SIGKILL")

    lab.control.wait_dead("api", 2)
    assert not lab.control.inspect()["api"].running


def test_an_impossible_act_is_an_error_and_changes_nothing(lab: World) -> None:
    lab.start(lab.process("api"))

    assert not lab.control.call("start", "api")
    assert not lab.control.call("unpause", "api")
    with pytest.raises(NotReady, match="stranger"):
        lab.control.call("kill", "stranger", "SIGKILL")

    assert lab.events("api") == [("start", {})]


def test_a_service_started_again_has_a_later_start(lab: World) -> None:
    lab.start(lab.process("api"))
    first = lab.control.inspect()["api"].started_unix_s
    lab.control.call("kill", "api", "SIGKILL")
    lab.control.wait_dead("api")

    lab.control.call("start", "api")

    again = lab.control.inspect()["api"]
    assert again.running
    assert again.exit_code is None
    assert again.started_unix_s > first


def test_services_get_their_settings_with_any_characters(lab: World, tmp_path: Path) -> None:
    result, value = tmp_path / "result", "50% of {x} 'y', $HOME=#1;"
    command = "import os; open(os.environ['RESULT'], 'w').write(os.environ['ODD'])"
    lab.start(lab.process("api", command, RESULT=str(result), ODD=value))

    until(lambda: lab.times("die"), "the end of the service")

    assert result.read_text() == value


SAYS_PID = "import os\nwith open(os.environ['PIDS'], 'a') as file: file.write(f'{os.getpid()}\\n')\n"


def test_a_killed_fault_agent_runs_again_at_once_and_is_no_service(lab: World, tmp_path: Path) -> None:
    """All traces of a death reach supervisord at once, as on a busy machine.

    Otherwise the second trace wakes it again, which restarts the agent.
    """
    pids = tmp_path / "pids"
    pids.touch()
    lab.start(lab.process("agent", SAYS_PID + local_world.SLEEPER, restarts=True, PIDS=str(pids)), lab.process("api"))
    took_s = []
    for starts in range(1, 4):
        until(lambda: len(pids.read_text().splitlines()) == starts, "a start")  # noqa: B023 - called at once
        started_s, pid = time.monotonic(), int(pids.read_text().splitlines()[-1])
        until(lambda: time.monotonic() > started_s + 1, "an agent that has run for a second")  # noqa: B023 - called at once
        os.kill(lab.daemon.pid, signal.SIGSTOP)
        os.kill(pid, signal.SIGKILL)
        until(lambda: ") Z " in Path(f"/proc/{pid}/stat").read_text(), "its death")  # noqa: B023 - called at once
        os.kill(lab.daemon.pid, signal.SIGCONT)
        woken_s = time.monotonic()
        until(lambda: len(pids.read_text().splitlines()) > starts, "its restart")  # noqa: B023 - called at once
        took_s.append(time.monotonic() - woken_s)

    assert statistics.median(took_s) < 0.5, took_s  # supervisord looks once a second, and a busy machine is late
    assert lab.control.inspect_agents()["agent"].pid == int(pids.read_text().splitlines()[-1])
    assert set(lab.control.inspect()) == {"api"}
    assert ("die", {"exitCode": "137"}) in lab.events("agent")


def test_a_fault_agent_that_cannot_start_does_not_fill_a_core(lab: World) -> None:
    lab.start(lab.process("agent", "raise SystemExit(1)", restarts=True))

    until(lambda: len(lab.times("die")) >= 3, "three failed starts")

    first, second, third = lab.times("die")[:3]
    assert second - first > 0.9
    assert third - second > 1.9


def test_stopping_ends_deaf_and_frozen_services_at_once(lab: World) -> None:
    lab.start(lab.process("api", DEAF), lab.process("model-1"))
    lab.control.call("pause", "model-1")
    begin = time.monotonic()

    lab.daemon.stop()

    until(lambda: not cleanup.processes_of(lab.project), "the end of every process", 1.0)
    assert time.monotonic() - begin < 1.0


def test_a_folder_deeper_than_a_socket_path_works(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)

    with world(deep) as lab:
        lab.start(lab.process("api"))

        assert lab.control.inspect()["api"].running


def test_two_parallel_runs_do_not_see_each_other(tmp_path: Path) -> None:
    with world(tmp_path, "one") as one, world(tmp_path, "two") as two:
        one.start(one.process("api"))
        two.start(two.process("api"))

        one.daemon.stop()
        cleanup.remove_run(one.project, one.directory)

        assert two.control.inspect()["api"].running
        assert not one.work.exists()


_OWNER = textwrap.dedent("""
    import pathlib, sys, time
    sys.path.insert(0, sys.argv[2])
    from support.local_world import World
    lab = World(pathlib.Path(sys.argv[1]), sys.argv[3])
    lab.start(lab.process("api"), lab.process("model-1"))
    lab.control.call("pause", "model-1")
    print("up", flush=True)
    time.sleep(600)
""")


def _dead_owner(tmp_path: Path, project: str, *, freeze_supervisord: bool) -> None:
    """Start a run in a process and kill that process with SIGKILL."""
    command = [sys.executable, "-c", _OWNER, str(tmp_path), str(Path(local_world.__file__).parent.parent), project]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == "up\n"
        if freeze_supervisord:
            pid_file = cleanup.work_folder(tmp_path, project) / "supervisord.pid"
            os.kill(int(pid_file.read_text()), signal.SIGSTOP)
        starter.kill()


def test_services_end_by_themselves_when_their_owner_is_killed(tmp_path: Path) -> None:
    project = f"llmchaos-test-{os.getpid()}-orphans"
    try:
        _dead_owner(tmp_path, project, freeze_supervisord=False)

        assert until(lambda: not cleanup.processes_of(project), "the end of every process", 3.0)
    finally:
        cleanup.remove_run(project, tmp_path)


def test_a_dead_run_is_removed_even_if_its_supervisord_is_frozen(tmp_path: Path) -> None:
    project = identity.project_name(os.getpid(), "frozen")
    try:
        _dead_owner(tmp_path, project, freeze_supervisord=True)
        found = [run for run in cleanup.dead_runs() if run.project == project]
        assert [str(run.directory) for run in found] == [str(tmp_path)]
        assert len(cleanup.processes_of(project)) == 3
        begin = time.monotonic()

        cleanup.remove_run(found[0].project, found[0].directory)

        assert time.monotonic() - begin < 3.0
        assert not cleanup.processes_of(project)
        assert not (tmp_path / "local").exists()
        assert (tmp_path / "logs" / "events.jsonl").exists()  # events are kept
    finally:
        cleanup.remove_run(project, tmp_path)


def test_a_live_run_is_not_a_dead_run(lab: World) -> None:
    lab.start(lab.process("api"))

    assert lab.project not in {run.project for run in cleanup.dead_runs()}


def test_removing_a_missing_run_changes_nothing(tmp_path: Path) -> None:
    cleanup.remove_run("llmchaos-never-was", tmp_path)

    assert list(tmp_path.iterdir()) == []


DEAD = "1:1:another-boot"


@contextlib.contextmanager
def _marked(project: str, directory: Path, who: str = DEAD) -> Iterator[int]:
    """A process whose environment names a run."""
    marks = {cleanup.RUN: project, cleanup.DIRECTORY: str(directory), cleanup.OWNER: who}
    with subprocess.Popen(["sleep", "60"], env=os.environ | marks) as process:
        until(lambda: cleanup.RUN.encode() in Path(f"/proc/{process.pid}/environ").read_bytes())
        try:
            yield process.pid
        finally:
            process.kill()


def _found(project: str) -> list[str]:
    return [str(run.directory) for run in cleanup.dead_runs() if run.project == project]


def test_another_users_process_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = identity.project_name(os.getpid(), "other-user")
    with _marked(project, tmp_path) as pid:
        assert _found(project) == [str(tmp_path)]
        assert set(cleanup.processes_of(project)) == {pid}

        monkeypatch.setattr(os, "geteuid", lambda: 65533)

        assert _found(project) == []
        assert cleanup.processes_of(project) == {}


@pytest.mark.parametrize("project", ["", "../../etc", "..", "llmchaos-1-abcd/../../etc", "llmchaos-1", "etc"])
def test_a_name_that_no_run_would_choose_is_not_removed(tmp_path: Path, project: str) -> None:
    with _marked(project, tmp_path):
        assert _found(project) == []


def test_a_project_of_which_one_owner_lives_is_not_dead(tmp_path: Path) -> None:
    project = identity.project_name(os.getpid(), "two-owners")
    with _marked(project, tmp_path / "one"), _marked(project, tmp_path / "two", identity.owner_label()):
        assert _found(project) == []


def test_a_run_whose_owner_cannot_be_seen_from_here_is_not_dead(tmp_path: Path) -> None:
    project = identity.project_name(os.getpid(), "elsewhere")
    with _marked(project, tmp_path, f"999999:1:{identity.boot_id()}:1"):
        assert _found(project) == []


def _work(directory: Path, project: str) -> Path:
    """A run's folder with a log, without its processes."""
    work = cleanup.work_folder(directory, project)
    (work / "logs").mkdir(parents=True)
    (work / "logs" / "api.txt").write_text("from the service")
    (work / "events.jsonl").write_text("{}")
    return work


def test_logs_are_kept_and_replace_older_ones(tmp_path: Path) -> None:
    work = _work(tmp_path, "llmchaos-never-was")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "api.txt").write_text("older")

    cleanup.remove_run(work.name, tmp_path)

    kept = {path.name: path.read_text() for path in (tmp_path / "logs").iterdir()}
    assert kept == {"api.txt": "from the service", "events.jsonl": "{}"}
    assert not (tmp_path / "local").exists()


def test_logs_are_kept_without_their_secrets(tmp_path: Path) -> None:
    work = _work(tmp_path, "llmchaos-never-was")
    (work / "logs" / "api.txt").write_text("ready\nGET / Authorization: Bearer 0123456789abcdef\n")

    cleanup.remove_run(work.name, tmp_path)

    assert (tmp_path / "logs" / "api.txt").read_text() == "ready\nGET / Authorization: Bearer ***\n"


def test_logs_are_never_written_onto_or_through_a_symlink(tmp_path: Path) -> None:
    work = _work(tmp_path, "llmchaos-never-was")
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "api.txt").symlink_to(victim)

    cleanup.keep_logs(work, tmp_path)

    assert victim.read_text() == "untouched"
    assert (tmp_path / "logs" / "api.txt").read_text() == "from the service"
    assert not (tmp_path / "logs" / "api.txt").is_symlink()


def test_logs_are_never_written_into_a_symlinked_folder(tmp_path: Path) -> None:
    work = _work(tmp_path / "run", "llmchaos-never-was")
    (tmp_path / "victim").mkdir()
    (tmp_path / "run" / "logs").symlink_to(tmp_path / "victim")

    cleanup.remove_run(work.name, tmp_path / "run")

    assert list((tmp_path / "victim").iterdir()) == []
    assert not work.exists()


def test_a_log_that_is_a_symlink_or_a_pipe_is_not_read(tmp_path: Path) -> None:
    work = _work(tmp_path, "llmchaos-never-was")
    (tmp_path / "secret").write_text("secret")
    (work / "logs" / "link.txt").symlink_to(tmp_path / "secret")
    os.mkfifo(work / "logs" / "pipe.txt")

    cleanup.keep_logs(work, tmp_path)

    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == ["api.txt", "events.jsonl"]


def test_removal_follows_no_symlink(tmp_path: Path) -> None:
    work = _work(tmp_path / "others", "llmchaos-never-was")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "local").symlink_to(tmp_path / "others" / "local")

    cleanup.remove_run(work.name, tmp_path / "mine")

    assert (work / "logs" / "api.txt").exists()
