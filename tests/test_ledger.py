"""The ledger of the error budget: what is appended is read again, whatever happened to the run."""

from __future__ import annotations

import dataclasses
import math
import re
import threading
from pathlib import Path
from typing import Any

import pytest

from pytest_llmchaos.cli import main
from pytest_llmchaos.errors import BadScenario, NotReady
from pytest_llmchaos.evidence.ledger import Entry, append, read, table
from pytest_llmchaos.slo.arithmetic import Slo
from pytest_llmchaos.trial.slo_result import SloResult, ledger_entry

RESULT = SloResult(
    slo=Slo(name="availability", objective=0.995, window_days=30, description="d", good="g", total="t"),
    good=490,
    total=500,
    window_s=60,
    rate_rps=8,
    query="q",
)


def kill(**others: Any) -> Entry:
    one = ledger_entry(
        RESULT, at_unix_s=1000, run="r1", trial="001", scenario="kill_api", fault="kill api", verdict="held"
    )
    return dataclasses.replace(one, **others)


def test_a_result_becomes_an_entry_that_knows_its_share_of_the_budget() -> None:
    assert (kill().bad, kill().budget_events) == (10, pytest.approx(103_680))
    assert kill().spent == pytest.approx(RESULT.budget_spent)


def test_what_is_appended_is_read_again_in_its_order(tmp_path: Path) -> None:
    path = tmp_path / "reports" / "ledger.jsonl"
    append(path, [kill(), kill(trial="002")])
    append(path, [])
    append(path, [kill(run="r2")])

    assert read(path).entries == (kill(), kill(trial="002"), kill(run="r2"))


@pytest.mark.parametrize(("name", "seen"), [("none.jsonl", "nothing"), (".", "a folder")])
def test_a_ledger_that_is_no_file_is_an_error_that_names_it(tmp_path: Path, name: str, seen: str) -> None:
    with pytest.raises(NotReady, match=f"expected a ledger at .*, found {seen}"):
        read(tmp_path / name)


@pytest.mark.parametrize("cut", [30, 1])
def test_a_torn_line_is_left_out_and_spoils_no_later_one(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "ledger.jsonl"
    append(path, [kill(), kill(trial="002")])
    path.write_text(path.read_text()[:-cut])
    torn = cut > 1
    before = (kill(),) if torn else (kill(), kill(trial="002"))

    assert read(path).entries == before
    append(path, [kill(trial="003")])

    found = read(path)
    assert found.entries == (*before, kill(trial="003"))
    assert len(found.unreadable) == torn


NO_ENTRIES = {
    "{": "",
    "[1]": "an object is needed, not list",
    "null": "not NoneType",
    "{}": "it lacks at_unix_s, run, ",
    '{"slo": "availability"}': "it lacks at_unix_s",
    "text": "",
    "\ud800": "",
    "[" * 100_000: "",
}


@pytest.mark.parametrize("line", NO_ENTRIES, ids=lambda line: ascii(line[:10]))
def test_a_line_that_is_none_is_named_and_the_others_are_read(tmp_path: Path, line: str) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(f"{line}\n".encode("utf-8", "surrogatepass"))
    append(path, [kill()])

    found = read(path)

    assert found.entries == (kill(),)
    (why,) = found.unreadable
    assert "ledger.jsonl:1: expected a ledger line, got " in why
    assert NO_ENTRIES[line] in why
    assert "__init__" not in why


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("run", "7"),
        ("bad", '"many"'),
        ("total", "true"),
        ("good", "1" + "0" * 400),
        ("objective", "NaN"),
        ("bad", "1e999"),
    ],
)
def test_a_field_that_is_odd_makes_its_line_unreadable(tmp_path: Path, field: str, value: str) -> None:
    path = tmp_path / "ledger.jsonl"
    append(path, [kill()])
    spoiled = re.sub(f'"{field}": [^,}}]+', f'"{field}": {value}', path.read_text())
    append(path, [kill(trial="002")])
    path.write_text(spoiled + path.read_text())

    found = read(path)

    assert (found.entries, len(found.unreadable)) == ((kill(), kill(trial="002")), 1)


def test_a_file_without_a_ledger_line_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "ls"
    path.write_bytes(bytes(range(256)) * 4)

    with pytest.raises(BadScenario, match=r"ls:1: expected a ledger line, got .*; no line of this file"):
        read(path)


