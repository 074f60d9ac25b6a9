"""Reader of JSON-lines logs that another process writes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from pytest_llmchaos.model import UNREADABLE


@dataclass(frozen=True, kw_only=True)
class JsonLog:
    """Complete lines of a log, oldest first, and the spans of unreadable ones.

    Each span in `torn` is the times of the readable lines around it, in Unix seconds: 0
    before the first line, infinity after the last.
    """

    lines: tuple[Mapping[str, object], ...] = ()
    torn: tuple[tuple[float, float], ...] = ()


def parse(data: bytes) -> JsonLog:
    """Parse a log that is still being written. An unfinished last line is skipped."""
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
    """Return the lines plus an `unreadable` event for each torn span, at its end."""
    missing = [{"event": UNREADABLE, "at": end, "reason": f"written after {begin:.3f}"} for begin, end in log.torn]
    return sorted([*log.lines, *missing], key=at_of)


def at_of(line: Mapping[str, object]) -> float:
    """Unix time at which a line was written. 0 if it lacks one."""
    at = line.get("at")
    return float(at) if isinstance(at, int | float) else 0.0


def _line(raw: bytes) -> Mapping[str, object] | None:
    try:
        line: object = json.loads(raw)
    except ValueError:
        return None
    return cast("Mapping[str, object]", line) if isinstance(line, dict) else None
