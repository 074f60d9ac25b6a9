"""The machine-wide measurement lock."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pytest_llmchaos.errors import NotReady


def slot_file(name: str) -> Path:
    """One file for all users and all their jobs, whatever their XDG_RUNTIME_DIR and TMPDIR: they share the cores."""
    return Path(f"/tmp/pytest-llmchaos-{name}.lock")  # noqa: S108 - opened without following links; its lock counts, not its content


def _open_to_all(path: Path) -> int:
    """A file that every user of the machine may lock. Raises NotReady where one cannot."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        while True:
            # Opened first as it is: Linux refuses to "create" a file of another user in a folder that is everybody's.
            with contextlib.suppress(FileNotFoundError):
                return os.open(path, flags)
            with contextlib.suppress(FileExistsError):
                fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
                os.fchmod(fd, 0o666)  # whatever this user's umask
                return fd
    except OSError as error:
        raise NotReady(f"cannot open {path}, on which all trials of this machine agree: {error}; remove it") from error


_held: set[int] = set()  # descriptors of this process' locks


class _Mine(threading.local):
    """Names of the slots that this thread has."""

    def __init__(self) -> None:
        self.names: frozenset[str] = frozenset()


_mine = _Mine()


def _forget_in_child() -> None:
    """A child made by fork shares the lock, and would hold it after this process has died."""
    _mine.names = frozenset()
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_forget_in_child)


@contextlib.contextmanager
def measuring(
    name: str = "measure",
    deadline_s: float = 1800.0,
    say: Callable[..., None] = lambda *_, **__: None,
    waiting: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext,
) -> Iterator[None]:
    """The machine's one measurement slot: two trials at once would distort each other's latencies.

    It is free again when its holder ends in whatever way. A waiting process gets it next: a session of many trials
    cannot take it again before that. A block inside another one of the same thread has it already.

    Args:
        name: which slot.
        deadline_s: seconds to wait for it.
        say: called as `say(what, deadline_s=...)` while another process has it.
        waiting: entered where another process has it, and left once it is free.

    Raises:
        NotReady: at the deadline, naming the process that holds the slot, its program and its user. Any user of the
            machine can hold it, as any can use up the processors that it is about.
    """
    if name in _mine.names:
        yield
        return
    deadline = time.monotonic() + deadline_s
    with _opened(name) as slot:
        resting = False

        def wait_for(fd: int, rest: contextlib.ExitStack) -> None:
            nonlocal resting
            while not _lock(fd):
                left_s = deadline - time.monotonic()
                if left_s < 0:
                    raise NotReady(
                        f"{_holder(slot, fd)} has held this machine's measurement slot ({slot_file(name)}) for "
                        f"{deadline_s:g} s: wait for it or stop it"
                    )
                say(f"waiting for {_holder(slot, fd)}", deadline_s=left_s)
                if not resting:
                    resting = True
                    rest.enter_context(waiting())
                time.sleep(0.1)

        with contextlib.ExitStack() as rest:
            with _opened(f"{name}-next") as turn:  # the next in line holds it
                wait_for(turn, rest)
                wait_for(slot, rest)
            os.ftruncate(slot, 0)
            os.pwrite(slot, str(os.getpid()).encode(), 0)
        _mine.names |= {name}
        try:
            yield
        finally:
            _mine.names -= {name}


@contextlib.contextmanager
def _opened(name: str) -> Iterator[int]:
    fd = _open_to_all(slot_file(name))
    _held.add(fd)
    try:
        yield fd
    finally:
        if fd in _held:  # else this is a child made by fork, which has closed it
            _held.remove(fd)
            os.close(fd)


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _holder(slot: int, awaited: int) -> str:
    """The process that holds the slot, else the one that holds its place in the queue.

    The kernel names it. Where it does not (the holder is in another pid namespace), the number that the holder wrote
    into the file is all there is. Any user may write there, so nothing but a number is repeated.
    """
    told = os.pread(slot, 20, 0)
    written = int(told) if told.isdigit() else None
    pid = _locked_by(slot) or _locked_by(awaited)
    if pid is None:
        return "another trial" if written is None else f"the trial of process {written}"
    since = time.strftime("%H:%M:%S", time.localtime(os.fstat(slot).st_mtime))
    about = [text for text in (_program_and_user(pid), f"since {since}" if pid == written else "") if text]
    what = "the trial of process" if pid == written else "process"
    return f"{what} {pid}" + (f" ({', '.join(about)})" if about else "")


def _locked_by(fd: int) -> int | None:
    """The process that holds the file's lock, by the kernel's own table."""
    about = os.fstat(fd)
    file = f"{os.major(about.st_dev):02x}:{os.minor(about.st_dev):02x}:{about.st_ino}"
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()  # 1: FLOCK ADVISORY WRITE 4711 fe:00:131 0 EOF
            if words[1] == "FLOCK" and words[5:6] == [file] and int(words[4]) > 0:
                return int(words[4])
    return None


def _program_and_user(pid: int) -> str:
    """The program's name alone: its arguments may hold secrets, and this goes into logs."""
    folder = Path(f"/proc/{pid}")
    try:
        program, uid = (folder / "comm").read_text().strip(), folder.stat().st_uid
    except OSError:
        return ""
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    return f"{program} of user {user}" if program.isprintable() else f"user {user}"
