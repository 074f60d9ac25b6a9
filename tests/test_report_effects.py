"""Repeated trials and control arms in the report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from support import reportdata
from support.reportdata import Made

from pytest_llmchaos import report
from pytest_llmchaos.evidence.trial_result import RunResult
from pytest_llmchaos.report import formatting

SCHEMA = json.loads(Path(report.__file__).with_name("run.schema.json").read_text())
BROKEN = Made(rate_rps=10, outage_s=4.2)
CONTROL = Made(
    rate_rps=10, fault="none", victim="", lifetime="none", outage_s=0, detect_s=None, recover_s=None, repaired_by=None
)
REFUSED = "trial 002 is invalid and proves nothing"


def built(tmp_path: Path, *trials: Made) -> tuple[dict[str, Any], str, str]:
    """run.json, summary.md and the page."""
    directory = reportdata.run_dir(tmp_path, trials)
    report.build(directory)
    run: dict[str, Any] = json.loads((directory / "run.json").read_text())
    jsonschema.Draft202012Validator(SCHEMA).validate(run)
    return run, (directory / "summary.md").read_text(), (directory / "report.html").read_text()


def test_a_fault_is_measured_against_its_control_arm(tmp_path: Path) -> None:
    run, summary, page = built(tmp_path, BROKEN, CONTROL)

    broken, control = (trial["effect"] for trial in run["trials"])
    assert control is None
    assert (broken["control"], broken["confidence"], broken["reason"]) == ("002", 0.95, None)
    assert broken["requests"] == {"fault": 259, "control": 260}
    lost = broken["availability"]
    assert (lost["fault"], lost["control"]) == (pytest.approx(1 - 42 / 259, abs=1e-6), 1.0)
    assert lost["value"] == pytest.approx(lost["fault"] - 1.0, abs=1e-6)
    assert -0.22 < lost["low"] < lost["value"] < lost["high"] < -0.11
    for name in ("ttft_p50_s", "e2e_p50_s"):
        assert broken[name]["low"] < broken[name]["value"] < broken[name]["high"]
    row = r"| kill\_api: kill api | availability | 83.8 % | 100 % | -16.2 points | -21.2 to -12.0 points |"
    assert row in summary
    assert '<h2 id="h-effects">Effects</h2>' in page
    assert "-21.2 to -12.0 points" in page


def test_without_a_control_arm_there_is_no_effect(tmp_path: Path) -> None:
    run, summary, page = built(tmp_path, BROKEN, replace(CONTROL, scenario="control"))

    assert [trial["effect"] for trial in run["trials"]] == [None, None]
    assert "control arm" not in summary
    assert "h-effects" not in page


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"rate_rps": 8}, id="another load"),
        pytest.param({"repeat": 1}, id="another repeat"),
        pytest.param({"remediator": False}, id="without the remediator"),
        pytest.param({"fault_s": 9}, id="another phase"),
    ],
)
def test_an_arm_that_differs_in_more_than_the_fault_is_no_control(tmp_path: Path, other: dict[str, Any]) -> None:
    run, _, _ = built(tmp_path, BROKEN, replace(CONTROL, **other))

    assert run["trials"][0]["effect"] is None


def test_a_control_arm_that_proves_nothing_gives_no_number(tmp_path: Path) -> None:
    run, summary, page = built(tmp_path, BROKEN, replace(CONTROL, verdict="invalid", reason="LoadNotHeld: late"))

    effect = run["trials"][0]["effect"]
    assert effect["reason"] == REFUSED
    assert (effect["availability"], effect["ttft_p50_s"], effect["e2e_p50_s"]) == (None, None, None)
    assert REFUSED in summary
    assert REFUSED in page


def test_an_arm_without_a_request_from_the_fault_on_gives_no_number(tmp_path: Path) -> None:
    late = {"phases": [{"name": "fault", "from_s": 90.0, "to_s": 95.0}]}

    run, _, _ = built(tmp_path, BROKEN, replace(CONTROL, extra=late))

    assert run["trials"][0]["effect"]["reason"] == "trial 002 has no requests after the start of its fault phase"


def test_a_control_arm_that_proves_something_is_preferred(tmp_path: Path) -> None:
    run, _, _ = built(tmp_path, BROKEN, replace(CONTROL, verdict="invalid", reason="late"), CONTROL)

    assert run["trials"][0]["effect"]["control"] == "003"


def test_a_median_of_mostly_failed_requests_is_shown_without_a_number(tmp_path: Path) -> None:
    run, summary, _ = built(tmp_path, replace(BROKEN, outage_s=14), CONTROL)

    first = run["trials"][0]["effect"]["ttft_p50_s"]
    assert (first["fault"], first["value"], first["low"], first["high"]) == (None, None, None, None)
    assert first["control"] > 0
    assert "median time to first token | no answer | " in summary
    assert f"| no finite value | {formatting.NONE} |" in summary


def test_repeated_times_stand_in_every_part_of_the_report(tmp_path: Path) -> None:
    trials = [Made(repeat=i, recover_s=value, detect_s=2.0) for i, value in enumerate((4.0, 5.0, 9.0))]
    never = Made(repeat=3, recover_s=None, detect_s=2.5)
    late = Made(repeat=4, recover_s=99.0, verdict="invalid", reason="late")

    run, summary, page = built(tmp_path, *trials, never, late)

    detect, recover = run["times"]
    assert (detect["time"], detect["n"], detect["never"], detect["mean_s"]) == ("time_to_detect_s", 4, 0, 2.125)
    assert recover == {
        "scenario": "kill_api",
        "fault": "kill api",
        "remediator": True,
        "time": "time_to_recover_s",
        "n": 3,
        "never": 1,
        "mean_s": 6.0,
        "median_s": 5.0,
        "deviation_s": 2.646,
        "least_s": 4.0,
        "most_s": 9.0,
        "arm": None,
    }
    assert r"| kill\_api: kill api | MTTR | 3 | 6 s | 5 s | 4 to 9 s | 2.65 s | 1 |" in summary
    assert "kill_api: kill api: MTTR 6 s (n=3, median 5 s, 4 to 9 s, never in 1)" in report.summary_lines(
        msgspec.convert(run, RunResult)
    )
    assert "MTTR" in page


def test_a_single_trial_has_no_spread_to_show(tmp_path: Path) -> None:
    run, summary, _ = built(tmp_path, Made())

    assert [(row["n"], row["deviation_s"]) for row in run["times"]] == [(1, None), (1, None)]
    assert "repeated" not in summary
    assert not [line for line in report.summary_lines(msgspec.convert(run, RunResult)) if "MTTR" in line]
