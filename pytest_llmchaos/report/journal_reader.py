"""Reader of a run's journals and logs, including half-written lines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.evidence.journal import Unread, Written, lines
from pytest_llmchaos.evidence.trial_result import Unreadable

LOG_TAIL_BYTES = 64_000


@dataclass(frozen=True, kw_only=True)
class Journal:
    """Lines of all journals of a run, by wall time, and the unreadable ones."""

    lines: tuple[Written, ...]
    unreadable: tuple[Unreadable, ...]


def journal(run_dir: Path) -> Journal:
    """Read every `journal*.jsonl` of the run. Unreadable lines are listed.

    Raises:
        NotReady: The journal is missing, or is a folder.
    """
    paths = sorted(run_dir.glob("journal*.jsonl"))
    if not paths:
        raise NotReady(
            f"expected journal.jsonl in {run_dir}, found {'no such folder' if not run_dir.is_dir() else 'no such file'}: "
            "give the folder of one run, such as reports/latest"
        )
    found: list[Written] = []
    unreadable: list[Unreadable] = []
    for path in paths:
        if path.is_dir():
            raise NotReady(f"{path} must be a file, found a folder: restore the run's journal or give another run")
        for line in lines(path):
            if isinstance(line, Written):
                found.append(line)
            else:
                unreadable.append(_unreadable(path.name, line))
    found.sort(key=lambda line: line.at_unix_s)
    return Journal(lines=tuple(found), unreadable=tuple(unreadable))


def logs(run_dir: Path) -> dict[str, str]:
    """Return the last LOG_TAIL_BYTES of each log, by path relative to the run."""
    found = {}
    # Each worker of pytest-xdist has its own folder.
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
