"""Who owns what on this machine: process identities, reserved ports, the one slot to measure in. No Docker, no network."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pytest_llmchaos.errors import NotReady

PORTS = range(21000, 29000)  # below Linux' ephemeral range (32768-60999), so that no outgoing connection takes one


def state_dir() -> Path:
    """This user's folder for locks; short-lived facts only, nothing of worth."""
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    path = base / f"pytest-llmchaos-{os.getuid()}"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_uid != os.getuid():
        raise NotReady(f"{path} belongs to another user: remove it or set XDG_RUNTIME_DIR to a folder of your own")
    return path


def boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
    except OSError:
        return "unknown"


def process_started(pid: int) -> str:
    """A process's start time in clock ticks, which tells it from a later process of the same number; "" if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]


def identity(pid: int | None = None) -> str:
    """`pid:start:boot` of a process: the owner label of everything that a run makes."""
    who = os.getpid() if pid is None else pid
    return f"{who}:{process_started(who)}:{boot_id()}"


def alive(owner: str) -> bool:
    """Whether the process of an owner label still runs. A label that cannot be read counts as alive: never sweep on doubt."""
    parts = owner.split(":")
    if len(parts) != 3 or not parts[0].isdigit():
        return True
    pid, started, boot = parts
    if boot != boot_id():
        return False
    return process_started(int(pid)) == started


def port_is_free(port: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno in {errno.EADDRINUSE, errno.EACCES}:
                return False
            raise
    return True


class Ports:
    """Loopback ports reserved against sibling runs of this user for as long as this object is open.

    Fixed ports survive a kill and restart of the container behind them; ephemeral ones change.
    """

    def __init__(self) -> None:
        self._locks: list[int] = []

    def reserve(self) -> int:
        """A free port. Raises NotReady if none of the range is free."""
        folder = state_dir() / "ports"
        folder.mkdir(exist_ok=True)
        first = PORTS.start + (os.getpid() * 97) % len(PORTS)
        for port in itertools.chain(range(first, PORTS.stop), range(PORTS.start, first)):
            fd = os.open(folder / f"{port}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(fd)
                continue
            if port_is_free(port):
                self._locks.append(fd)
                return port
            os.close(fd)
        raise NotReady(f"no free loopback port between {PORTS.start} and {PORTS.stop - 1}: stop what uses them")

    def close(self) -> None:
        for fd in self._locks:
            os.close(fd)
        self._locks.clear()


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


@contextlib.contextmanager
def measuring(
    name: str = "measure", deadline_s: float = 1800.0, say: Callable[..., None] = lambda *_, **__: None
) -> Iterator[None]:
    """The machine's one measurement slot: two trials at once would distort each other's latencies.

    It is free again when its holder ends in whatever way. While another has it, `say(what, deadline_s=...)` is told so.
    Raises NotReady at the deadline.
    """
    fd = _open_to_all(slot_file(name))
    try:
        deadline = time.monotonic() + deadline_s
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                left_s = deadline - time.monotonic()
                if left_s < 0:
                    raise NotReady(
                        f"{_holder(fd)} has held this machine's measurement slot for {deadline_s:g} s: wait for it or stop it"
                    ) from None
                say(f"waiting for {_holder(fd)}", deadline_s=left_s)
                time.sleep(0.1)
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(fd)


def _holder(fd: int) -> str:
    """Who wrote its process id into the lock's file; anybody may write there, so nothing but a number is believed."""
    told = os.pread(fd, 20, 0)
    return f"the trial of process {int(told)}" if told.isdigit() else "another trial"