class TestCommand:
    @pytest.mark.parametrize("name", [".", "none.jsonl", "ls", "empty-object.jsonl"])
    def test_says_one_error_of_what_is_no_ledger(
        self, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "ls").write_bytes(b"\x7fELF\xff\x00\n")
        (tmp_path / "empty-object.jsonl").write_text("{}\n")

        status = main(["budget", "--ledger", str(tmp_path / name)])

        said = capsys.readouterr()
        assert (status, said.out, said.err.count("\n")) == (1, "", 1)
        assert said.err.startswith("llmchaos: ")
        assert str(tmp_path / name) in said.err

    def test_counts_the_lines_that_it_leaves_out(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "ledger.jsonl"
        path.write_text("odd\nodd\n")
        append(path, [kill()])

        assert main(["budget", "--ledger", str(path)]) == 0

        said = capsys.readouterr()
        assert said.err.startswith("llmchaos: 2 lines were left out of the table: ")
        assert "kill_api" in said.out

    def test_of_no_run_yet_is_no_error(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.chdir(tmp_path)

        assert main(["budget"]) == 0
        assert capsys.readouterr().out == (
            "no trial in the ledger yet: there is no file reports/ledger.jsonl here; give another one with --ledger\n"
        )

    def test_of_a_service_level_that_the_ledger_has_not_names_those_it_has(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        append(tmp_path / "ledger.jsonl", [kill()])

        assert main(["budget", "--ledger", str(tmp_path / "ledger.jsonl"), "--slo", "availabilty"]) == 1

        said = "llmchaos: --slo must be one of the service levels of the ledger, availability, got 'availabilty'\n"
        assert capsys.readouterr().err == said


def test_fields_of_a_later_version_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    append(path, [kill()])
    path.write_text(path.read_text().replace('{"at', '{"colour": "red", "at'))

    assert read(path).entries == (kill(),)


def test_runs_in_parallel_do_not_cut_each_others_lines(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    runs = [
        threading.Thread(target=lambda name=f"r{i}": [append(path, [kill(run=name)] * 3) for _ in range(5)])
        for i in range(6)
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join()

    assert sorted(one.run for one in read(path).entries) == sorted(f"r{i}" for i in range(6) for _ in range(15))


@pytest.mark.parametrize(
    ("field", "value"), [("bad", math.nan), ("total", -1.0), ("rate_rps", math.inf), ("objective", 1.0)]
)
def test_numbers_that_cannot_be_are_refused(field: str, value: float) -> None:
    with pytest.raises(BadScenario, match="must be"):
        kill(**{field: value})


def test_an_slo_that_nobody_asks_anything_of_spends_all_by_one_bad_event() -> None:
    assert kill(rate_rps=0.0).spent == math.inf


class TestTable:
    def test_shows_each_experiment_and_what_all_would_leave(self) -> None:
        lines = table([kill(run="r2", at_unix_s=2000, bad=51_840.0), kill()]).splitlines()

        assert lines[0] == (
            "run  scenario  fault     slo           bad events  of events  of the month's budget  verdict"
        )
        assert lines[1].startswith("r1   kill_api  kill api  availability  10          500")
        assert lines[2].endswith("50 %                   held")
        assert lines[-2:] == [
            "all of them within one month:",
            "availability  [##########..........]  50 % of the budget spent by 2 trials, 50 % left",
        ]

    def test_says_by_how_much_the_budget_is_overspent(self) -> None:
        assert table([kill(bad=207_360.0)]).endswith(
            f"[{'#' * 20}]  200 % of the budget spent by 1 trial, overspent by 100 %"
        )

    @pytest.mark.parametrize(
        ("bad", "bar"),
        [
            (0.0, "...................."),
            (1.0, "#..................."),
            (51_840.0, "##########.........."),
            (103_679.0, "###################."),
            (103_680.0, "####################"),
        ],
    )
    def test_draws_the_budget(self, bad: float, bar: str) -> None:
        assert f"[{bar}]" in table([kill(bad=bad)])

    def test_of_no_load_is_spent_by_one_bad_event(self) -> None:
        assert f"[{'#' * 20}]  inf %" in table([kill(rate_rps=0.0)])

    def test_can_be_of_one_slo(self) -> None:
        assert "latency" not in table([kill(), kill(slo="latency-p95")], "availability")

    def test_of_nothing_says_so(self) -> None:
        assert table([]) == "no trial in the ledger yet"
        assert table([kill()], "goodput") == "no trial in the ledger for goodput yet"
