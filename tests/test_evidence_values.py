"""The values in `run.json` and the journal, from complete and old files."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from pytest_llmchaos.evidence.journal_lines import RunBegin, UndoNote
from pytest_llmchaos.evidence.trial_result import Counts, Planned, RunResult, TrialResult
from pytest_llmchaos.generate.schemas import schemas

ROOT = Path(__file__).parent.parent
SCHEMAS = schemas(ROOT)


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.name)
def test_a_schema_is_the_one_of_the_values(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == SCHEMAS[path]


def test_a_trial_without_a_plan_is_the_first_with_a_remediator() -> None:
    planned = Planned()

    assert (planned.scenario, planned.fault, planned.hypothesis) == ("unknown", "unknown", "")
    assert (planned.remediator, planned.repeat) == (True, 0)


def test_a_trial_is_not_judged_until_it_is() -> None:
    assert not TrialResult(trial="001", verdict="invalid").judged


def test_counts_are_0_by_default() -> None:
    assert Counts().by_verdict() == {"refuted": 0, "heal_failed": 0, "invalid": 0, "inconclusive": 0, "held": 0}
    about = dict.fromkeys(("seed", "replay", "runtime", "backend", "started_unix_s", "ended_unix_s", "exit_status"))
    run = RunResult(run="r", environment={}, counts=Counts(), trials=(), **about)
    assert (run.unreadable_lines, run.unreadable) == (0, ())


def test_what_needs_a_reader_first_is_counted_first() -> None:
    assert list(Counts(held=3, refuted=1).by_verdict().items())[0::4] == [("refuted", 1), ("held", 3)]


def test_an_undo_with_unknown_fields_is_refused() -> None:
    undo = {"op": "ensure_running", "service": "api", "args": {}}

    assert msgspec.convert(undo, UndoNote) == UndoNote(op="ensure_running", service="api", args={})
    with pytest.raises(msgspec.ValidationError, match="unknown field `after`"):
        msgspec.convert({**undo, "after": 3}, UndoNote)


@pytest.mark.parametrize(("count", "is_one"), [(-1, False), (0, True), (2**53, True), (2**53 + 1, False)])
def test_a_count_is_a_number_that_every_reader_keeps_exactly(count: int, is_one: bool) -> None:
    read = lambda: msgspec.convert({"held": count}, Counts)  # noqa: E731 - what is tried

    if is_one:
        assert read().held == count
    else:
        with pytest.raises(msgspec.ValidationError, match="Expected `int`"):
            read()


def test_a_seed_is_not_below_0() -> None:
    about = {
        "kind": "run",
        "schema": "llmchaos-journal/1",
        "run": "r",
        "runtime": "local",
        "backend": "sim",
        "schedule": [],
    }

    assert msgspec.convert({**about, "seed": 0}, RunBegin).seed == 0
    with pytest.raises(msgspec.ValidationError, match="seed"):
        msgspec.convert({**about, "seed": -1}, RunBegin)
