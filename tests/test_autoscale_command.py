"""`llmchaos autoscale compare`: bad input, and a comparison from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from pytest_llmchaos.cli import autoscale_command, main
from pytest_llmchaos.report.frontier import Cell

SMALL = ["autoscale", "compare", "--load", "poisson(rate_rps=4, max_tokens=8)", "--until-s", "60", "--seeds", "2"]


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "seen"),
    [
        (["--seeds", "0"], "--seeds: expected 1 to 100, got 0"),
        (["--objective", "2"], "--objective: expected 0 to 1, got 2"),
        (["--objective", "nan"], "--objective: expected 0 to 1, got nan"),
        (["--until-s", "0.5"], "--until-s: expected 1 to 86,400, got 0.5"),
        (["--policies", "slo()", "slo()"], "--policies: slo() is given twice: drop one"),
        (["--faults", "none", "none"], "--faults: none is given twice"),
        (["--set", "load_s"], "--set: expected NAME=VALUE such as load_s=90, got 'load_s'"),
        (["--load", "missing.csv"], "there is no file"),
        (["--load", "noise(rate=1)"], "is unknown: expected the path of a trace, or a call"),
        (["--policies", "hpaa()"], "hpaa"),
        (["--policies", "hpa(target=-1)"], "target"),
        (["--faults", "quake(at_s=1)"], "quake"),
        (["--set", "lod_s=9"], "lod_s"),
        (["--set", "load_s=far"], "load_s"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    words: list[str], seen: str, in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main([*SMALL, *words])

    said = capsys.readouterr()
    assert (status, said.out, said.err.count("\n")) == (2, "", 1)
    assert said.err.startswith("llmchaos autoscale: ")
    assert seen in said.err
    assert list(in_folder.iterdir()) == []


def test_a_comparison_prints_the_frontier_and_writes_the_picture_and_the_runs(
    in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(
        [*SMALL, "--policies", "fixed(2)", "queue()", "--faults", "none", "kill(at_s=20)", "--out", "x/y.html"]
    )

    said = capsys.readouterr()
    cells = [msgspec.json.decode(line, type=Cell) for line in (in_folder / "x/y.jsonl").read_bytes().splitlines()]
    assert {(one.policy, one.fault, one.seed) for one in cells} == {
        (policy, fault, seed)
        for policy in ("fixed(2)", "queue()")
        for fault in ("none", "kill(at_s=20)")
        for seed in (0, 1)
    }
    assert len(cells) == said.err.count("\n") == 8
    assert "[8/8]" in said.err
    assert all(one.offered == one.served + one.shed + one.lost + one.open > 100 for one in cells)
    # Each seed draws its own arrivals, and all policies get the same.
    assert len({(one.seed, one.offered) for one in cells}) == 2
    page = (in_folder / "x/y.html").read_text()
    assert "kill(at_s=20)" in said.out
    assert "kill(at_s=20)" in page
    assert status == (0 if "keeps" in said.out and "No policy" not in said.out else 1)


def test_the_job_has_a_recorded_load_once_for_all_seeds(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (in_folder / "trace.csv").write_text("Timestamp,Request tokens,Response tokens\n0,5,6\n2,7,8\n")
    jobs: list[autoscale_command.Job] = []

    def seen(job: autoscale_command.Job) -> list[Cell]:
        jobs.append(job)
        raise KeyboardInterrupt

    monkeypatch.setattr(autoscale_command, "_simulate", seen)
    with pytest.raises(KeyboardInterrupt):
        main(
            ["autoscale", "compare", "--load", "trace.csv", "--seed", "5", "--set", "load_s=9", "--set", "profile=fast"]
        )

    (job,) = jobs
    made = json.loads(job.text)
    assert made["arrivals"] == [[0.0, 5, 6], [2.0, 7, 8]]
    assert made["seeds"] == [5, 6, 7]
    assert made["world"] == {"load_s": 9, "profile": "fast"}
    assert made["until_s"] == 62.0
    assert made["policies"] == list(autoscale_command.POLICIES)
