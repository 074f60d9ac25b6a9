"""The machine-wide measurement lock."""

from __future__ import annotations

import contextlib
import fcntl
import os
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


@contextlib.contextmanager
def measuring(
    name: str = "measure", deadline_s: float = 1800.0, say: Callable[..., None] = lambda *_, **__: None
) -> Iterator[None]:
    """The machine's one measurement slot: two trials at once would distort each other's latencies.

    It is free again when its holder ends in whatever way. A waiting process gets it next: a session of many trials
    cannot take it again before that. While another process has it, `say(what, deadline_s=...)` is called.
    Raises NotReady at the deadline.
    """
    deadline = time.monotonic() + deadline_s
    slot = _open_to_all(slot_file(name))

    def wait_for(fd: int) -> None:
        while not _lock(fd):
            left_s = deadline - time.monotonic()
            if left_s < 0:
                raise NotReady(
                    f"{_holder(slot)} has held this machine's measurement slot for {deadline_s:g} s: wait for it or stop it"
                )
            say(f"waiting for {_holder(slot)}", deadline_s=left_s)
            time.sleep(0.1)

    try:
        turn = _open_to_all(slot_file(f"{name}-next"))  # the next in line holds it
        try:
            wait_for(turn)
            wait_for(slot)
        finally:
            os.close(turn)
        os.ftruncate(slot, 0)
        os.pwrite(slot, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(slot)


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _holder(fd: int) -> str:
    """Who wrote its process id into the lock's file; anybody may write there, so nothing but a number is believed."""
    told = os.pread(fd, 20, 0)
    return f"the trial of process {int(told)}" if told.isdigit() else "another trial"
