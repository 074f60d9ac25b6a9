"""Verdicts of trials with unreadable journal lines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support import reportdata
from support.reportdata import Made

from pytest_llmchaos import report
from pytest_llmchaos.errors import verdict_after
from pytest_llmchaos.evidence.trial_result import RunResult
from pytest_llmchaos.report.fold import LOST, UNCLAIMED
from pytest_llmchaos.report.summary import headline, summary_lines

TORN = b'{"at_unix_s": 1795454'
Spoil = Callable[[str], str]


def cut_in_half(line: str) -> str:
    return line[: len(line) // 2]


def misspell(line: str) -> str:
    return line.replace('"failed"', '"faillled"')


def lose_its_head(line: str) -> str:
    return line[20:]


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """Two trials. Every claim of the first one failed."""
    failed = [("test_first", "failed", "assert 3 == 0"), ("test_second", "failed", "assert 4 == 0")]
    return reportdata.run_dir(tmp_path, [Made(claims=failed), Made(repeat=1)])


def rebuilt(run_dir: Path, spoil: Spoil, *, trial: str = "001", kinds: tuple[str, ...] = ("claim",)) -> RunResult:
    """The report after these lines of a trial were spoiled."""
    path = run_dir / "journal.jsonl"
    kept = []
    for line in path.read_text().splitlines():
        its = json.loads(line)
        kept.append(spoil(line) if its.get("trial") == trial and (not kinds or its["kind"] in kinds) else line)
    path.write_text("".join(f"{line}\n" for line in kept))
    return built(run_dir)


def built(run_dir: Path) -> RunResult:
    report.build(run_dir)
    return report.read_run(run_dir / "run.json")


def verdicts(run: RunResult) -> dict[str, str]:
    return {trial.trial: trial.verdict for trial in run.trials}


@pytest.mark.parametrize("spoil", [cut_in_half, misspell])
def test_a_trial_whose_claims_cannot_be_read_is_invalid(run_dir: Path, spoil: Spoil) -> None:
    run = rebuilt(run_dir, spoil)

    assert verdicts(run) == {"001": "invalid", "002": "held"}
    assert (run.trials[0].reason or "").startswith("the journal line of a claim about this trial is unreadable: ")
    said = "1 of 2 proves nothing, 1 held; 2 journal lines could not be read"
    assert headline(run) == said
    assert said in summary_lines(run)
    assert (run_dir / "summary.md").read_text().startswith(f"## {said}\n")
    assert said in (run_dir / "report.html").read_text()


def test_one_unreadable_claim_is_enough(run_dir: Path) -> None:
    path = run_dir / "journal.jsonl"
    path.write_text(path.read_text().replace('"failed"', '"faillled"', 1).replace('"failed"', '"passed"'))

    assert verdicts(built(run_dir)) == {"001": "invalid", "002": "held"}


def test_a_failed_claim_refutes_despite_an_unreadable_one(run_dir: Path) -> None:
    path = run_dir / "journal.jsonl"
    path.write_text(path.read_text().replace('"failed"', '"faillled"', 1))

    assert verdicts(built(run_dir)) == {"001": "refuted", "002": "held"}


def test_a_trial_of_which_no_line_can_be_read_is_still_counted(run_dir: Path) -> None:
    run = rebuilt(run_dir, lambda line: line[:-1], kinds=())

    assert verdicts(run) == {"002": "held", "001": "invalid"}
    assert headline(run).startswith("1 of 2 proves nothing, 1 held; ")


def test_a_trial_with_only_harmless_damage_is_marked(run_dir: Path) -> None:
    path = run_dir / "journal.jsonl"
    path.write_text(path.read_text() + '{"at_unix_s": 1.5, "kind": "event", "trial": "003", "at\n')

    run = built(run_dir)

    assert (run.trials[2].trial, run.trials[2].verdict, run.trials[2].reason) == ("003", "invalid", LOST)


def test_a_damaged_line_that_is_no_claim_takes_no_verdict_away(tmp_path: Path) -> None:
    run_dir = reportdata.run_dir(tmp_path, [Made()])

    run = rebuilt(run_dir, cut_in_half, kinds=("anchor",))

    assert headline(run) == "The experiment held; 1 journal line could not be read"


@pytest.mark.parametrize("spoil", [lose_its_head, lambda _: "\x00\x01"], ids=["no head", "other bytes"])
def test_no_headline_reports_all_held_if_a_lines_trial_is_unknown(tmp_path: Path, spoil: Spoil) -> None:
    one = ("test_first", "passed", None)
    run_dir = reportdata.run_dir(tmp_path, [Made(claims=[one, one]), Made(repeat=1, claims=[one])])
    path = run_dir / "journal.jsonl"
    whole = path.read_text().splitlines()
    last = max(i for i, line in enumerate(whole) if '"kind": "claim", "trial": "001"' in line)
    whole[last] = spoil(whole[last])
    path.write_text("".join(f"{line}\n" for line in whole))

    run = built(run_dir)

    assert verdicts(run) == {"001": "held", "002": "held"}
    assert headline(run) == "2 of 2 held in the readable lines; 1 journal line could not be read"


def test_a_judged_trial_without_a_claim_did_not_hold_where_its_claims_may_be_lost(run_dir: Path) -> None:
    run = rebuilt(run_dir, lose_its_head)

    assert verdicts(run) == {"001": "invalid", "002": "held"}
    assert run.trials[0].reason == UNCLAIMED


@pytest.mark.parametrize("status", [0, 2, None])
def test_a_judged_trial_without_a_claim_did_not_hold_however_its_run_ended(tmp_path: Path, status: int | None) -> None:
    run_dir = reportdata.run_dir(tmp_path, [Made(claims=[])], ended=False)
    if status is not None:
        with (run_dir / "journal.jsonl").open("a") as file:
            file.write(f'{{"at_unix_s": 1795450000.0, "kind": "run_end", "exit_status": {status}}}\n')

    run = built(run_dir)

    assert verdicts(run) == {"001": "invalid"}
    assert run.trials[0].reason == UNCLAIMED


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [
        (("passed",), "held"),
        (("passed", "skipped"), "invalid"),
        (("skipped",), "invalid"),
        (("skipped", "error", "failed"), "refuted"),
    ],
)
def test_a_trial_held_if_a_claim_passed_and_none_did_otherwise(
    tmp_path: Path, outcomes: tuple[str, ...], verdict: str
) -> None:
    claims = [(f"test_{number}", outcome, None) for number, outcome in enumerate(outcomes)]
    run = built(reportdata.run_dir(tmp_path, [Made(claims=claims)]))

    assert verdicts(run) == {"001": verdict}
    assert verdict_after(outcomes) == verdict
    if verdict == "invalid":
        assert "not judged by" in str(run.trials[0].reason)


def test_the_cut_off_end_of_a_run_that_was_killed_takes_nothing_away(tmp_path: Path) -> None:
    run_dir = reportdata.run_dir(tmp_path, [Made()], ended=False)
    path = run_dir / "journal.jsonl"
    path.write_bytes(path.read_bytes() + TORN)

    run = built(run_dir)

    assert (headline(run), run.unreadable_lines) == ("The experiment held until the run was cut off", 1)


def test_a_cut_off_end_that_was_a_claim_leaves_its_trial_invalid(tmp_path: Path) -> None:
    run_dir = reportdata.run_dir(tmp_path, [Made()], ended=False)
    path = run_dir / "journal.jsonl"
    path.write_bytes(path.read_bytes() + b'{"at_unix_s": 1795454.5, "kind": "claim", "trial": "001", "nodeid": "test_x')

    assert verdicts(built(run_dir)) == {"001": "invalid"}
