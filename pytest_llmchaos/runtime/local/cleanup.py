"""Removal of a local run, alive or dead.

Kills every process that carries the run's name, then removes its folder.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import shlex
import shutil
import signal
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_llmchaos.errors import HealFailed
from pytest_llmchaos.evidence.redaction import redact_bytes
from pytest_llmchaos.host import identity

RUN = "LLMCHAOS_RUN"  # this and the next two: set in every process of a run
OWNER = "LLMCHAOS_OWNER"
DIRECTORY = "LLMCHAOS_DIRECTORY"
_GONE_DEADLINE_S = 5.0


def work_folder(directory: Path, project: str) -> Path:
    """Working folder of a run: socket, settings, volumes, logs."""
    return directory / "local" / project


def _is_ours(pid: int) -> bool:
    """True if all uids of a process are ours.

    A process that changed its user may have its environment from another user.
    """
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("Uid:"):
                return set(line.split()[1:]) == {str(os.geteuid())}
    return False


def _marked_processes() -> Iterator[tuple[int, dict[str, str]]]:
    """Pid and initial environment of this user's processes that carry a run's name."""
    mark = f"{RUN}=".encode()
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            pairs = Path(entry.path, "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(pair.startswith(mark) for pair in pairs) and _is_ours(int(entry.name)):
            split = (pair.decode(errors="replace").partition("=") for pair in pairs)
            yield int(entry.name), {name: value for name, _, value in split if value}


def processes_of(project: str) -> dict[int, str]:
    """Pid -> start time of every live process of one run."""
    found = {}
    for pid, environment in _marked_processes():
        started = identity.process_started(pid) if environment.get(RUN) == project and pid != os.getpid() else ""
        if started:
            found[pid] = started
    return found


def _runs() -> dict[tuple[str, str, str], set[int]]:
    """(project, directory, owner) -> pids, for every run of this user's processes.

    Only names that a run would choose count, because the project names a folder to
    remove.
    """
    found: dict[tuple[str, str, str], set[int]] = {}
    for pid, environment in _marked_processes():
        project, who = environment.get(RUN, ""), environment.get(OWNER, "")
        if who and identity.is_project_name(project):
            found.setdefault((project, environment.get(DIRECTORY, os.devnull), who), set()).add(pid)
    return found


@dataclass(frozen=True, kw_only=True)
class DeadRun:
    """A run with live processes whose owner is dead."""

    project: str
    directory: Path
    why: str


@dataclass(frozen=True, kw_only=True)
class DoubtfulRun:
    """A run whose owner cannot be seen from here. `how` has commands to remove it."""

    project: str
    owner: str
    how: str


def dead_runs() -> list[DeadRun]:
    """Runs that `remove_run` may remove."""
    runs = _runs()
    kept = {project for project, _, who in runs if identity.liveness(who) != "dead"}
    return [
        DeadRun(project=project, directory=Path(directory), why=f"its owner {who} is gone")
        for project, directory, who in sorted(runs)
        if project not in kept
    ]


def doubtful_runs() -> list[DoubtfulRun]:
    """Runs whose owner may live. They are not touched."""
    return [
        DoubtfulRun(
            project=project,
            owner=who,
            how=f"kill -KILL {' '.join(map(str, sorted(pids)))}; rm -r {shlex.quote(str(work_folder(Path(directory), project)))}",
        )
        for (project, directory, who), pids in sorted(_runs().items())
        if identity.liveness(who) == "unknown"
    ]


def end_processes(project: str, deadline_s: float = _GONE_DEADLINE_S) -> int:
    """Kill every process of the run until all are gone. Return their count.

    Raises HealFailed with the pids that survive `deadline_s` seconds.
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
                f"processes {', '.join(map(str, sorted(alive)))} of {project} still run {deadline_s:g} s after SIGKILL: end them by hand"
            )
        time.sleep(0.005)


@contextlib.contextmanager
def _open_folder(base: Path, *names: str) -> Iterator[int]:
    """Open a folder below `base` without following symlinks.

    Another user with write access could redirect them.
    """
    fd = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in names:
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            os.close(fd)
            fd = below
        yield fd
    finally:
        os.close(fd)


def _copy(name: str, source: int, target: int) -> None:
    """Copy a regular file between open folders. Replaces a symlink at the target."""
    with os.fdopen(
        os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=source), "rb"
    ) as read:
        if not stat.S_ISREG(os.fstat(read.fileno()).st_mode):
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=target)
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=target)
        with os.fdopen(fd, "wb") as written:
            for line in read:
                written.write(redact_bytes(line))


def keep_logs(work: Path, directory: Path) -> None:
    """Copy the services' logs and the runtime's events into the report's folder."""
    below = work.relative_to(directory).parts
    for folder, wanted in ((below, "events.jsonl"), ((*below, "logs"), "*.txt")):
        with contextlib.suppress(FileNotFoundError), _open_folder(directory, *folder) as source:
            names = sorted(fnmatch.filter(os.listdir(source), wanted))  # noqa: PTH208 - lists the open folder, not its path
            if names:
                (directory / "logs").mkdir(exist_ok=True)
                _copy_all(names, source, directory)


def _copy_all(names: Sequence[str], source: int, directory: Path) -> None:
    with _open_folder(directory, "logs") as target:
        for name in names:
            with contextlib.suppress(OSError):  # one unreadable file must not stop the rest
                _copy(name, source, target)


def remove_folder(work: Path) -> None:
    """Remove the folder, and its parent if this was the parent's last run."""
    with contextlib.suppress(OSError):
        with _open_folder(work.parent.parent, work.parent.name) as local:
            shutil.rmtree(work.name, ignore_errors=True, dir_fd=local)
        work.parent.rmdir()


def remove_run(project: str, directory: Path) -> None:
    """Remove what a run left: processes first, then its folder. Keep the logs.

    Idempotent. Raises HealFailed if a process survives.
    """
    end_processes(project)
    work = work_folder(directory, project)
    with contextlib.suppress(OSError):
        keep_logs(work, directory)
    remove_folder(work)
