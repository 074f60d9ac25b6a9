"""Audit log and intent journal: append-only JSON lines.

Each line is on disk before its action.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from lab_remediator.model import Evidence


class AuditError(RuntimeError):
    """The log cannot be written, so no action is allowed."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the log."""

    at: float
    event: str
    incident: str | None = None
    rule: str | None = None
    service: str | None = None
    action: str | None = None
    evidence: tuple[Evidence, ...] = ()
    reason: str = ""

    def line(self) -> str:
        return json.dumps({**asdict(self), "at": round(self.at, 6)})


class Audit:
    """The open log. One program at a time may write it."""

    def __init__(self, path: Path) -> None:
        try:
            # Unbuffered: a later write must not put a refused line on disk.
            self._file = path.open("ab+", buffering=0)
        except OSError as error:
            raise AuditError(f"expected a writable audit log at {path}, got: {error}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise AuditError(f"another program writes {path}: two would do everything twice; stop one") from error
        self._start_on_a_new_line()

    def _start_on_a_new_line(self) -> None:
        """End a line torn by a crash, so it does not corrupt the next one."""
        if self._file.seek(0, os.SEEK_END) > 0:
            self._file.seek(-1, os.SEEK_END)
            if self._file.read(1) != b"\n":
                self._file.write(b"\n")

    def write(self, entry: Entry) -> None:
        """Write a line, and return once it is on disk.

        Raises:
            AuditError: the line is not on disk, so its action is not allowed.
        """
        line = entry.line()
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
        data, before = line.encode() + b"\n", os.fstat(self._file.fileno()).st_size
        try:
            if self._file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(before)
            raise AuditError(f"the audit log takes no more lines: {error}; acts stop until it does") from error

    def entries(self) -> list[dict[str, Any]]:
        """Every whole line so far, oldest first, without torn and foreign ones."""
        self._file.seek(0)
        return list(parsed(self._file.read().decode(errors="replace").splitlines()))

    def close(self) -> None:
        self._file.close()


def parsed(lines: Iterable[str]) -> Iterable[dict[str, Any]]:
    """The lines that are entries of an audit log."""
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("at"), (int, float)) and "event" in entry:
            yield entry
