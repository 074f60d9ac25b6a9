"""Append-only journal of a run, synced to disk line by line."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from pytest_llmchaos.errors import EvidenceLost
from pytest_llmchaos.evidence.journal_lines import KINDS, Intent, Line, RunBegin, Undone
from pytest_llmchaos.evidence.redaction import redact_inside
from pytest_llmchaos.model import Undo

# Fields with text from outside, such as messages, command lines and answers.
FOREIGN = frozenset(
    {
        *("replay", "environment", "images", "message", "reason", "what", "why", "witness"),
        *("findings", "trouble", "unknown", "strength"),
        *("error", "key", "no_ledger", "troubles"),
    }
)
CUT_OFF = "the line is cut off"
NAMES = frozenset(str(kind.__struct_config__.tag) for kind in KINDS)


# Beginning of a line by `Journal.write`. A name that is cut off does not match.
_HEAD = re.compile(
    rb'\s*\{"at_unix_s":\s*[-+.\dEe]+,\s*"kind":\s*"(?P<kind>\w+)"(?:,\s*"trial":\s*"(?P<trial>[\w.-]+)")?'
)


class Journal:
    """One file of JSON lines, each synced, so a killed process tears at most one line.

    `write` precedes an act and raises if the line cannot be written, so the act does
    not happen. `note` follows an act, does not raise, and keeps its error in `lost`.

    Attributes:
        path: The journal's file.
        lost: First error on writing, or None.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.lost: EvidenceLost | None = None
        self._fd = _open_to_append(path)
        self._kept: _File | None = None

    def __repr__(self) -> str:
        return f"<journal {self.path}>"

    def keep_intents(self, path: Path) -> None:
        """Write intents and reverts to this file too, which outlives the journal.

        Raises:
            OSError: The file cannot be opened.
        """
        self._kept = _File(path, _open_to_append(path))

    def write(self, line: Line) -> None:
        """Append a line and sync it.

        Raises:
            EvidenceLost: The file cannot be written, as on a full disk.
        """
        stamped = {"at_unix_s": round(time.time(), 6), **_without_secrets(msgspec.to_builtins(line, enc_hook=str))}
        files = [_File(self.path, self._fd)]
        if self._kept is not None and isinstance(line, Intent | Undone):
            files = [self._kept, *files]
        # A newline first, in case a failed write left a part of its line.
        data = (b"\n" if self.lost else b"") + json.dumps(stamped).encode() + b"\n"
        for path, fd in files:
            try:
                _append(fd, data)
            except OSError as error:
                why = f"{error.strerror or error}: make room there, then run again"
                lost = EvidenceLost(f"the line {stamped['kind']!r} cannot be written to {path}: {why}")
                self.lost = self.lost or lost
                raise lost from None

    def note(self, line: Line) -> None:
        """Append a line, with an error kept in `lost` instead of raised."""
        with contextlib.suppress(EvidenceLost):
            self.write(line)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._kept is not None:
            os.close(self._kept.fd)
            self._kept = None


def _without_secrets(fields: dict[str, object]) -> dict[str, object]:
    hidden = {}
    for name, value in fields.items():
        if name in FOREIGN:
            hidden[name] = redact_inside(value)
        elif isinstance(value, dict):
            hidden[name] = _without_secrets(value)
        elif isinstance(value, list | tuple):
            hidden[name] = [_without_secrets(one) if isinstance(one, dict) else one for one in value]
        else:
            hidden[name] = value
    return hidden


class _File(NamedTuple):
    """A file that lines are appended to."""

    path: Path
    fd: int


def _open_to_append(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)


