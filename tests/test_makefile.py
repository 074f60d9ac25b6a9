"""What the Makefile decides, with stand-ins for Python and a folder of its own. No Docker, no network, no environment is made."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parent.parent / "Makefile"
PYTHON = """#!/bin/sh
case "$*" in
    stack/bootstrap.py*) exit $FAKE_BOOTSTRAP ;;
    -c*) exit $FAKE_NO_COMPOSE ;;
    -m\\ pytest*)
        echo "asked: $*"
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
    """A checkout that is set up, and whose newest report is of an earlier run."""
    shutil.copy(MAKEFILE, tmp_path)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / "benchmarks").mkdir()
    for name in ("requirements.lock", "pyproject.toml", ".venv/bin/python", *(f"benchmarks/{x}.py" for x in "abc")):
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


def test_where_the_stack_is_set_up_the_runtime_chooses_for_itself(checkout):
    done = made(checkout, "chaos", FAKE_RUN="now")

    assert done.returncode == 0
    assert "asked: -m pytest scenarios/ -k kill_api\n" in done.stdout
    assert done.stdout.endswith(f"report: {checkout}/reports/now/report.html\n")


def test_without_docker_the_lab_runs_as_processes_and_this_is_said(checkout):
    done = made(checkout, "chaos", FAKE_BOOTSTRAP="1", FAKE_NO_COMPOSE="1", FAKE_RUN="now")

    assert done.returncode == 0
    assert "the lab runs as processes, with llama.cpp as its model" in done.stdout
    assert "asked: -m pytest scenarios/ -k kill_api --llmchaos-runtime local\n" in done.stdout


def test_no_model_is_promised_where_another_was_asked_for(checkout):
    done = made(checkout, "chaos", "BACKEND=sim", FAKE_BOOTSTRAP="1", FAKE_NO_COMPOSE="1")

    assert "the lab runs as processes\n" in done.stdout
    assert "--llmchaos-runtime local --llmchaos-backend sim\n" in done.stdout


def test_where_a_daemon_answers_a_failed_set_up_ends_it(checkout):
    done = made(checkout, "chaos", FAKE_BOOTSTRAP="1", FAKE_NO_COMPOSE="0")

    assert done.returncode != 0
    assert "asked" not in done.stdout
    assert "a Docker daemon answers" in done.stderr


def test_who_asks_for_a_runtime_gets_it_whatever_became_of_the_set_up(checkout):
    done = made(checkout, "chaos", "PYTEST_ARGS=--chaos-runtime local", FAKE_BOOTSTRAP="1", FAKE_NO_COMPOSE="0")

    assert done.returncode == 0
    assert "asked: -m pytest scenarios/ -k kill_api --chaos-runtime local\n" in done.stdout


def test_the_report_of_an_earlier_run_is_not_shown_as_this_ones(checkout):
    done = made(checkout, "chaos", FAKE_STATUS="4")

    assert done.returncode != 0
    assert "report:" not in done.stdout


def test_the_report_of_a_run_that_failed_is_shown(checkout):
    done = made(checkout, "chaos", FAKE_STATUS="1", FAKE_RUN="now")

    assert done.returncode != 0
    assert f"report: {checkout}/reports/now/report.html" in done.stdout


def test_a_benchmark_that_could_not_measure_does_not_stop_those_after_it(checkout):
    done = made(checkout, "bench")

    assert [line for line in done.stdout.splitlines() if line.startswith("ran")] == [
        "ran benchmarks/a.py",
        "ran b",
        "ran benchmarks/c.py",
    ]
    assert "benchmarks/b.py ended with 2" in done.stderr
    assert done.returncode != 0


@pytest.mark.parametrize(("status", "left"), [("1", False), ("0", True)], ids=["failed", "made"])
def test_half_an_environment_is_not_left_behind(checkout, status, left):
    shutil.copy(checkout / ".venv/bin/python", checkout / "python")
    shutil.rmtree(checkout / ".venv")

    done = made(checkout, ".venv/bin/python", "PYTHON=./python", FAKE_STATUS=status)

    assert (done.returncode == 0) is left
    assert (checkout / ".venv").exists() is left
