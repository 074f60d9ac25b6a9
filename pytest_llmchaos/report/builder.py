"""Builds the report from the files of a run and writes it atomically."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from msgspec import to_builtins
from msgspec.structs import replace

from pytest_llmchaos.errors import LlmchaosError, NotReady
from pytest_llmchaos.evidence.journal_lines import RunBegin, TrialLine
from pytest_llmchaos.evidence.samples_file import read as read_samples
from pytest_llmchaos.evidence.trial_result import TrialResult
from pytest_llmchaos.model import Sample
from pytest_llmchaos.report.aggregates import times
from pytest_llmchaos.report.binning import Raw, gather, with_counts
from pytest_llmchaos.report.control_arms import effect
from pytest_llmchaos.report.fold import fold
from pytest_llmchaos.report.formatting import count, one_line
from pytest_llmchaos.report.journal_reader import Journal, journal, logs
from pytest_llmchaos.report.page import page
from pytest_llmchaos.report.summary import markdown


def build(run_dir: Path) -> Path:
    """Write run.json, report.html and summary.md next to the journal.

    Reads only the run's own files, so the report of a killed run can be built later.
    The same files give the same bytes.

    Args:
        run_dir: Folder of the run.

    Returns:
        Path of report.html.

    Raises:
        NotReady: The journal is missing or has no readable run, or a folder has the
            name of a report file. Existing reports are left as they are.
    """
    run_dir = run_dir.resolve()
    read = journal(run_dir)
    _require_run(run_dir, read)
    run = fold(read.lines, read.unreadable)
    raws: dict[str, Raw] = {}
    trials: list[TrialResult] = []
    for trial in run.trials:
        lacks: list[str] = []
        raw = raws[trial.trial] = gather(_samples(run_dir, trial.samples, lacks))
        trials.append(replace(trial, phases=with_counts(raw, trial.phases), findings=(*trial.findings, *lacks)))
    trials = [replace(trial, effect=effect(trial, trials, raws)) for trial in trials]
    run = replace(run, trials=tuple(trials), times=tuple(spread.result() for spread in times(trials)))
    texts = {
        run_dir / "run.json": json.dumps(to_builtins(run), indent=1, allow_nan=False) + "\n",
        run_dir / "summary.md": markdown(run),
        run_dir / "report.html": page(run, raws, logs(run_dir)),
    }
    for path in texts:
        if path.is_dir():
            raise NotReady(
                f"{path} must be a file or absent, found a folder: move it away, then build the report again"
            )
    for path, text in texts.items():
        _write(path, text)
    return run_dir / "report.html"


def _require_run(run_dir: Path, read: Journal) -> None:
    if any(isinstance(one.line, RunBegin | TrialLine) for one in read.lines):
        return
    seen = count(len(read.lines), "line") + " of other kinds" if read.lines else "no lines"
    if read.unreadable:
        first = read.unreadable[0]
        lost = count(len(read.unreadable), "unreadable line")
        seen = (
            f"{seen} and {lost}, the first of them in {first.journal}, line {first.line} ({one_line(first.why, 120)})"
        )
    raise NotReady(
        f"the journal in {run_dir} must have a readable line of kind 'run' or of a trial, found {seen}: restore a "
        "complete copy of the journal or give the folder of another run. No report was written"
    )


def _samples(run_dir: Path, samples: str | None, lacks: list[str]) -> Iterator[Sample]:
    """Yield a trial's samples, and append the reason to `lacks` if some are unreadable.

    Yields none if the load never started. A path out of the run's folder is ignored.
    """
    try:
        path = (run_dir / (samples or "")).resolve()
        if path.is_relative_to(run_dir) and path.is_file():
            yield from read_samples(path)
    except (LlmchaosError, OSError, ValueError) as error:
        lacks.append(f"the charts lack samples: {str(error).replace(f'{run_dir}/', '')}")


def _write(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(text, encoding="utf-8", errors="backslashreplace")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
