"""File of readiness polls, with one JSON array of time and status a line."""

from __future__ import annotations

import json
from pathlib import Path

from msgspec import structs

from pytest_llmchaos.evidence.trial_result import ReadySpan

NAME = "readyz.jsonl"


def line(at_s: float, status: int) -> bytes:
    """Return the line of one poll.

    Args:
        at_s: Seconds from the load's start.
        status: HTTP status, or 0 without an answer.
    """
    return f"[{at_s:.3f},{status}]\n".encode()


def load(folder: Path) -> tuple[ReadySpan, ...]:
    """Return spans of one status each, in order. Empty without polls.

    A span lasts until the next poll with another status, the last one until the last
    poll.
    """
    path = folder / NAME
    if not path.is_file():
        return ()
    whole = path.read_bytes().rpartition(b"\n")[0]
    spans: list[ReadySpan] = []
    for at_s, status in ((float(at_s), int(status)) for at_s, status in map(json.loads, whole.splitlines())):
        if spans:
            spans[-1] = structs.replace(spans[-1], to_s=at_s)
        if not spans or spans[-1].status != status:
            spans.append(ReadySpan(from_s=at_s, to_s=at_s, status=status))
    return tuple(spans)
