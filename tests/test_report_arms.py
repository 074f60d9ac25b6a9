"""Arms of an experiment in the report, side by side."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from support import reportdata
from support.reportdata import Made

from pytest_llmchaos import report
from pytest_llmchaos.evidence.trial_result import ArmEffect, read_run
from pytest_llmchaos.report.arm_pairs import arm_pairs, effect_words
from pytest_llmchaos.report.summary import summary_lines

SCHEMA = json.loads(Path(report.__file__).with_name("run.schema.json").read_text())
EFFECT: dict[str, Any] = {
    "measure": "during_fault.availability", "first": "on", "second": "off", "is_ratio": False, "first_value": 0.994,
    "second_value": 0.781, "value": 0.213, "low": 0.18, "high": 0.25, "first_requests": 1600, "second_requests": 598,
}  # fmt: skip
ON = Made(arm="on", outage_s=1.0, effects=(EFFECT,), claims=(("test_retries_help", "passed", None),))
OFF = replace(ON, arm="off", environment={"api": {"LAB_RETRY": "off"}}, outage_s=6.0)


def built(tmp_path: Path, *trials: Made) -> tuple[dict[str, Any], str, str]:
    """run.json, summary.md and the page."""
    directory = reportdata.run_dir(tmp_path, trials)
    report.build(directory)
    run: dict[str, Any] = json.loads((directory / "run.json").read_text())
    jsonschema.Draft202012Validator(SCHEMA).validate(run)
    return run, (directory / "summary.md").read_text(), (directory / "report.html").read_text()


def section(page: str) -> str:
    return page.partition('aria-labelledby="h-arms">')[2].partition("</section>")[0]


def words(html: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def test_a_pair_stands_side_by_side_with_its_settings_and_the_effects_that_claims_read(tmp_path: Path) -> None:
    run, summary, page = built(tmp_path, ON, OFF)
    arms = section(page)

    assert [(trial["arm"], trial["environment"]) for trial in run["trials"]] == [
        ("on", {}),
        ("off", {"api": {"LAB_RETRY": "off"}}),
    ]
    assert [trial["claims"][0]["effects"] for trial in run["trials"]] == [[EFFECT], [EFFECT]]
    assert "<h3>kill_api: kill api</h3>" in arms
    assert "setting on off api: LAB_RETRY its own off" in words(arms)
    assert words(arms).count("availability during the fault") == 1
    row = "availability during the fault on - off 99.4 % 78.1 % +21.3 points +18.0 to +25.0 points 1,600 / 598 retries help passed"
    assert row in words(arms)
    assert arms.count("<svg") == 2
    assert "kill api · real · arm off" in words(page)
    assert "kill api, arm off · trial 002" in words(page)
    assert "variables of api LAB_RETRY=off" in words(page)
    line = r"| kill\_api: kill api | availability during the fault | on - off | 99.4 % | 78.1 % | +21.3 points |"
    assert line in summary
    assert r"| +18.0 to +25.0 points | 1,600 / 598 | test\_retries\_help | passed |" in summary


def test_policies_of_an_autoscaler_are_settings_of_a_pair(tmp_path: Path) -> None:
    arms = [replace(ON, extra={"autoscaler": "slo()"}), replace(ON, arm="off", extra={"autoscaler": None})]
    _, _, page = built(tmp_path, *arms)

    assert "setting on off autoscaler slo() \u2013" in words(section(page))


def test_both_timelines_of_a_pair_have_one_scale(tmp_path: Path) -> None:
    long = {"phases": [{"name": "steady", "from_s": 0, "to_s": 38}]}
    _, _, page = built(tmp_path, ON, replace(OFF, extra=long), replace(ON, arm=None, scenario="alone"))

    scales = [found["until_s"] for found in json.loads(re.findall(r'id="data">(.*?)</script>', page)[0])]
    assert scales == [38, 38, pytest.approx(34, abs=0.1)]


def test_the_pair_of_each_repeat_has_the_arms_in_the_order_of_the_first(tmp_path: Path) -> None:
    trials = [ON, OFF, replace(OFF, repeat=1, remediator=False), replace(ON, repeat=1)]
    _, _, page = built(tmp_path, *trials)

    assert re.findall(r"<h3>(kill_api[^<]*)</h3>", section(page)) == ["kill_api: kill api", "kill_api: kill api #1"]
    assert re.findall(r"<h4>(on|off) ", section(page)) == ["on", "off", "on", "off"]
    assert "remediator on off" in words(section(page))


def test_arms_are_in_the_titles_of_trials_and_times(tmp_path: Path) -> None:
    directory = reportdata.run_dir(tmp_path, [ON, OFF, replace(ON, repeat=1), replace(OFF, repeat=1, recover_s=9.0)])
    report.build(directory)
    run = read_run(directory / "run.json")

    lines = summary_lines(run)
    assert [re.findall(r"kill_api: kill api(?:, arm \w+)?(?: #\d)?", line)[0] for line in lines[:4]] == [
        "kill_api: kill api, arm on",
        "kill_api: kill api, arm off",
        "kill_api: kill api, arm on #1",
        "kill_api: kill api, arm off #1",
    ]
    assert [(one.arm, one.time, one.n, one.mean_s) for one in run.times if one.time == "time_to_recover_s"] == [
        ("on", "time_to_recover_s", 2, 4.2),
        ("off", "time_to_recover_s", 2, 6.6),
    ]
    assert any("kill_api: kill api, arm off: MTTR" in line for line in lines)


def test_an_arm_with_other_variables_is_a_control_arm_of_the_coverage(tmp_path: Path) -> None:
    _, _, page = built(tmp_path, ON, OFF)

    assert "Control arms: kill api in arm off" in words(page)


def test_an_arm_with_other_variables_misses_objectives_by_intention(tmp_path: Path) -> None:
    asked = [replace(one, objectives=("other",)) for one in (ON, OFF)]
    directory = reportdata.run_dir(tmp_path, asked)
    report.build(directory)

    lines = summary_lines(read_run(directory / "run.json"))
    assert sum("objective missed" in line for line in lines) == 1


def test_without_arms_the_report_has_no_such_part(tmp_path: Path) -> None:
    _, summary, page = built(tmp_path, replace(ON, arm=None, effects=()))

    assert "h-arms" not in page
    assert "between arms" not in summary


def test_a_pair_without_effects_states_so(tmp_path: Path) -> None:
    _, _, page = built(tmp_path, replace(ON, effects=()), replace(OFF, effects=(), environment={}))

    assert "No claim read an effect." in section(page)
    assert "Settings that differ" not in section(page)


def test_hostile_names_and_values_cannot_script_the_page(tmp_path: Path) -> None:
    hostile = replace(
        OFF,
        arm="<script>x",
        environment={"<i>": {"A": "<script>alert(1)</script>"}},
        effects=({**EFFECT, "measure": "<b>.<u>"},),
    )
    _, summary, page = built(tmp_path, ON, hostile)

    assert "<script>x" not in page
    assert "<script>alert" not in page
    assert "<b>.<u>" not in page + summary


@pytest.mark.parametrize(
    ("changed", "shown"),
    [
        (
            {},
            ("availability during the fault", "on - off", "99.4 %", "78.1 %", "+21.3 points", "+18.0 to +25.0 points"),
        ),
        (
            {
                "measure": "whole.ttft_s.p99",
                "first_value": 0.21,
                "second_value": None,
                "value": None,
                "low": None,
                "high": -1.25,
            },
            ("ttft_s.p99", "on - off", "0.21 s", "no answer", "no finite value", "no bound to -1.25 s"),
        ),
        (
            {
                "measure": "before_fault.goodput_rps",
                "first_value": 59.6,
                "second_value": 46,
                "value": 13.6,
                "low": 12,
                "high": 15.25,
            },
            ("goodput_rps before the fault", "on - off", "59.6/s", "46/s", "+13.6 /s", "+12 to +15.2 /s"),
        ),
        (
            {
                "measure": "after_fault.failed_ratio",
                "is_ratio": True,
                "first_value": 0.01,
                "second_value": 0.02,
                "value": 0.5,
                "low": 0.4,
                "high": 0.62,
            },
            ("failed_ratio after the fault", "on / off", "1 %", "2 %", "0.5 times", "0.4 to 0.62 times"),
        ),
        ({"measure": "odd"}, ("odd", "on - off", "0.994 s", "0.781 s", "+0.213 s", "+0.18 to +0.25 s")),
    ],
)
def test_an_effect_is_shown_with_its_unit(changed: dict[str, Any], shown: tuple[str, ...]) -> None:
    assert effect_words(ArmEffect(**{**EFFECT, **changed})) == shown


def test_trials_of_a_killed_run_have_arms_too(tmp_path: Path) -> None:
    run, _, page = built(tmp_path, ON, replace(OFF, judged=False))

    assert [trial["verdict"] for trial in run["trials"]] == ["held", "invalid"]
    assert section(page).count("<svg") == 2


def test_arms_of_different_plans_are_no_pair(tmp_path: Path) -> None:
    directory = reportdata.run_dir(tmp_path, [ON, replace(OFF, rate_rps=9)])
    report.build(directory)

    assert [pair.names for pair in arm_pairs(read_run(directory / "run.json").trials)] == [["on"], ["off"]]
