"""Machine-wide measurement lock."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pwd
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pytest_llmchaos.errors import NotReady


def slot_file(name: str) -> Path:
    """Lock file shared by all users and jobs: they share the cores.

    Independent of XDG_RUNTIME_DIR and TMPDIR.
    """
    return Path(f"/tmp/pytest-llmchaos-{name}.lock")  # noqa: S108 - opened without following symlinks, and only its lock counts


def _open_to_all(path: Path) -> int:
    """Open a file that every user may lock. Raises NotReady if that fails."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        while True:
            # Without O_CREAT first: in a world-writable folder Linux refuses it for
            # another user's file (fs.protected_regular).
            with contextlib.suppress(FileNotFoundError):
                return os.open(path, flags)
            with contextlib.suppress(FileExistsError):
                fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
                os.fchmod(fd, 0o666)  # regardless of this user's umask
                return fd
    except OSError as error:
        remedy = {errno.EROFS: "mount its folder writable", errno.ENOSPC: "make room"}.get(
            error.errno or 0, "remove it"
        )
        raise NotReady(
            f"cannot open {path}, the lock file of all trials on this machine: {error.strerror}; {remedy}"
        ) from error


_held: set[int] = set()  # descriptors of this process's locks


class _Mine(threading.local):
    """Names of the slots that this thread holds."""

    def __init__(self) -> None:
        self.names: frozenset[str] = frozenset()


_mine = _Mine()


def _forget_in_child() -> None:
    """Close locks inherited by fork: the child would hold them after our death."""
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
    """Hold the machine's measurement slot for at most one trial at a time.

    Parallel trials would distort each other's latencies. Processes get the slot in the
    order in which they came, so a session of many trials cannot take it twice in a row.
    The kernel frees the slot, or the place in the queue, when its process ends. The
    lock is reentrant within a thread.

    `deadline_s` limits how long one process may hold the slot (seconds). It begins anew
    with each holder, so a long queue is no error. While another process holds the slot,
    `say(what, deadline_s=...)` is called and the context of `waiting()` is entered.

    Raises:
        NotReady: at the deadline. Names the holding process, its program and its user.
            Any user of the machine can hold the slot.
    """
    if name in _mine.names:
        yield
        return
    with _opened(name) as slot:
        holder, deadline = "", 0.0

        def wait_for(happens: Callable[[], bool], rest: contextlib.ExitStack) -> None:
            nonlocal holder, deadline
            while not happens():
                if not holder:
                    rest.enter_context(waiting())
                if holder != (now := _holder(slot, name)):
                    holder, deadline = now, time.monotonic() + deadline_s
                left_s = deadline - time.monotonic()
                if left_s < 0:
                    raise NotReady(
                        f"{holder} has held this machine's measurement slot ({slot_file(name)}) for "
                        f"{deadline_s:g} s: wait for it to end, or stop it"
                    )
                say(f"waiting for {holder}", deadline_s=left_s)
                time.sleep(0.1)

        with contextlib.ExitStack() as rest:
            with _opened(f"{name}-queue") as queue:
                ticket = _Ticket(queue)
                wait_for(ticket.is_drawn, rest)
                wait_for(ticket.is_first, rest)
                wait_for(lambda: _lock(slot), rest)
            with contextlib.suppress(OSError):  # a full disk: then the kernel names the holder
                os.ftruncate(slot, 0)
                os.pwrite(slot, str(os.getpid()).encode(), 0)
        _mine.names |= {name}
        try:
            yield
        finally:
            _mine.names -= {name}


class _Ticket:
    """A place in the queue: the lock of one byte of the queue's file.

    Each process locks the byte after the last one, so it is first once no lower byte is
    locked. The kernel drops the lock of a process that ends. Closing the file gives the
    ticket back. The file's length is the next number, and its content is empty space.
    """

    _DRAWING = 2**40  # the byte that is locked while a ticket is drawn

    def __init__(self, queue: int) -> None:
        self._queue = queue
        self._number = 0

    def is_drawn(self) -> bool:
        """Draw a ticket. False if another process draws one now."""
        if sys.platform != "linux":  # no locks of single bytes: the slot alone decides
            return True
        if not self._take(self._DRAWING):
            return False
        try:
            length = os.fstat(self._queue).st_size
            self._number = length if 0 < length < self._DRAWING and not self._is_free(self._DRAWING) else 0
            while not self._take(self._number):
                self._number += 1
            os.ftruncate(self._queue, self._number + 1)
        except OSError as error:
            raise NotReady(f"cannot lock the queue of all trials on this machine: {error}") from error
        finally:
            self._ask(fcntl.F_OFD_SETLK, fcntl.F_UNLCK, self._DRAWING, 1)
        return True

    def is_first(self) -> bool:
        """True if no ticket with a lower number is held."""
        return sys.platform != "linux" or self._number == 0 or self._is_free(self._number)

    def _take(self, byte: int) -> bool:
        try:
            self._ask(fcntl.F_OFD_SETLK, fcntl.F_WRLCK, byte, 1)
        except (BlockingIOError, PermissionError):  # EAGAIN or EACCES
            return False
        return True

    def _is_free(self, below: int) -> bool:
        return self._ask(fcntl.F_OFD_GETLK, fcntl.F_WRLCK, 0, below) == fcntl.F_UNLCK

    def _ask(self, command: int, kind: int, start: int, length: int) -> int:
        # Locks of the open file, and not of the process as with `lockf`: those end when
        # the process closes any other descriptor of the file. fcntl(2): struct flock.
        asked = struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0)
        answered: int = struct.unpack("hhqqi4x", fcntl.fcntl(self._queue, command, asked))[0]
        return answered


@contextlib.contextmanager
def _opened(name: str) -> Iterator[int]:
    fd = _open_to_all(slot_file(name))
    _held.add(fd)
    try:
        yield fd
    finally:
        if fd in _held:  # else this is a forked child, which has closed it
            _held.remove(fd)
            os.close(fd)


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _holder(slot: int, name: str) -> str:
    """Describe the process that holds the slot.

    The kernel names it, unless it is in another pid namespace. Then the pid that the
    holder wrote into the file is used. Any user can write there, so only a number is
    repeated.
    """
    told = os.pread(slot, 20, 0)
    written = int(told) if told.isdigit() else None
    pid = _locked_by(slot)
    if pid is None and _lock(slot):
        fcntl.flock(slot, fcntl.LOCK_UN)
        return f"a trial that waits before this one (`fuser {slot_file(f'{name}-queue')}` lists them)"
    if pid is None:
        return "another trial" if written is None else f"the trial of process {written}"
    since = time.strftime("%H:%M:%S", time.localtime(os.fstat(slot).st_mtime))
    about = [text for text in (_program_and_user(pid), f"since {since}" if pid == written else "") if text]
    what = "the trial of process" if pid == written else "process"
    return f"{what} {pid}" + (f" ({', '.join(about)})" if about else "")


def _locked_by(fd: int) -> int | None:
    """Pid of the holder of the file's lock, from `/proc/locks`."""
    about = os.fstat(fd)
    file = f"{os.major(about.st_dev):02x}:{os.minor(about.st_dev):02x}:{about.st_ino}"
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()  # 1: FLOCK ADVISORY WRITE 4711 fe:00:131 0 EOF
            if words[1] == "FLOCK" and words[5:6] == [file] and int(words[4]) > 0:
                return int(words[4])
    return None


def _program_and_user(pid: int) -> str:
    """Program and user. Arguments are left out: they may hold secrets."""
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
