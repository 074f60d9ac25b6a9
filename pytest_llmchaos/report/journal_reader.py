"""Reads what a run left behind: journals and log excerpts. Tolerates what a killed process leaves half-written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.report.formatting import number

LOG_TAIL_BYTES = 64_000


@dataclass(frozen=True, kw_only=True)
class Journal:
    """The lines of all journals of one run, in order of wall time, and how many could not be read."""

    lines: tuple[dict[str, Any], ...]
    unreadable: int


def journal(run_dir: Path) -> Journal:
    """Every `journal*.jsonl` of the run as one. A torn last line is what a SIGKILL leaves: counted, never fatal."""
    paths = sorted(run_dir.glob("journal*.jsonl"))
    if not paths:
        raise NotReady(
            f"expected journal.jsonl in {run_dir}, found {'no such directory' if not run_dir.is_dir() else 'none'}: "
            "give the directory of one run, such as reports/latest"
        )
    lines: list[dict[str, Any]] = []
    unreadable = 0
    for path in paths:
        for raw in path.read_bytes().splitlines():
            if not raw.strip():
                continue
            line = _line(raw)
            if line is None:
                unreadable += 1
            else:
                lines.append(line)
    lines.sort(key=lambda line: _moment(line.get("at_unix_s")))
    return Journal(lines=tuple(lines), unreadable=unreadable)


def logs(run_dir: Path) -> dict[str, str]:
    """The end of each kept log, by name relative to the run. Log text is foreign: it is shown, never interpreted."""
    found = {}
    for path in sorted([*run_dir.glob("logs/*.txt"), *run_dir.glob("trials/*/logs/*.txt")]):
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_TAIL_BYTES))
            found[str(path.relative_to(run_dir))] = file.read().decode("utf-8", "replace")
    return found


def _line(raw: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) and isinstance(line.get("kind"), str) else None


def _moment(value: Any) -> float:
    return number(value) or 0.0
