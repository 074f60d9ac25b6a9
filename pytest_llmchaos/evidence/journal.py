"""The append-only record of a run. Each line is on disk before `write` returns; it decides nothing."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pytest_llmchaos.errors import EvidenceLost

SCHEMA = "llmchaos-journal/1"


class Journal:
    """One file of JSON lines, written and fsynced one by one, so that a dead process leaves at most one torn line.

    `write` comes before an act, and raises EvidenceLost (a full disk, say): what could not be written down is then not done
    either. `note` comes after one, on the way out; it never raises, and `lost` keeps what it could not write.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.lost: EvidenceLost | None = None
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def __repr__(self) -> str:
        return f"<journal {self.path}>"

    def write(self, kind: str, **fields: Any) -> None:
        line = json.dumps({"at_unix_s": round(time.time(), 6), "kind": kind, **fields}, ensure_ascii=True, default=str)
        # What a failed write left of its line must not swallow this one.
        data = (b"\n" if self.lost else b"") + line.encode() + b"\n"
        try:
            while data:
                data = data[os.write(self._fd, data) :]
            os.fsync(self._fd)
        except OSError as error:
            why = f"{error.strerror or error}: make room there, then run again"
            lost = EvidenceLost(f"the line {kind!r} cannot be written to {self.path}: {why}")
            self.lost = self.lost or lost
            raise lost from None

    def note(self, kind: str, **fields: Any) -> None:
        with contextlib.suppress(EvidenceLost):
            self.write(kind, **fields)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a journal. A torn last line, left by a process that died while writing, is passed over."""
    with path.open("rb") as file:
        for raw in file:
            if not raw.endswith(b"\n"):
                return
            try:
                line = json.loads(raw)
            except ValueError:
                continue
            if isinstance(line, dict):
                yield line


def open_intents(path: Path) -> list[dict[str, Any]]:
    """The undo of every fault that was announced and not yet undone, newest first."""
    pending: dict[tuple[str, str, str], dict[str, Any]] = {}
    for line in read(path):
        key = (str(line.get("trial")), str(line.get("victim")), str(line.get("op") or line.get("undo", {}).get("op")))
        if line.get("kind") == "intent":
            pending[key] = line["undo"]
        elif line.get("kind") == "undone" and line.get("ok"):
            pending.pop(key, None)
    return list(pending.values())[::-1]
