"""Reads what a run left behind: journals and log excerpts. Tolerates what a killed process leaves half-written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.evidence.journal import Unread, Written, lines
from pytest_llmchaos.evidence.trial_result import Unreadable

LOG_TAIL_BYTES = 64_000


@dataclass(frozen=True, kw_only=True)
class Journal:
    """The lines of all journals of one run, in order of wall time, and those that could not be read."""

    lines: tuple[Written, ...]
    unreadable: tuple[Unreadable, ...]


def journal(run_dir: Path) -> Journal:
    """Every `journal*.jsonl` of the run as one. An unreadable line is listed; the others are kept.

    Raises NotReady where there is no journal, or a folder of its name.
    """
    paths = sorted(run_dir.glob("journal*.jsonl"))
    if not paths:
        raise NotReady(
            f"expected journal.jsonl in {run_dir}, found {'no such directory' if not run_dir.is_dir() else 'none'}: "
            "give the directory of one run, such as reports/latest"
        )
    found: list[Written] = []
    unreadable: list[Unreadable] = []
    for path in paths:
        if path.is_dir():
            raise NotReady(f"expected a file {path}, found a folder: put back the run's journal, or give another run")
        for line in lines(path):
            if isinstance(line, Written):
                found.append(line)
            else:
                unreadable.append(_unreadable(path.name, line))
    found.sort(key=lambda line: line.at_unix_s)
    return Journal(lines=tuple(found), unreadable=tuple(unreadable))


def logs(run_dir: Path) -> dict[str, str]:
    """The end of each kept log, by name relative to the run. Log text is foreign: it is shown, never interpreted."""
    found = {}
    # Each worker of pytest-xdist has a folder of its own for its stack.
    for path in sorted(
        path for where in ("logs", "*/logs", "trials/*/logs") for path in run_dir.glob(f"{where}/*.txt")
    ):
        if not path.is_file():
            continue
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_TAIL_BYTES))
            found[str(path.relative_to(run_dir))] = file.read().decode("utf-8", "replace")
    return found


def _unreadable(journal: str, line: Unread) -> Unreadable:
    kind, trial = (value if isinstance(value, str) else None for value in map(line.value.get, ("kind", "trial")))
    return Unreadable(journal=journal, line=line.number, why=line.why, kind=kind, trial=trial)
