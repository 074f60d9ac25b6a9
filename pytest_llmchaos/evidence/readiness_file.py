"""What a service's readiness path answered while a load ran: one JSON array of time and status a line."""

from __future__ import annotations

import json
from pathlib import Path

from pytest_llmchaos.evidence.trial_result import ReadySpan

NAME = "readyz.jsonl"


def line(at_s: float, status: int) -> bytes:
    """One look: when it was taken, in seconds since the load's start, and the HTTP status; 0 where no answer came."""
    return f"[{at_s:.3f},{status}]\n".encode()


def load(folder: Path) -> tuple[ReadySpan, ...]:
    """Spans of one status each, in order of time; empty where nothing was asked.

    A span lasts until the next look that saw something else, the last one until the last look.
    """
    path = folder / NAME
    if not path.is_file():
        return ()
    whole = path.read_bytes().rpartition(b"\n")[0]
    looks = [(float(at_s), int(status)) for at_s, status in map(json.loads, whole.splitlines())]
    starts = [i for i, (_, status) in enumerate(looks) if not i or looks[i - 1][1] != status]
    ends = [*(looks[i][0] for i in starts[1:]), *(at_s for at_s, _ in looks[-1:])]
    return tuple(
        ReadySpan(from_s=looks[i][0], to_s=end, status=looks[i][1]) for i, end in zip(starts, ends, strict=True)
    )
