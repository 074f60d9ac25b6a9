"""Builds a run's report from the files it left: the only part of the report that writes. Atomic: whole files or none."""

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
    """Writes run.json, report.html and summary.md beside the journal, returns report.html.

    Needs nothing but the run's own files, so a run that was killed can be reported later, and twice gives the same bytes.
    Raises NotReady where there is no journal, where it has no readable run, or where a folder has a report's name;
    no former report is touched then.
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
                f"expected {path} to be a file or absent, found a folder: move it away, then build the report again"
            )
    for path, text in texts.items():
        _write(path, text)
    return run_dir / "report.html"


def _require_run(run_dir: Path, read: Journal) -> None:
    if any(isinstance(one.line, RunBegin | TrialLine) for one in read.lines):
        return
    seen = count(len(read.lines), "line") + " of other kinds" if read.lines else "none"
    if read.unreadable:
        first = read.unreadable[0]
        lost = count(len(read.unreadable), "unreadable line")
        seen = (
            f"{seen} and {lost}, the first of them in {first.journal}, line {first.line} ({one_line(first.why, 120)})"
        )
    raise NotReady(
        f"expected a readable line of the kind 'run' or of a trial in the journal in {run_dir}, found {seen}; no report was "
        "written: put back a whole copy of the journal, or give the directory of another run"
    )


def _samples(run_dir: Path, samples: str | None, lacks: list[str]) -> Iterator[Sample]:
    """A trial's samples; none if its load never started. A path that leads out of the run is not followed.

    Why there are fewer than the trial left goes into `lacks`.
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
