"""The append-only record of a run. Each line is on disk before `write` returns; it decides nothing."""

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

# Fields with text of which the instrument wrote at most a part: messages of programs, command lines, answers.
FOREIGN = frozenset(
    {"replay", "environment", "images", "message", "reason", "what", "why", "witness", "findings", "trouble", "unknown"}
)
CUT_OFF = "the line is cut off"
NAMES = frozenset(str(kind.__struct_config__.tag) for kind in KINDS)


# How `Journal.write` begins a line; each name is whole, or is not there.
_HEAD = re.compile(
    rb'\s*\{"at_unix_s":\s*[-+.\dEe]+,\s*"kind":\s*"(?P<kind>\w+)"(?:,\s*"trial":\s*"(?P<trial>[\w.-]+)")?'
)


class Journal:
    """One file of JSON lines, written and fsynced one by one, so that a dead process leaves at most one torn line.

    `write` comes before an act, and raises EvidenceLost (a full disk, say): what could not be written down is then not done
    either. `note` comes after one, on the way out; it never raises, and `lost` keeps what it could not write.
    `keep_intents` has intents and their undos written to a second file first, which outlives the journal.
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
        """Write intents and their undos to this file as well. Raises OSError."""
        self._kept = _File(path, _open_to_append(path))

    def write(self, line: Line) -> None:
        stamped = {"at_unix_s": round(time.time(), 6), **_without_secrets(msgspec.to_builtins(line, enc_hook=str))}
        files = [_File(self.path, self._fd)]
        if self._kept is not None and isinstance(line, Intent | Undone):
            files = [self._kept, *files]
        # What a failed write left of its line must not swallow this one.
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
    """A line and when it was written."""

    at_unix_s: float
    line: Line


class Unread(msgspec.Struct, frozen=True, kw_only=True):
    """A line that could not be read, with its JSON; if it is not JSON, with what its beginning says."""

    number: int
    why: str
    value: dict[str, object]


def parse(raw: bytes) -> dict[str, object]:
    """The JSON object of one line. A number without a finite value becomes null. Raises ValueError."""
    try:
        value = json.loads(raw, parse_constant=lambda _: None, parse_float=_finite)
    except RecursionError:
        raise ValueError("too deeply nested") from None
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, got {type(value).__name__}")
    return value


def line_of(value: dict[str, object]) -> Written | None:
    """The typed line of a JSON object; None for a kind that this version lacks. Raises ValueError."""
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
    """Every line of a journal, in order. Those that do not decode are named.

    A later version may write kinds that this one lacks; its first line announces them, and they are passed over. An
    unknown kind that was not announced is a damaged line.
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
    """The JSON of each line that has a kind, for readers of single fields. A torn last line is passed over."""
    with path.open("rb") as file:
        for raw in file:
            with contextlib.suppress(ValueError):
                if raw.endswith(b"\n") and "kind" in (value := parse(raw)):
                    yield value


class OpenIntents(NamedTuple):
    """What was announced and not yet undone, newest first. `unreadable` names in words what another process cannot undo."""

    undos: tuple[Undo, ...]
    unreadable: tuple[str, ...]


def open_intents(path: Path) -> OpenIntents:
    """The undo of every fault that was announced and not yet undone.

    Each is matched by the id of its intent. Journals of earlier versions lack ids: there victim and operation must do.
    Only the undo itself has to be readable: whatever else is odd in a line, its fault is undone. A torn line was not
    written before an act.
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
    """None where it does not say what is to be done on what."""
    if not isinstance(value, dict) or not isinstance(value.get("args", {}), dict):
        return None
    named = all(isinstance(value.get(key), str) and value[key] for key in ("op", "service"))
    return Undo.from_json(value) if named else None


def _intent_key(line: dict[str, object], intent: object, op: object) -> tuple[str, ...]:
    """Victim and operation are a part of it, so that no intent hides another of the same id."""
    return (str(line.get("trial") if intent is None else intent), str(line.get("victim")), str(op))


def _head_of(raw: bytes) -> dict[str, object]:
    """Kind and trial of a line that is no JSON, as far as its beginning is as it was written."""
    head = _HEAD.match(raw)
    named = head.groupdict() if head else {}
    return {name: value.decode() for name, value in named.items() if value is not None}


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None
