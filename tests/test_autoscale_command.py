"""`llmchaos autoscale compare`: bad input, and a comparison from end to end."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import msgspec
import pytest

from lab_autoscaler.world_settings import WorldSettings
from pytest_llmchaos.cli import autoscale_command, main
from pytest_llmchaos.report.frontier import Cell

SMALL = ["autoscale", "compare", "--load", "poisson(rate_rps=4, max_tokens=8)", "--until-s", "60", "--seeds", "2"]
KILL = "kill(at_s=20, replica=all)"


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
        (["--set", "load_s=NaN"], "load_s"),
        (["--set", "stale_s=0.5"], "stale_s must be at least scrape_s + scrape_delay_s"),
        (["--policies", "fixed(6)"], "'fixed(6)' wants up to 6 replicas, and the fleet has 4"),
        (["--policies", "hpa(maximum=5)"], "'hpa(maximum=5)' wants up to 5 replicas"),
        (["--out", "."], "--out: expected a file such as reports/autoscale.html, got ."),
        (["--out", "a.jsonl"], "--out: expected a file such as reports/autoscale.html, got a.jsonl"),
        (["--set", "max_model_tokens=12"], "requests exceed max_model_tokens 12, the longest has "),
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
    status = main([*SMALL, "--policies", "fixed(2)", "queue()", "--faults", "none", KILL, "--out", "x/y.html"])

    said = capsys.readouterr()
    cells = [msgspec.json.decode(line, type=Cell) for line in (in_folder / "x/y.jsonl").read_bytes().splitlines()]
    assert {(one.policy, one.fault, one.seed) for one in cells} == {
        (policy, fault, seed) for policy in ("fixed(2)", "queue()") for fault in ("none", KILL) for seed in (0, 1)
    }
    assert len(cells) == said.err.count("\n") == 8
    assert "[8/8]" in said.err
    assert all(one.offered == one.served + one.shed + one.lost + one.open > 100 for one in cells)
    # Each seed draws its own arrivals, and all policies get the same.
    assert len({(one.seed, one.offered) for one in cells}) == 2
    page = (in_folder / "x/y.html").read_text()
    assert KILL in said.out
    assert KILL in page
    # Two idle replicas are always in time, and until dead ones are replaced all fail.
    assert all(one.attained == 1.0 for one in cells if one.fault == "none")
    assert all(one.lost > 20 and one.attained < 0.95 for one in cells if one.fault == KILL)
    assert (status, "No policy keeps 99 %" in said.out) == (1, True)


def test_with_a_policy_that_keeps_the_objective_it_ends_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    status = main([*SMALL, "--policies", "fixed(2)", "--faults", "none", "--seeds", "1"])

    assert (status, "fixed(2) keeps 99 %" in capsys.readouterr().out) == (0, True)


def test_a_fault_that_never_struck_ends_with_2_after_the_results(
    in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main([*SMALL, "--policies", "fixed(2)", "--faults", "kill(at_s=5, replica='model-9')", "--seeds", "1"])

    said = capsys.readouterr()
    assert (status, "Nothing is shown" in said.out) == (2, True)
    assert said.err.endswith("or a load that the policies scale for\n")
    assert "Nothing is shown" in (in_folder / "reports/autoscale.html").read_text()


def test_a_policy_has_the_fleets_maximum_and_starts_within_its_own_bounds(
    in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([*SMALL, "--policies", "hpa()", "fixed(3)", "--faults", "none", "--seeds", "1", "--set", "maximum=8"])

    capsys.readouterr()
    cells = [
        msgspec.json.decode(line, type=Cell)
        for line in (in_folder / "reports/autoscale.jsonl").read_bytes().splitlines()
    ]
    assert [one.policy for one in cells] == ["hpa(maximum=8)", "fixed(3)"]
    assert cells[1].replica_s == pytest.approx(3 * 60)
    assert (cells[1].min_ready, cells[1].cold_s) == (3, 0.0)


def test_slow_starts_of_what_loads_in_no_time_do_not_strike(capsys: pytest.CaptureFixture[str]) -> None:
    slow = ["--policies", "hpa(minimum=3)", "--faults", "slow_load(at_s=0, for_s=60, factor=3)", "--seeds", "1"]

    assert main([*SMALL, *slow, "--set", "load_s=0", "--set", "initial=3"]) == 2
    assert "slow_load(at_s=0, for_s=60, factor=3) struck in no run" in capsys.readouterr().err


def test_a_file_of_the_users_folder_is_no_module_of_the_simulation(
    in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (in_folder / "bisect.py").write_text("raise SystemExit('shadowed')")

    assert main([*SMALL, "--policies", "fixed(2)", "--faults", "none", "--seeds", "1"]) == 0
    assert "shadowed" not in capsys.readouterr().err


def test_the_page_has_the_defaults_of_the_settings() -> None:
    page = (Path(__file__).parent.parent / "docs/autoscaling.md").read_text()
    table = page.partition("## Settings of the fleet")[2].partition("##")[0]
    given = dict(re.findall(r"`(\w+)` \(([^)]+)\)", table))

    defaults = {field.name: field.default for field in fields(WorldSettings)} | dict(autoscale_command.DEFAULTS)
    assert len(given) >= 14
    assert given == {
        name: f"{defaults[name]:g}" if isinstance(defaults[name], float) else str(defaults[name]) for name in given
    }


def test_the_job_has_a_recorded_load_once_for_all_seeds(
    in_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (in_folder / "trace.csv").write_text("Timestamp,Request tokens,Response tokens\n0,5,6\n2,7,8\n")
    jobs: list[autoscale_command.Job] = []

    def seen(job: autoscale_command.Job) -> list[bytes]:
        jobs.append(job)
        raise KeyboardInterrupt

    monkeypatch.setattr(autoscale_command, "_simulate", seen)
    status = main(
        ["autoscale", "compare", "--load", "trace.csv", "--seed", "5", "--set", "load_s=9", "--set", "profile=fast"]
    )

    assert (status, capsys.readouterr().err) == (130, "llmchaos autoscale: interrupted, nothing was written\n")

    (job,) = jobs
    made = json.loads(job.text)
    assert made["arrivals"] == [[0.0, 5, 6], [2.0, 7, 8]]
    assert made["seeds"] == [5, 6, 7]
    assert made["world"] == {"load_s": 9, "profile": "fast"}
    assert made["until_s"] == 62.0
    assert made["policies"] == list(autoscale_command.POLICIES)
