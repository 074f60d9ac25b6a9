"""The end of a local run, also of a dead one: every process that carries the run's name dies, its folder goes. No pytest, no supervisor."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_llmchaos import owner
from pytest_llmchaos.errors import HealFailed

RUN = "LLMCHAOS_RUN"  # all three in the environment of every process of a run
OWNER = "LLMCHAOS_OWNER"
DIRECTORY = "LLMCHAOS_DIRECTORY"
_GONE_DEADLINE_S = 5.0


def work_folder(directory: Path, project: str) -> Path:
    """Where a run keeps what it needs while it lasts: the socket, settings, volumes, logs as they are written."""
    return directory / "local" / project


def _environment_of(pid: str) -> dict[str, str]:
    """A process's environment as it was started with; empty for one that is gone or somebody else's."""
    try:
        pairs = Path("/proc", pid, "environ").read_bytes().split(b"\0")
    except OSError:
        return {}
    split = (pair.decode(errors="replace").partition("=") for pair in pairs)
    return {name: value for name, _, value in split if value}


def processes_of(project: str) -> dict[int, str]:
    """Process number -> start time of every live process of one run."""
    found = {}
    mark = f"{RUN}={project}".encode()
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if mark in Path(entry.path, "environ").read_bytes().split(b"\0"):
                started = owner.process_started(int(entry.name))
                if started:
                    found[int(entry.name)] = started
    return found


def dead_runs() -> list[dict[str, str]]:
    """What `remove_run` needs, and `why`, of each run whose owner is gone while processes of it live."""
    found: dict[str, dict[str, str]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            environment = _environment_of(entry.name)
            project, who = environment.get(RUN, ""), environment.get(OWNER, "")
            if project and who and not owner.alive(who):
                directory = environment.get(DIRECTORY, os.devnull)
                found[project] = {"project": project, "directory": directory, "why": f"its owner {who} is gone"}
    return [found[project] for project in sorted(found)]


def end_processes(project: str, deadline_s: float = _GONE_DEADLINE_S) -> int:
    """SIGKILL every process of the run, frozen ones too, until none is left. Returns how many there were.

    Raises HealFailed naming those that do not die.
    """
    deadline = time.monotonic() + deadline_s
    seen: set[int] = set()
    while True:
        alive = processes_of(project)
        if not alive:
            return len(seen)
        seen |= alive.keys()
        for pid in alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise HealFailed(
                f"processes {', '.join(map(str, sorted(alive)))} of {project} live {deadline_s:g} s after SIGKILL: end them by hand"
            )
        time.sleep(0.005)


def keep_logs(work: Path, directory: Path) -> None:
    """Copy what the services wrote, and the runtime's events, to where the report's reader looks for them."""
    target = directory / "logs"
    for log in [*sorted((work / "logs").glob("*.txt")), work / "events.jsonl"]:
        if log.is_file():
            target.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(log, target / log.name)


def remove_folder(work: Path) -> None:
    shutil.rmtree(work, ignore_errors=True)
    with contextlib.suppress(OSError):  # the last run of this folder closes the door
        work.parent.rmdir()


def remove_run(recipe: Mapping[str, Any]) -> None:
    """Everything that a run left: processes first, then its folder; the logs are kept. Idempotent.

    Raises HealFailed if a process does not die.
    """
    project, directory = str(recipe["project"]), Path(str(recipe["directory"]))
    end_processes(project)
    work = work_folder(directory, project)
    with contextlib.suppress(OSError):
        keep_logs(work, directory)
    remove_folder(work)
