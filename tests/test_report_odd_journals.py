"""Reports of journals with odd fields and later versions."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pytest_llmchaos import report
from pytest_llmchaos.evidence.journal import NAMES
from pytest_llmchaos.evidence.trial_result import RunResult

ROOT = Path(__file__).parent.parent
SCHEMA = jsonschema.Draft202012Validator(
    json.loads((ROOT / "pytest_llmchaos" / "report" / "run.schema.json").read_text())
)
GOLDEN = ROOT / "tests" / "golden" / "every_field" / "journal.jsonl"


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


# As text of a line, so that invalid JSON (NaN) and 1e999 are among them.
ODD = {
    "null": "null",
    "true": "true",
    "minus one": "-1",
    "a fraction": "0.5",
    "huge": "1" + "0" * 400,
    "huge and finite": "1e308",
    "beyond all numbers": "1e999",
    "not a number": "NaN",
    "infinite": "-Infinity",
    "text": '"odd"',
    "no text": '""',
    "half a character": '"\\ud800"',
    "a list": "[]",
    "a list of lists": '[["odd"], [[]]]',
    "an object": "{}",
    "an object of objects": '{"odd": {"odd": [null, 1.5]}}',
    "deep": json.dumps(nested(300)),
    "deeper than any reader goes": "[" * 100_000 + "]" * 100_000,
}
HERE = "what stands here is odd"


def of_each_kind() -> dict[str, dict[str, Any]]:
    """A line of each kind with every field that the golden run has there."""
    found: dict[str, dict[str, Any]] = {}
    for text in GOLDEN.read_text().splitlines():
        if text.endswith("}"):
            line = json.loads(text)
            found[line["kind"]] = {**found.get(line["kind"], {}), **line}
    return found


def places(value: Any, above: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The path of every field, at any depth. A list's first item stands for all."""
    inner = value.items() if isinstance(value, dict) else list(enumerate(value))[:1] if isinstance(value, list) else ()
    for key, item in inner:
        yield (*above, key)
        yield from places(item, (*above, key))


def spoiled(line: dict[str, Any], place: tuple[str | int, ...], odd: str) -> str:
    """The line with an odd value at this place."""
    made: Any = copy.deepcopy(line)
    holder = made
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = HERE
    return json.dumps(made).replace(json.dumps(HERE), odd)


def built(directory: Path, lines: list[str]) -> RunResult:
    """The report of these lines, after rendering all of it."""
    directory.mkdir()
    (directory / "journal.jsonl").write_text("".join(f"{line}\n" for line in lines))
    page = report.build(directory)
    text = (directory / "run.json").read_text()
    SCHEMA.validate(json.loads(text, parse_constant=pytest.fail))
    run = report.read_run(directory / "run.json")
    assert page.read_text().rstrip().endswith("</html>")
    assert report.summary_lines(run)
    return run


KINDS = of_each_kind()
CASES = [(kind, place) for kind, line in KINDS.items() for place in places(line) if place != ("kind",)]


def test_there_is_a_line_of_every_kind() -> None:
    assert set(KINDS) == NAMES


@pytest.mark.sampled(share=0.4)
@pytest.mark.parametrize("odd", ODD)
def test_a_field_of_a_trials_line_may_be_odd_in_each_of_many_trials(tmp_path: Path, odd: str) -> None:
    """One trial for each field of each kind. A line is used or listed."""
    lines = [json.dumps(KINDS["run"])]
    names = []
    for number, (kind, place) in enumerate(case for case in CASES if "trial" in KINDS[case[0]]):
        name = f"{number:03d}"
        names.append(name)
        whole = [kind_ for kind_ in ("trial", "anchor", "phase_begin", "judged") if kind_ != kind]
        lines += [json.dumps({**KINDS[each], "trial": name}) for each in whole]
        lines.append(spoiled({**KINDS[kind], "trial": name}, place, ODD[odd]))

    run = built(tmp_path / "r", lines)

    assert {trial.trial for trial in run.trials} >= set(names)
    assert all(one.why and one.line > 1 for one in run.unreadable)
    assert len(run.unreadable) == run.unreadable_lines
    assert run.seed == 42


# 18 reports a case. The test above has these values in the fields of a trial's lines.
@pytest.mark.sampled(share=0.3, by="kind")
@pytest.mark.parametrize(
    ("kind", "place"),
    [case for case in CASES if "trial" not in KINDS[case[0]]],
    ids=lambda part: part if isinstance(part, str) else ".".join(map(str, part)),
)
def test_a_field_of_a_runs_line_may_be_odd(tmp_path: Path, kind: str, place: tuple[str | int, ...]) -> None:
    """The trial of the run is reported whatever stands there."""
    trial = [json.dumps({**KINDS[each], "trial": "001"}) for each in ("trial", "judged", "claim")]
    for number, odd in enumerate(ODD.values()):
        run = built(tmp_path / f"r{number}", [spoiled(KINDS[kind], place, odd), *trial])

        assert [one.verdict for one in run.trials] == [KINDS["judged"]["verdict"]]
        assert run.unreadable_lines <= 1


def test_an_unreadable_line_is_named_with_its_reason(tmp_path: Path) -> None:
    judged = spoiled({**KINDS["judged"], "trial": "001"}, ("verdict",), '"splendid"')
    torn = '{"at_unix_s": 1.5, "kin'

    run = built(tmp_path / "r", [json.dumps({**KINDS["trial"], "trial": "001"}), judged, torn, "[1]", "not json"])

    assert [(one.journal, one.line, one.kind, one.trial) for one in run.unreadable] == [
        ("journal.jsonl", 2, "judged", "001"),
        ("journal.jsonl", 3, None, None),
        ("journal.jsonl", 4, None, None),
        ("journal.jsonl", 5, None, None),
    ]
    assert "$.verdict" in run.unreadable[0].why
    (trial,) = run.trials
    assert (trial.verdict, trial.judged) == ("invalid", False)
    assert trial.reason is not None
    assert trial.reason.startswith("the journal line with this trial's judgement is unreadable: ")
    assert "journal.jsonl, line 2 (judged): " in (tmp_path / "r" / "report.html").read_text()
    assert "4 journal lines could not be read" in (tmp_path / "r" / "report.html").read_text()


def test_a_line_of_a_kind_that_a_later_version_announced_is_passed_over(tmp_path: Path) -> None:
    begin = {**KINDS["run"], "kinds": ["run", "trial", "of a later version"]}
    later = {"at_unix_s": 1.5, "kind": "of a later version", "trial": "001"}

    run = built(tmp_path / "r", [json.dumps(one) for one in (begin, later, {**KINDS["trial"], "more": [1]})])

    assert (run.unreadable_lines, len(run.trials)) == (0, 1)


@pytest.mark.parametrize("announced", [[], ["run", "trial", "judged"]])
def test_a_line_whose_kind_was_damaged_into_another_word_is_unreadable(tmp_path: Path, announced: list[str]) -> None:
    begin = {**KINDS["run"], "kinds": announced}
    damaged = {"at_unix_s": 1.5, "kind": "jugded", "trial": "001"}

    run = built(tmp_path / "r", [json.dumps(one) for one in (begin, damaged, KINDS["trial"])])

    (unread,) = run.unreadable
    assert (unread.line, unread.kind) == (2, "jugded")
    assert "kind 'jugded' is not one of those that the journal's first line announces" in unread.why