def _append(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
    os.fsync(fd)


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """A line and the Unix time at which it was written."""

    at_unix_s: float
    line: Line


class Unread(msgspec.Struct, frozen=True, kw_only=True):
    """A line that could not be read, with its JSON or the fields at its beginning."""

    number: int
    why: str
    value: dict[str, object]


def parse(raw: bytes) -> dict[str, object]:
    """Return the JSON object of one line, with numbers that are not finite as null.

    Raises:
        ValueError: The line is not a JSON object.
    """
    try:
        value = json.loads(raw, parse_constant=lambda _: None, parse_float=_finite)
    except RecursionError:
        raise ValueError("too deeply nested") from None
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, got {type(value).__name__}")
    return value


def line_of(value: dict[str, object]) -> Written | None:
    """Return the typed line of a JSON object, or None for an unknown kind.

    Raises:
        ValueError: The object lacks a kind, or a field of it.
    """
    kind = value.get("kind")
    if not isinstance(kind, str):
        raise ValueError(f"expected a kind, got {kind!r:.40}")
    if kind not in NAMES:
        return None
    try:
        at_unix_s = msgspec.convert(value.get("at_unix_s"), float)
        return Written(at_unix_s=at_unix_s, line=msgspec.convert(value, Line))
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(str(error)) from None


def lines(path: Path) -> Iterator[Written | Unread]:
    """Yield every line of a journal in order, with the reason for those not readable.

    A later version may write kinds that this one lacks. Its first line announces them,
    so they are skipped. An unknown kind that was not announced is a damaged line.
    """
    announced: set[str] = set()
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            value: dict[str, object] = {}
            try:
                if raw.strip():
                    value = parse(raw)
                    line = line_of(value)
                    if line is not None:
                        announced.update(line.line.kinds if isinstance(line.line, RunBegin) else ())
                        yield line
                    elif value["kind"] not in announced:
                        raise ValueError(
                            f"kind {value['kind']!r:.40} is not one of those that the journal's first line announces"
                        )
            except ValueError as error:
                why = str(error) if raw.endswith(b"\n") else CUT_OFF
                yield Unread(number=number, why=why, value=value or _head_of(raw))


def read(path: Path) -> Iterator[dict[str, object]]:
    """Yield the JSON of each line that has a kind, without a torn last line."""
    with path.open("rb") as file:
        for raw in file:
            with contextlib.suppress(ValueError):
                if raw.endswith(b"\n") and "kind" in (value := parse(raw)):
                    yield value


class OpenIntents(NamedTuple):
    """Faults that were announced and not yet reverted, newest first.

    Attributes:
        undos: Operations that revert them.
        unreadable: Messages about announced faults whose operation cannot be read.
    """

    undos: tuple[Undo, ...]
    unreadable: tuple[str, ...]


def open_intents(path: Path) -> OpenIntents:
    """Return the undo of every fault that was announced and not yet reverted.

    The id of the intent matches the two. Journals of earlier versions lack ids, so
    victim and operation match them. Only the undo itself has to be readable, even if
    the rest of its line is not. A torn line precedes no act.
    """
    pending: dict[tuple[str, ...], Undo] = {}
    unreadable: dict[str, str] = {}
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            where = f"line {number} of {path}"
            try:
                line = parse(raw)
            except ValueError as error:
                if b'"intent"' in raw and raw.endswith(b"}\n"):
                    unreadable[where] = f"{where}: {error}"
                continue
            kind, undo = str(line.get("kind")), line.get("undo")
            if kind not in NAMES and undo:
                kind = "intent"  # no other kind has an undo, so its name is damaged
            if kind == "intent":
                if found := _undo_of(undo):
                    pending[_intent_key(line, line.get("id"), found.op)] = found
                else:
                    about = f"{line.get('fault')} {line.get('victim')}"
                    unreadable[str(line.get("id") or where)] = (
                        f"{where} announces {about!r:.80}, expected an undo, got {undo!r:.80}"
                    )
            elif kind == "undone" and line.get("ok") is True:
                pending.pop(_intent_key(line, line.get("intent"), line.get("op")), None)
                unreadable.pop(str(line.get("intent")), None)
    return OpenIntents(tuple(pending.values())[::-1], tuple(unreadable.values())[::-1])


def _undo_of(value: object) -> Undo | None:
    """Return the undo, or None if it lacks an operation or a service."""
    if not isinstance(value, dict) or not isinstance(value.get("args", {}), dict):
        return None
    named = all(isinstance(value.get(key), str) and value[key] for key in ("op", "service"))
    return Undo.from_json(value) if named else None


def _intent_key(line: dict[str, object], intent: object, op: object) -> tuple[str, ...]:
    """Return a key with victim and operation, so equal ids do not hide an intent."""
    return (str(line.get("trial") if intent is None else intent), str(line.get("victim")), str(op))


def _head_of(raw: bytes) -> dict[str, object]:
    """Return kind and trial of a line that is not JSON, if its beginning is intact."""
    head = _HEAD.match(raw)
    named = head.groupdict() if head else {}
    return {name: value.decode() for name, value in named.items() if value is not None}


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None
