"""Decisions of the Makefile, with fakes for Python and Docker."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from support import minutes

MAKEFILE = Path(__file__).parent.parent / "Makefile"
PYTHON = """#!/bin/sh
case "$*" in
    stack/bootstrap.py*) exit $FAKE_BOOTSTRAP ;;
    -c*) exit $FAKE_NO_COMPOSE ;;
    tests/support/minutes.py*) echo "did: $*"; exit $FAKE_STATUS ;;
    -m\\ pytest*)
        echo "ran: $*"
        [ -z "$FAKE_RUN" ] || { mkdir "reports/$FAKE_RUN"; : > "reports/$FAKE_RUN/report.html"; ln -sfn "$FAKE_RUN" reports/latest; }
        exit $FAKE_STATUS ;;
    benchmarks/b.py) echo "ran b"; exit 2 ;;
    benchmarks/*) echo "ran $1" ;;
    -m\\ venv*) mkdir -p .venv/bin; : > .venv/bin/python; exit $FAKE_STATUS ;;
esac
"""
CALM = {"FAKE_BOOTSTRAP": "0", "FAKE_NO_COMPOSE": "0", "FAKE_STATUS": "0", "FAKE_RUN": ""}


@pytest.fixture
def checkout(tmp_path):
    """A set-up checkout with a report of an earlier run."""
    shutil.copy(MAKEFILE, tmp_path)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    for folder in ("benchmarks", "tests"):
        (tmp_path / folder).mkdir()
    for name in (
        "requirements.lock",
        "tests/neighbours.lock",
        "pyproject.toml",
        ".venv/bin/python",
        *(f"benchmarks/{x}.py" for x in "abc"),
    ):
        (tmp_path / name).write_text(PYTHON)
        (tmp_path / name).chmod(0o755)
        os.utime(tmp_path / name, (1, 1))
    (tmp_path / ".venv/.ready").touch()
    (tmp_path / "reports/earlier").mkdir(parents=True)
    (tmp_path / "reports/earlier/report.html").touch()
    (tmp_path / "reports/latest").symlink_to("earlier")
    return tmp_path


def made(checkout, *arguments, **world):
    environment = {"PATH": os.environ["PATH"], **CALM, **world}
    command = ["make", *arguments]
    return subprocess.run(
        command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=30, check=False
    )


def test_programs_that_tests_start_keep_what_they_compile(checkout):
    python = checkout / ".venv/bin/python"
    python.write_text(PYTHON.replace('echo "ran: $*"', 'echo "bytecode: ${PYTHONDONTWRITEBYTECODE-kept}"'))

    done = made(checkout, "chaos", PYTHONDONTWRITEBYTECODE="1")

    assert "bytecode: kept\n" in done.stdout


def test_where_the_stack_is_set_up_the_runtime_chooses_for_itself(checkout):
    done = made(checkout, "chaos", FAKE_RUN="now")

    assert done.returncode == 0
    assert "ran: -m pytest scenarios/ -k kill_api\n" in done.stdout
    assert done.stdout.endswith(f"report: {checkout}/reports/now/report.html\n")


def test_without_docker_the_lab_runs_as_processes_and_this_is_printed(checkout):
    done = made(checkout, "chaos", FAKE_BOOTSTRAP="1", FAKE_NO_COMPOSE="1", FAKE_RUN="now")

    assert done.returncode == 0
    assert "the lab runs as processes, with llama.cpp as its model" in done.stdout
    assert "ran: -m pytest scenarios/ -k kill_api --llmchaos-runtime local\n" in done.stdout


def test_no_other_model_is_promised_than_the_chosen_one(checkout):
    done = made(checkout, "chaos", "BACKEND=sim", FAKE_BOOTSTRAP="1", FAKE_NO_COMPOSE="1")

    assert "the lab runs as processes\n" in done.stdout
    assert "--llmchaos-runtime local --llmchaos-backend sim\n" in done.stdout


def test_where_docker_responds_a_failed_set_up_ends_it(checkout):
    done = made(checkout, "chaos", FAKE_BOOTSTRAP="1", FAKE_NO_COMPOSE="0")

    assert done.returncode != 0
    assert "ran: " not in done.stdout
    assert "Docker responds" in done.stderr


def test_a_chosen_runtime_is_used_even_after_a_failed_set_up(checkout):
    done = made(checkout, "chaos", "PYTEST_ARGS=--chaos-runtime local", FAKE_BOOTSTRAP="1", FAKE_NO_COMPOSE="0")

    assert done.returncode == 0
    assert "ran: -m pytest scenarios/ -k kill_api --chaos-runtime local\n" in done.stdout


def test_the_report_of_an_earlier_run_is_not_shown_as_this_ones(checkout):
    done = made(checkout, "chaos", FAKE_STATUS="4")

    assert done.returncode != 0
    assert "report:" not in done.stdout


def test_the_report_of_a_run_that_failed_is_shown(checkout):
    done = made(checkout, "chaos", FAKE_STATUS="1", FAKE_RUN="now")

    assert done.returncode != 0
    assert f"report: {checkout}/reports/now/report.html" in done.stdout


def test_a_run_without_a_report_shows_no_path(checkout):
    (checkout / "reports/killed").mkdir()
    (checkout / ".venv/bin/python").write_text(PYTHON.replace('echo "ran: $*"', "ln -sfn killed reports/latest"))

    done = made(checkout, "chaos", FAKE_STATUS="137")

    assert done.returncode != 0
    assert (checkout / "reports/latest").readlink() == Path("killed")
    assert "report:" not in done.stdout


def test_a_benchmark_that_could_not_measure_does_not_stop_those_after_it(checkout):
    done = made(checkout, "bench")

    assert [line for line in done.stdout.splitlines() if line.startswith("ran")] == [
        "ran benchmarks/a.py",
        "ran b",
        "ran benchmarks/c.py",
    ]
    assert "benchmarks/b.py ended with 2" in done.stderr
    assert done.returncode != 0


def parts(done):
    """The parts that ran, with their commands."""
    runs = [
        line.split(" part ")[1] for line in done.stdout.splitlines() if line.startswith("did:") and " part " in line
    ]
    return dict(run.split(" ", 1) for run in runs)


def test_the_gate_draws_by_the_commit_and_the_same_examples_in_the_same_order(checkout):
    done = made(checkout, "test", "PYTEST_ARGS=--durations=3")

    assert done.returncode == 0, done.stderr
    drawn = "--drawn-by=HEAD --hypothesis-profile=gate"
    found = parts(done)
    assert set(found) == set(minutes.budgets(minutes.PAGE.read_text()))
    for name in set(found) - {"rooms"}:
        assert found[name].count("-m pytest") == found[name].count(f"{drawn} --durations=3"), name
    assert "--randomly-seed=1" in found["units"]
    assert done.stdout.splitlines()[-1] == "did: tests/support/minutes.py end"


def test_all_of_them_draw_new_examples_and_print_the_line_that_repeats_them(checkout):
    first, second = (made(checkout, "test-all").stdout for _ in range(2))
    again = made(checkout, "test-all", "SEED=77")

    assert first != second
    assert "make test-all SEED=77" in again.stdout
    found = parts(again)
    assert "--hypothesis-seed=77" in found["units"]
    assert "--randomly-seed=77" in found["units"]
    assert "--drawn-by" not in again.stdout
    assert "minutes.py end" not in again.stdout


def test_a_part_that_fails_ends_the_gate(checkout):
    done = made(checkout, "test", FAKE_STATUS="1")

    assert done.returncode != 0
    assert "part" not in done.stdout


@pytest.mark.parametrize("folder", ["tests/stack", "tests/processes"])
def test_every_file_of_stacks_and_processes_runs_in_one_lane_of_one_part(checkout, folder):
    done = made(checkout, "test")
    parts_of = [
        commands for name, commands in parts(done).items() if folder in commands and name not in {"units", "again"}
    ]
    lanes = [lane.split() for commands in parts_of for lane in commands.split(" // ")]
    files = [path.name for path in (MAKEFILE.parent / folder).glob("test_*.py")]

    for file in files:
        here = f"{folder}/{file}"
        runs = [lane for lane in lanes if here in lane or (folder in lane and f"--ignore={here}" not in lane)]
        assert len(runs) == 1, file
    named = {word.rpartition("/")[2] for lane in lanes for word in lane if word.startswith(f"{folder}/")}
    assert named <= set(files)


@pytest.mark.parametrize(("status", "left"), [("1", False), ("0", True)], ids=["failed", "made"])
def test_half_an_environment_is_removed(checkout, status, left):
    shutil.copy(checkout / ".venv/bin/python", checkout / "python")
    shutil.rmtree(checkout / ".venv")

    done = made(checkout, ".venv/bin/python", "PYTHON=./python", FAKE_STATUS=status)

    assert (done.returncode == 0) is left
    assert (checkout / ".venv").exists() is left
