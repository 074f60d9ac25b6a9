"""The ledger of error budgets: append, read, and the table."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import threading
from pathlib import Path
from typing import Any

import pytest

from pytest_llmchaos.cli import main
from pytest_llmchaos.errors import BadScenario, NotReady
from pytest_llmchaos.evidence.ledger import Entry, append, read, table
from pytest_llmchaos.slo.arithmetic import LEAST_BUDGET, Slo
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


def test_a_result_becomes_an_entry_with_its_share_of_the_budget() -> None:
    assert (kill().bad, kill().budget_events) == (10, pytest.approx(103_680))
    assert kill().spent == pytest.approx(RESULT.budget_spent)


def test_what_is_appended_is_read_again_in_its_order(tmp_path: Path) -> None:
    path = tmp_path / "new" / "reports" / "ledger.jsonl"
    append(path, [kill(), kill(trial="002")])
    append(path, [])
    append(path, [kill(run="r2")])

    assert read(path).entries == (kill(), kill(trial="002"), kill(run="r2"))


def test_a_ledger_has_one_line_an_entry_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    for run in ("r1", "r22", "r333"):
        append(path, [kill(run=run)])

    text = path.read_text()

    assert [json.loads(line)["run"] for line in text.splitlines()] == ["r1", "r22", "r333"]
    assert text.endswith("}\n")


@pytest.mark.parametrize("torn", ["x", "odd", "odd\x00", "odd\x01"])
def test_an_entry_after_a_torn_line_has_a_line_of_its_own(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text(torn)

    append(path, [kill()])

    assert path.read_text().startswith(f"{torn}\n{{")
    assert read(path).entries == (kill(),)


def test_an_entry_is_on_disk_when_it_is_appended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ledger.jsonl"
    synced: list[Any] = []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append(read(path).entries))

    append(path, [kill(), kill(trial="002")])

    assert synced == [(kill(), kill(trial="002"))]


def test_a_ledger_that_is_not_a_regular_file_is_an_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(
        NotReady, match=r"found no regular file: give the path of ledger\.jsonl in the folder of the reports"
    ):
        read(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("error", "said"), [(OSError(5, "Input/output error"), "Input/output error"), (OSError("it broke"), "it broke")]
)
def test_a_ledger_that_cannot_be_read_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, said: str
) -> None:
    def broken(_: Path) -> bytes:
        raise error

    (tmp_path / "ledger.jsonl").touch()
    monkeypatch.setattr(Path, "read_bytes", broken)

    with pytest.raises(NotReady, match=rf"ledger.jsonl cannot be read: {said}$"):
        read(tmp_path / "ledger.jsonl")


@pytest.mark.parametrize(("name", "seen"), [("none.jsonl", "nothing"), (".", "a folder")])
def test_a_missing_ledger_is_an_error_that_names_it(tmp_path: Path, name: str, seen: str) -> None:
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
    "[1]": "expected an object, got list",
    "null": "got NoneType",
    "{}": "it lacks at_unix_s, run, ",
    '{"slo": "availability"}': "it lacks at_unix_s",
    "text": "",
    "\ud800": "",
    "[" * 100_000: "",
}


@pytest.mark.parametrize("line", NO_ENTRIES, ids=lambda line: ascii(line[:10]))
def test_an_unreadable_line_is_named_and_the_others_are_read(tmp_path: Path, line: str) -> None:
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


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [("bad", '"many"', "bad must be a number, got 'many'"), ("run", "true", "run must be text, got True")],
)
def test_a_field_of_another_type_is_named(tmp_path: Path, field: str, value: str, why: str) -> None:
    path = tmp_path / "ledger.jsonl"
    append(path, [kill()])
    spoiled = re.sub(f'"{field}": [^,}}]+', f'"{field}": {value}', path.read_text())
    path.write_text("\n" + spoiled + path.read_text())

    found = read(path)

    assert found.entries == (kill(),)
    assert found.unreadable == (f"{path}:2: expected a ledger line, got {spoiled.strip()[:80]!a}: {why}",)


def test_a_number_too_large_for_any_reader_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    append(path, [kill()])
    path.write_text(re.sub('"good": [^,}]+', '"good": 1' + "0" * 400, path.read_text()) + path.read_text())

    assert [why.rpartition(": ")[2] for why in read(path).unreadable] == ["int too large to convert to float"]


def test_a_ledger_of_blank_lines_has_no_entries(tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").write_text("\n \n")

    assert read(tmp_path / "ledger.jsonl") == ((), ())


def test_a_file_without_a_ledger_line_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "ls"
    path.write_bytes(bytes(range(256)) * 4)

    with pytest.raises(BadScenario, match=r"ls:1: expected a ledger line, got .*; no line of this file"):
        read(path)
    path.write_text("first\nlast\n")
    with pytest.raises(BadScenario, match=r"ls:1: expected a ledger line, got 'first'"):
        read(path)


class TestCommand:
    @pytest.mark.parametrize("name", [".", "none.jsonl", "ls", "empty-object.jsonl"])
    def test_the_command_prints_one_error_for_a_file_that_is_not_a_ledger(
        self, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "ls").write_bytes(b"\x7fELF\xff\x00\n")
        (tmp_path / "empty-object.jsonl").write_text("{}\n")

        status = main(["budget", "--ledger", str(tmp_path / name)])

        said = capsys.readouterr()
        assert (status, said.out, said.err.count("\n")) == (1, "", 1)
        assert said.err.startswith("llmchaos: ")
        assert str(tmp_path / name) in said.err

    def test_the_command_counts_the_lines_that_it_leaves_out(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "ledger.jsonl"
        path.write_text("odd\nodd\n")
        append(path, [kill()])

        assert main(["budget", "--ledger", str(path)]) == 0

        said = capsys.readouterr()
        assert said.err.startswith("llmchaos: 2 lines were left out of the table: ")
        assert "kill_api" in said.out

    def test_the_command_before_any_run_succeeds(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.chdir(tmp_path)

        assert main(["budget"]) == 0
        assert capsys.readouterr().out == (
            "no trial in the ledger yet: there is no file reports/ledger.jsonl here; give another one with --ledger\n"
        )

    @pytest.mark.parametrize("lines", [None, ""], ids=["no ledger", "an empty ledger"])
    def test_the_command_for_an_slo_before_any_run_fails(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], lines: str | None
    ) -> None:
        monkeypatch.chdir(tmp_path)
        if lines is not None:
            (tmp_path / "reports").mkdir()
            (tmp_path / "reports/ledger.jsonl").write_text(lines)

        assert main(["budget", "--slo", "availability"]) == 1
        assert capsys.readouterr().err.startswith("llmchaos: ")

    def test_the_command_of_an_slo_that_the_ledger_lacks_names_the_others(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        append(tmp_path / "ledger.jsonl", [kill()])

        assert main(["budget", "--ledger", str(tmp_path / "ledger.jsonl"), "--slo", "availabilty"]) == 1

        said = "llmchaos: --slo must be one of the ledger's objectives, availability, got 'availabilty'\n"
        assert capsys.readouterr().err == said


def test_fields_of_a_later_version_are_ignored(tmp_path: Path) -> None:
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


NUMBERS = ("at_unix_s", "rate_rps", "window_s", "good", "total", "bad", "window_days")


@pytest.mark.parametrize("field", NUMBERS)
def test_a_number_may_be_0(field: str) -> None:
    assert getattr(kill(**{field: 0.0}), field) == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((name, odd) for name in NUMBERS for odd in (math.nan, -0.5, math.inf)),
        *(("objective", odd) for odd in (-0.5, 0.0, 1.0, 1.5, math.nan)),
    ],
)
def test_numbers_that_cannot_be_are_refused(field: str, value: float) -> None:
    with pytest.raises(BadScenario, match="must be"):
        kill(**{field: value})


def test_a_budget_is_rounded_to_the_least_one() -> None:
    assert kill(objective=1 - LEAST_BUDGET).budget_events == LEAST_BUDGET * 8 * 30 * 86_400
    assert kill(objective=1 - 0.4 * LEAST_BUDGET).budget_events == 0


def test_an_slo_without_a_rate_spends_all_with_one_bad_event() -> None:
    assert kill(rate_rps=0.0).spent == math.inf


class TestTable:
    def test_the_table_shows_each_experiment_and_what_all_would_leave(self) -> None:
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

    def test_the_table_totals_each_service_level_of_the_ledger(self, tmp_path: Path) -> None:
        path = tmp_path / "ledger.jsonl"
        append(path, [kill(bad=25_920.0), kill(slo="ttft-p95", bad=5_184.0), kill(trial="002", bad=51_840.0)])

        assert table(read(path).entries).splitlines()[-3:] == [
            "all of them within one month:",
            f"availability  [{'#' * 15}.....]  75 % of the budget spent by 2 trials, 25 % left",
            f"ttft-p95      [#{'.' * 19}]  5 % of the budget spent by 1 trial, 95 % left",
        ]

    def test_the_table_aligns_its_columns_and_ends_no_line_in_blanks(self) -> None:
        lines = table([kill(run="a-long-name", verdict="refuted"), kill(slo="e2e", bad=1.25, total=1500)]).splitlines()

        assert lines[:4] == [
            "run          scenario  fault     slo           bad events  of events  of the month's budget  verdict",
            "a-long-name  kill_api  kill api  availability  10          500        0.00965 %              refuted",
            "r1           kill_api  kill api  e2e           1.25        1500       0.00121 %              held",
            "",
        ]

    def test_the_table_of_a_budget_that_is_spent_exactly_shows_none_left(self) -> None:
        assert table([kill(bad=103_680.0)]).endswith(f"[{'#' * 20}]  100 % of the budget spent by 1 trial, 0 % left")

    def test_the_table_shows_by_how_much_the_budget_is_overspent(self) -> None:
        assert table([kill(bad=207_360.0)]).endswith(
            f"[{'#' * 20}]  200 % of the budget spent by 1 trial, overspent by 100 %"
        )
        assert table([kill(bad=362_880.0)]).endswith("350 % of the budget spent by 1 trial, overspent by 250 %")

    @pytest.mark.parametrize(
        ("bad", "bar"),
        [
            (0.0, "...................."),
            (1.0, "#..................."),
            (5_183.0, "#..................."),
            (10_368.0, "##.................."),
            (51_840.0, "##########.........."),
            (103_679.0, "###################."),
            (103_680.0, "####################"),
        ],
    )
    def test_the_table_draws_the_budget(self, bad: float, bar: str) -> None:
        assert f"[{bar}]" in table([kill(bad=bad)])

    def test_the_table_of_no_load_is_spent_by_one_bad_event(self) -> None:
        assert f"[{'#' * 20}]  inf %" in table([kill(rate_rps=0.0)])

    def test_the_table_can_show_one_slo(self) -> None:
        assert "latency" not in table([kill(), kill(slo="latency-p95")], "availability")

    def test_the_table_of_an_empty_ledger_is_one_sentence(self) -> None:
        assert table([]) == "no trial in the ledger yet"
        assert table([kill()], "goodput") == "no trial in the ledger for goodput yet"


def test_an_arm_is_kept_and_shown_and_lines_of_earlier_versions_lack_it(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    append(path, [kill(arm="off")])
    old = json.loads(path.read_text())
    del old["arm"]
    path.write_text(path.read_text() + json.dumps(old) + "\n")

    entries = read(path).entries

    assert [one.arm for one in entries] == ["off", ""]
    assert [re.split(r"  +", line)[2] for line in table(entries).splitlines()[1:3]] == ["kill api, arm off", "kill api"]
