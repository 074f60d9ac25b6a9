"""The judge benchmark's doubles follow the code that they measure."""

import importlib
from pathlib import Path

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def test_the_judge_of_the_benchmark_judges_as_the_real_one(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(BENCHMARKS)
    judge = importlib.import_module("judge")

    assert judge.measured(tmp_path, 20_000)["judged_s"] > 0
