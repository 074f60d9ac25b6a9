"""The time budget of the tests: measurement, table and limit."""

import sys

import pytest
from support import minutes

BUDGET = {"units": 60.0, "stack": 40.0}


def test_the_budget_is_at_most_22_minutes_and_names_what_each_part_catches():
    budget = minutes.budgets(minutes.PAGE.read_text())

    assert sum(budget.values()) <= 22 * 60
    assert len(budget) >= 5


@pytest.mark.parametrize(("took_s", "kept"), [(50, True), (60, True), (61, False)])
def test_a_fifth_more_than_the_budget_is_too_much(took_s, kept):
    lines, is_kept = minutes.table_of(BUDGET, {"units": 60.0, "stack": float(took_s)})

    assert is_kept is kept
    assert lines[:2] == ["units                    60 s of   60 s", f"stack                {took_s:6} s of   40 s"]
    assert any("make tests cheaper" in line for line in lines) is not kept


@pytest.mark.parametrize(("loops", "times"), [([], 1.0), ([0.05, 0.06], 1.0), ([0.11, 0.22, 0.33], 2.0)])
def test_a_slow_machine_has_more_time_by_a_loop_before_each_part(here, loops, times):
    for seconds in loops:
        minutes.note(minutes.LOOP, seconds)
    minutes.note("quick", 12.0 * times)

    text = minutes.MEASURED.read_text()
    lines, kept = minutes.table_of({"quick": 10.0}, minutes.measured(text), minutes.slowness(text))

    assert minutes.slowness(text) == pytest.approx(times)
    assert kept
    assert any("times slower" in line for line in lines) is (times > 1)
    assert not minutes.table_of({"quick": 10.0}, {"quick": 12.1 * times}, times)[1]


def test_a_part_without_a_row_spends_what_the_others_have():
    assert minutes.table_of(BUDGET, {"units": 60.0, "more": 70.0})[1] is False


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.setattr(minutes, "MEASURED", tmp_path / "build" / "measured.txt")
    monkeypatch.setattr(minutes, "PAGE", tmp_path / "tests.md")
    monkeypatch.setattr(minutes.machine, "loop_s", lambda: 0.0)
    minutes.PAGE.write_text("| part | budget |\n|---|---|\n| quick | 5 | what it catches |\n| slow one | 5 | other |\n")


def python(code):
    return [sys.executable, "-c", code]


def test_parts_are_timed_and_their_status_is_passed_on(here, capfd):
    minutes.main(["begin"])

    assert minutes.main(["part", "quick", *python("print('said')")]) == 0
    assert minutes.main(["part", "slow one", *python("raise SystemExit(3)")]) == 3
    assert minutes.main(["end"]) == 0

    said = capfd.readouterr().out.splitlines()
    assert said[0] == "said"
    assert [line.rpartition(" s of")[0].split()[:1] for line in said[1:]] == [["quick"], ["slow"], ["all"]]
    assert set(minutes.measured(minutes.MEASURED.read_text())) == {"quick", "slow one"}


def test_more_than_the_budget_is_no_success(here):
    minutes.main(["begin"])
    minutes.main(["part", "quick", *python("")])
    minutes.MEASURED.write_text("quick 13.0\n")

    assert minutes.main(["end"]) == 1


def test_commands_side_by_side_run_at_once_and_all_to_their_ends(here, tmp_path, capfd):
    meet = "import pathlib, sys, time; me, other = map(pathlib.Path, sys.argv[1:3]); me.touch(); end = time.monotonic() + 20\n"
    meet += "while not other.exists() and time.monotonic() < end: time.sleep(0.01)\n"
    meet += "print(me.name, other.exists()); sys.exit(int(sys.argv[3]))"
    one, two = str(tmp_path / "one"), str(tmp_path / "two")

    status = minutes.main(["part", "both", *python(meet), one, two, "4", "//", *python(meet), two, one, "0"])

    assert status == 4
    assert sorted(capfd.readouterr().out.splitlines()) == ["1| one True", "2| two True"]


def test_a_lane_may_print_what_is_not_utf8(here, capfd):
    odd = "import sys; sys.stdout.buffer.write(b'caf\\xe9\\n'); sys.exit(3)"

    assert minutes.main(["part", "both", *python(odd), "//", *python("")]) == 3
    assert capfd.readouterr().out == "1| caf\\xe9\n"


def test_a_lane_that_a_signal_ends_is_no_success(here):
    killed = python("import os; os.kill(os.getpid(), 9)")

    assert minutes.main(["part", "both", *python(""), "//", *killed]) == 9


def test_the_last_lines_name_the_failed_tests_of_each_lane(here, capfd):
    early = "print('E   assert 1 == 2'); print('FAILED test_a.py::test_b - assert 1 == 2'); raise SystemExit(1)"
    passed = "print('3 passed')"

    assert minutes.main(["part", "both", *python(early), "//", *python(passed)]) == 1
    said = capfd.readouterr().out.splitlines()
    assert "2| 3 passed" in said[:-2]
    assert said[-2:] == ["1| E   assert 1 == 2", "1| FAILED test_a.py::test_b - assert 1 == 2"]
