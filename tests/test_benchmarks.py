"""The judge's doubles follow the code that they measure, and the agent's runs."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def test_the_judge_of_the_benchmark_judges_as_the_real_one(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(BENCHMARKS)
    judge = importlib.import_module("judge")

    assert judge.measured(tmp_path, 20_000)["judged_s"] > 0


def ran(*arguments, name="fault_agent"):
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(("name", "option"), [("fault_agent", "--check"), ("agents", "--only")])
def test_a_benchmark_describes_its_options(name, option):
    done = ran("--help", name=name)

    assert (done.returncode, done.stderr) == (0, "")
    assert option in done.stdout


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs 2 cores")
def test_a_tiny_benchmark_of_the_fault_agent_measures_each_figure():
    done = ran("--seconds=0.5", "--rounds=1", "--streams=20", "--body-mb=5", "--no-peer", "--json")

    if done.returncode == 2:  # other work on this machine
        assert done.stderr == "cannot measure: the load does not hold without anything in between\n"
        return
    assert (done.returncode, done.stderr) == (0, "")
    figures = json.loads(done.stdout.splitlines()[-1])["figures"]
    assert figures["complete"]["met"]
    assert figures["rss_mb_of_20_streams"]["value"] > 5
    assert figures["body_mb_per_s"]["value"] > 1
    assert all(one["goal"] for one in figures.values())
