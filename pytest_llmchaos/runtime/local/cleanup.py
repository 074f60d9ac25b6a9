"""The end of a local run, also of a dead one: every process that carries the run's name dies, its folder goes. No pytest, no supervisor."""

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

RUN = "LLMCHAOS_RUN"  # all three in the environment of every process of a run
OWNER = "LLMCHAOS_OWNER"
DIRECTORY = "LLMCHAOS_DIRECTORY"
_GONE_DEADLINE_S = 5.0


def work_folder(directory: Path, project: str) -> Path:
    """Where a run keeps what it needs while it lasts: the socket, settings, volumes, logs as they are written."""
    return directory / "local" / project


def _is_ours(pid: int) -> bool:
    """Whether a process is this user's in every way: one that changed users was told its environment by somebody else."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("Uid:"):
                return set(line.split()[1:]) == {str(os.geteuid())}
    return False


def _marked_processes() -> Iterator[tuple[int, dict[str, str]]]:
    """Number and environment of every process of this user that carries a run's name, as it was started with."""
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
    """Process number -> start time of every live process of one run."""
    found = {}
    for pid, environment in _marked_processes():
        started = identity.process_started(pid) if environment.get(RUN) == project and pid != os.getpid() else ""
        if started:
            found[pid] = started
    return found


def _runs() -> dict[tuple[str, str, str], set[int]]:
    """Project, directory and owner of every run that processes of this user carry, and which these are.

    A project becomes the name of a folder that is removed, so only a name that a run would make counts.
    """
    found: dict[tuple[str, str, str], set[int]] = {}
    for pid, environment in _marked_processes():
        project, who = environment.get(RUN, ""), environment.get(OWNER, "")
        if who and identity.is_project_name(project):
            found.setdefault((project, environment.get(DIRECTORY, os.devnull), who), set()).add(pid)
    return found


@dataclass(frozen=True, kw_only=True)
class DeadRun:
    """A run whose owner is gone while processes of it live."""

    project: str
    directory: Path
    why: str


@dataclass(frozen=True, kw_only=True)
class DoubtfulRun:
    """A run whose owner cannot be seen from here. `how` removes it by hand."""

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
    """Runs that are left alone."""
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


@contextlib.contextmanager
def _open_folder(base: Path, *names: str) -> Iterator[int]:
    """A folder below `base`, reached through no link: whoever may write there could lead us elsewhere."""
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
    """A file of one opened folder as a new one in another. Whatever is no file is left out; a link that stands there is replaced."""
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
    """Copy what the services wrote, and the runtime's events, to where the report's reader looks for them."""
    below = work.relative_to(directory).parts
    for folder, wanted in ((below, "events.jsonl"), ((*below, "logs"), "*.txt")):
        with contextlib.suppress(FileNotFoundError), _open_folder(directory, *folder) as source:
            names = sorted(fnmatch.filter(os.listdir(source), wanted))  # noqa: PTH208 - of what is opened, whatever stands at its path by now
            if names:
                (directory / "logs").mkdir(exist_ok=True)
                _copy_all(names, source, directory)


def _copy_all(names: Sequence[str], source: int, directory: Path) -> None:
    with _open_folder(directory, "logs") as target:
        for name in names:
            with contextlib.suppress(OSError):  # one that cannot be read is no reason to lose the others
                _copy(name, source, target)


def remove_folder(work: Path) -> None:
    """The last run of this folder closes the door."""
    with contextlib.suppress(OSError):
        with _open_folder(work.parent.parent, work.parent.name) as local:
            shutil.rmtree(work.name, ignore_errors=True, dir_fd=local)
        work.parent.rmdir()


def remove_run(project: str, directory: Path) -> None:
    """Everything that a run left: processes first, then its folder; the logs are kept. Idempotent.

    Raises HealFailed if a process does not die.
    """
    end_processes(project)
    work = work_folder(directory, project)
    with contextlib.suppress(OSError):
        keep_logs(work, directory)
    remove_folder(work)
