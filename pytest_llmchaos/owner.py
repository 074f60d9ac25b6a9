"""Who owns what on this machine: process identities, per-user locks, reserved ports. No Docker, no network beyond a test bind."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import socket
import tempfile
import time
from collections.abc import Iterator
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


@contextlib.contextmanager
def measuring(name: str = "measure", deadline_s: float = 1800.0) -> Iterator[None]:
    """The machine's one measurement slot: two trials at once would distort each other's latencies."""
    fd = os.open(state_dir() / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + deadline_s
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise NotReady(
                        f"another trial has held this machine's measurement slot for {deadline_s:g} s: wait for it or stop it"
                    ) from None
                time.sleep(0.1)
        yield
    finally:
        os.close(fd)
