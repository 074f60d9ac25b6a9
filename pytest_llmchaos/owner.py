"""Who owns what on this machine: process identities, reserved ports, the one slot to measure in. No Docker, no network."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import itertools
import os
import platform
import re
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from pytest_llmchaos.errors import NotReady

Life = Literal["alive", "dead", "unknown"]
PORTS = range(21000, 29000)  # below Linux' ephemeral range (32768-60999), so that no outgoing connection takes one


def state_dir() -> Path:
    """This user's folder for locks; short-lived facts only, nothing of worth."""
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    return _private(base / f"pytest-llmchaos-{os.getuid()}", "XDG_RUNTIME_DIR")


def lasting_dir() -> Path:
    """This user's folder for what must still be known after a logout or a boot. Raises NotReady if there can be none."""
    return _private(_lasting(), "XDG_STATE_HOME")


def lasting_files(pattern: str) -> list[Path]:
    """What is kept there. Nothing where there is no such folder, or it is another's: nobody else is believed."""
    try:
        folder = _lasting()
        return sorted(folder.glob(pattern)) if folder.is_absolute() and _is_ours(folder) else []
    except OSError:
        return []


def _lasting() -> Path:
    base = os.environ.get("XDG_STATE_HOME", "")
    if not base.startswith("/"):  # the XDG specification: a relative path is to be ignored
        base = os.path.expanduser("~/.local/state")  # noqa: PTH111 - which raises nothing where there is no home
    return Path(base) / "pytest-llmchaos"


def _private(path: Path, variable: str) -> Path:
    """The folder, which this user alone may enter. `variable` is what can be set to have it elsewhere."""
    hint = f"set {variable} to a folder of your own"
    if not path.is_absolute():
        raise NotReady(f"this user has no home folder: {hint}")
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_ours(path):
            raise NotReady(f"{path} belongs to another user: remove it or {hint}")
        if path.stat().st_mode & 0o077:
            path.chmod(0o700)
    except OSError as error:
        raise NotReady(f"cannot use {path}: {error.strerror}; {hint}") from None
    return path


def _is_ours(path: Path) -> bool:
    """Whether it is this user's, and so is the link where it is one: another's could lead to any folder of ours."""
    return {path.lstat().st_uid, path.stat().st_uid} == {os.geteuid()}


def machine() -> str:
    """A name of this machine that a boot does not change."""
    try:
        told = Path("/etc/machine-id").read_text().strip()
    except OSError:
        told = ""
    return told or platform.node()


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


def pid_namespace() -> str:
    """The number of the namespace that this process' number belongs to; a container has one of its own. "" if nobody tells."""
    try:
        return "".join(filter(str.isdigit, str(Path("/proc/self/ns/pid").readlink())))
    except OSError:
        return ""


def identity(pid: int | None = None) -> str:
    """`pid:start:boot:namespace` of a process: the owner label of everything that a run makes."""
    who = os.getpid() if pid is None else pid
    return f"{who}:{process_started(who)}:{boot_id()}:{pid_namespace()}"


def life(owner: str, *, same_kernel: bool = True) -> Life:
    """What is known of the process of an owner label. Nothing, if it cannot be read or its process cannot be seen from here.

    `same_kernel` says that the owner ran on this machine; only then does another boot tell that it is gone.
    """
    parts = owner.split(":")
    # Three parts are from before labels told the namespace.
    if len(parts) not in {3, 4} or not re.fullmatch("[0-9]{1,10}", parts[0]):
        return "unknown"
    pid, started, boot, *namespace = parts
    if "unknown" in {boot, boot_id()}:
        return "unknown"
    if boot != boot_id():
        return "dead" if same_kernel else "unknown"
    if namespace and namespace != [pid_namespace()]:
        return "unknown"
    return "alive" if process_started(int(pid)) == started else "dead"


_PROJECT = re.compile(r"llmchaos-[0-9]+-[0-9a-f]{4}(-[a-z0-9_-]+)?")


def project_name(pid: int, worker: str = "") -> str:
    """The name of a run's own stack. A process of the same number in another namespace, or after a boot, makes another."""
    where = hashlib.sha256(f"{boot_id()}:{pid_namespace()}".encode()).hexdigest()[:4]
    return f"llmchaos-{pid}-{where}" + (f"-{worker}" if worker else "")


def is_project_name(name: str) -> bool:
    """Whether `project_name` could have made it."""
    return _PROJECT.fullmatch(name) is not None


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
