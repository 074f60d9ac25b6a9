"""Golden runs: later versions report the same fields of a journal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jsonschema
import pytest

from pytest_llmchaos import report

ROOT = Path(__file__).parent.parent
GOLDEN = {"sample": ROOT / "reports" / "sample", "every_field": ROOT / "tests" / "golden" / "every_field"}
WRITTEN = ("run.json", "report.html", "summary.md")
RUN_SCHEMA = json.loads((ROOT / "pytest_llmchaos" / "report" / "run.schema.json").read_text())
JOURNAL_SCHEMA = json.loads((ROOT / "pytest_llmchaos" / "evidence" / "journal.schema.json").read_text())


def without_additions(now: object, golden: object) -> object:
    """`now` without the fields that the golden value lacks: fields may be added."""
    if isinstance(now, dict) and isinstance(golden, dict):
        return {name: without_additions(now[name], golden[name]) for name in now.keys() & golden.keys()}
    if isinstance(now, list) and isinstance(golden, list) and len(now) == len(golden):
        return [without_additions(*pair) for pair in zip(now, golden, strict=True)]
    return now


@pytest.fixture(params=GOLDEN)
def golden(request: pytest.FixtureRequest) -> Path:
    return GOLDEN[request.param]


@pytest.fixture
def rebuilt(golden: Path, tmp_path: Path) -> Path:
    run_dir = tmp_path / golden.name
    shutil.copytree(golden, run_dir, ignore=shutil.ignore_patterns(*WRITTEN))
    report.build(run_dir)
    return run_dir


def test_a_golden_run_is_reported_as_before(golden: Path, rebuilt: Path) -> None:
    before = json.loads((golden / "run.json").read_text())

    now = json.loads((rebuilt / "run.json").read_text())

    assert without_additions(now, before) == before
    assert (rebuilt / "summary.md").read_text() == (golden / "summary.md").read_text()


def test_a_golden_run_validates(golden: Path, rebuilt: Path) -> None:
    validator = jsonschema.Draft202012Validator(RUN_SCHEMA)

    for run_dir in (golden, rebuilt):
        run = json.loads((run_dir / "run.json").read_text())
        assert [str(problem) for problem in validator.iter_errors(run)] == []


def test_every_whole_line_of_a_golden_journal_validates(golden: Path) -> None:
    validator = jsonschema.Draft202012Validator(JOURNAL_SCHEMA)
    lines = (golden / "journal.jsonl").read_text().splitlines(keepends=True)
    whole = [json.loads(line) for line in lines if line.endswith("\n")]

    assert whole
    assert [str(problem) for line in whole for problem in validator.iter_errors(line)] == []
