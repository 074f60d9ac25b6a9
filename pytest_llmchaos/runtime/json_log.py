"""Logs of JSON lines that another process writes: the lines, and where one is missing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from pytest_llmchaos.model import UNREADABLE


@dataclass(frozen=True, kw_only=True)
class JsonLog:
    """The whole lines of a log, oldest first. `torn` has the times around each line that cannot be read (Unix seconds).

    The time before the first line is 0; the time after the last line is infinite.
    """

    lines: tuple[Mapping[str, object], ...] = ()
    torn: tuple[tuple[float, float], ...] = ()


def parse(data: bytes) -> JsonLog:
    """The log in a file that is being written. A last line without an end is not whole yet, and passed over."""
    lines: list[Mapping[str, object]] = []
    torn: list[tuple[float, float]] = []
    is_torn, last_s = False, 0.0
    for raw in data.split(b"\n")[:-1]:
        line = _line(raw)
        if line is None:
            is_torn = True
            continue
        if is_torn:
            torn.append((last_s, at_of(line)))
            is_torn = False
        lines.append(line)
        last_s = at_of(line) or last_s
    if is_torn:
        torn.append((last_s, float("inf")))
    return JsonLog(lines=tuple(lines), torn=tuple(torn))


def with_torn(log: JsonLog) -> list[Mapping[str, object]]:
    """The lines, with one of the event `unreadable` in the place of each that is missing, at the latest that it can be."""
    missing = [{"event": UNREADABLE, "at": end, "reason": f"written after {begin:.3f}"} for begin, end in log.torn]
    return sorted([*log.lines, *missing], key=at_of)


def at_of(line: Mapping[str, object]) -> float:
    """When a line was written; 0 if it does not say."""
    at = line.get("at")
    return float(at) if isinstance(at, int | float) else 0.0


def _line(raw: bytes) -> Mapping[str, object] | None:
    try:
        line: object = json.loads(raw)
    except ValueError:
        return None
    return cast("Mapping[str, object]", line) if isinstance(line, dict) else None
