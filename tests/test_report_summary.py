"""The run in a few lines: terminal, Markdown, JUnit."""

from __future__ import annotations

from dataclasses import replace as replace_made
from pathlib import Path
from typing import Any

import pytest
from markupsafe import escape
from msgspec.structs import replace
from support import reportdata
from support.reportdata import Made

from pytest_llmchaos import report
from pytest_llmchaos.evidence.trial_result import DetectionSource, RunResult
from pytest_llmchaos.report import formatting, summary
from pytest_llmchaos.report.aggregates import detected_by, fault_of, faults_done
from pytest_llmchaos.report.binning import Raw
from pytest_llmchaos.report.summary import headline
from pytest_llmchaos.report.trial_view import tiles


def run_of(tmp_path: Path, *trials: Made, **options: Any) -> RunResult:
    run_dir = reportdata.run_dir(tmp_path, trials, **options)
    report.build(run_dir)
    return report.read_run(run_dir / "run.json")


def test_one_line_a_trial_then_the_verdict_then_how_to_repeat_it(tmp_path: Path) -> None:
    failed = ("test_it_is_detected", "failed", "assert 7.2 <= 5\n  where 7.2 = trial.time_to_detect_s")
    run = run_of(tmp_path, Made(), Made(scenario="kill_model", fault="kill model-1", claims=[failed], detect_s=7.2))

    lines = report.summary_lines(run)

    why = "assert 7.2 <= 5 where 7.2 = trial.time_to_detect_s"
    assert lines == [
        "✓ held         kill_api: kill api        detected 1.9 s (alert AvailabilityFastBurn), recovered 4.2 s (remediator)",
        f"✗ refuted      kill_model: kill model-1  detected 7.2 s (alert AvailabilityFastBurn), recovered 4.2 s (remediator)  - {why}",
        "1 of 2 refuted, 1 held",
        "repeat: pytest scenarios/ --chaos-seed=42 --chaos-backend=ollama",
    ]


COUNTS = {"counters": {"met": 27, "hit": 7}, "unit": "requests", "first_hit_after_s": 1.234}
FLAKY = Made(
    scenario="flaky_model",
    fault="flaky model-1",
    victim="model-1",
    strength={"status": 503, "share": 0.3, "match": "path=/v1/*"},
    counts=[{**COUNTS, "counters": {"met": 2, "hit": 1}}, COUNTS],
)
DONE = "flaky(status=503, share=0.3, match=path=/v1/*) on model-1: hit 7 of 27 requests, the first after 1.23 s"


def test_what_a_fault_was_and_did_has_a_line_with_its_last_counts(tmp_path: Path) -> None:
    run = run_of(tmp_path, FLAKY)

    _, second, *_ = report.summary_lines(run)
    assert second == f"{'':<15}{DONE}"
    assert dict(report.junit_properties(run.trials[0]))["llmchaos_fault_done"] == DONE
    assert f"<br>{summary._md(DONE)} |" in summary.markdown(run)


@pytest.mark.parametrize(
    ("strength", "counts", "said"),
    [
        (None, [], []),
        ({}, [], []),
        ({"cores": 0.5}, [], ["flaky(cores=0.5) on model-1"]),
        (
            {"ratio": 1e-7, "size": 1048576, "of": None},
            [],
            ["flaky(ratio=1.00000e-07, size=1,048,576, of=) on model-1"],
        ),
        (
            {},
            [{"counters": {"requests": 12.0, "tokens": 1e6}}],
            ["flaky on model-1: counted 12 requests, 1,000,000 tokens"],
        ),
        ({"keep": True}, [{"counters": {}}], ["flaky(keep=True) on model-1"]),
    ],
    ids=["an old journal", "nothing", "options", "numbers", "an engine's counts", "no counts yet"],
)
def test_only_options_and_counts_that_a_journal_has_are_shown(
    tmp_path: Path, strength: dict[str, Any] | None, counts: list[dict[str, Any]], said: list[str]
) -> None:
    (trial,) = run_of(tmp_path, replace_made(FLAKY, strength=strength, counts=counts)).trials

    assert faults_done(trial) == said


def test_many_faults_of_one_trial_are_cut_with_their_number(tmp_path: Path) -> None:
    (trial,) = run_of(tmp_path, FLAKY).trials
    each = [replace(trial.undo[0], victim=f"model-{number}") for number in range(5)]

    lines = faults_done(replace(trial, undo=(*each, *each)))

    assert (len(lines), lines[3]) == (4, "and 2 more faults with options or counts")
    assert len(faults_done(replace(trial, undo=tuple(each)), most=5)) == 5


MISSED = "               objective missed, and no claim reads it: availability"


@pytest.mark.parametrize(
    ("objectives", "about", "is_told"),
    [
        ([], {}, True),
        (["ttft-p95"], {}, True),
        (["availability"], {}, False),
        (None, {}, False),
        ([], {"verdict": "refuted", "reason": "x"}, True),
        ([], {"verdict": "inconclusive", "reason": "x"}, False),
        ([], {"remediator": False}, False),
        ([], {"outage_s": 0.0}, False),
        ([], {"claims": ()}, False),
    ],
    ids=["no claim", "another", "a claim", "unknown", "refuted", "proves nothing", "no remediator", "met", "no claims"],
)
def test_a_missed_objective_has_a_line_unless_a_claim_reads_it(
    tmp_path: Path, objectives: list[str] | None, about: dict[str, Any], is_told: bool
) -> None:
    run = run_of(tmp_path, Made(objectives=objectives, **about))

    assert any(line.startswith(MISSED) for line in report.summary_lines(run)) is is_told


def slo_between(low: float, high: float, upper_edge_s: float | None = 0.8) -> dict[str, Any]:
    interval = {"low": low, "high": high, "bound_s": 0.5, "lower_edge_s": 0.4, "upper_edge_s": upper_edge_s}
    return {
        "name": "ttft",
        "objective": 0.975,
        "value": low,
        "burn_rate": 1.5,
        "budget_spent": 0.25,
        "met": True if low >= 0.975 else None if high >= 0.975 else False,
        "interval": interval,
    }


@pytest.mark.parametrize(
    ("low", "high", "edge_s", "shown"),
    [
        (0.962, 0.981, 0.8, "96.2 % to 98.1 % (objective 97.5 %): bound 0.5 s lies between the edges 0.4 and 0.8 s"),
        (0.98, 0.985, 0.8, "98 % to 98.5 % (objective 97.5 %): bound 0.5 s lies between the edges 0.4 and 0.8 s"),
        (0.9, 0.95, None, "90 % to 95 % (objective 97.5 %): bound 0.5 s lies above the last edge, 0.4 s"),
    ],
    ids=["not decided", "met", "missed"],
)
def test_a_share_between_two_edges_is_shown_as_an_interval(
    tmp_path: Path, low: float, high: float, edge_s: float | None, shown: str
) -> None:
    run_dir = reportdata.run_dir(tmp_path, [Made(objectives=[], extra={"slos": [slo_between(low, high, edge_s)]})])
    page = report.build(run_dir).read_text()

    lines = report.summary_lines(report.read_run(run_dir / "run.json"))

    assert f"               ttft is {shown}" in lines
    missed = "objective missed, and no claim reads it: ttft 90 % to 95 % (objective 97.5 %)"
    assert any(missed in line for line in lines) is (high < 0.975)
    value, _, why = shown.replace(" (objective 97.5 %)", "").partition(": ")
    assert f"<strong>{value}</strong> <small>{why}</small>" in page
    assert "at most 1.5" in page
    assert ("below its objective" in page) is (high < 0.975)
    assert f"ttft is {value} " in (run_dir / "summary.md").read_text()


def test_the_headline_names_what_held_and_what_did_not(tmp_path: Path) -> None:
    one, both = run_of(tmp_path / "one", Made()), run_of(tmp_path / "both", Made(), Made(judged=False))

    assert headline(one) == "The experiment held"
    assert headline(both) == "1 of 2 proves nothing, 1 held"


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"status": 0}, ""),
        ({"status": 1}, ", and pytest ended with status 1: other tests, or fixtures, failed"),
        ({"status": 2}, ", and pytest ended with status 2: the session was interrupted"),
        ({"status": 3}, ", and pytest ended with status 3: an internal error, or a cleanup that failed"),
        ({"status": 77}, ", and pytest ended with status 77"),
        ({"ended": False}, " until the run was cut off"),
    ],
)
def test_the_headline_of_a_run_that_did_not_pass_has_a_reservation(
    tmp_path: Path, how: dict[str, Any], said: str
) -> None:
    one, both = run_of(tmp_path / "one", Made(), **how), run_of(tmp_path / "both", Made(), Made(repeat=1), **how)
    refuted = run_of(tmp_path / "refuted", Made(verdict="refuted", reason="x"), **how)

    assert (headline(one), headline(both)) == (f"The experiment held{said}", f"All 2 experiments held{said}")
    assert headline(refuted) == "1 of 1 refuted"
    (both_md,) = (tmp_path / "both").glob("*/summary.md")
    assert both_md.read_text().startswith(f"## All 2 experiments held{said}\n")
    (page,) = (tmp_path / "one").glob("*/report.html")
    is_green = '<header class="top v-held">' in page.read_text()
    assert is_green is (said == "")


FAILED = [
    ("test_a", "passed", None),
    ("test_b", "failed", "assert 7.2 <= 5"),
    ("test_c", "failed", "assert 'unknown' == 'remediator'"),
    ("test_d", "error", "KeyError: 'apo'"),
    ("test_e", "skipped", "not today"),
]


def test_each_claim_that_failed_is_counted_and_shown(tmp_path: Path) -> None:
    run = run_of(tmp_path, Made(claims=FAILED))

    (line,) = [line for line in report.summary_lines(run) if line.startswith("✗")]
    (table,) = [line for line in next(tmp_path.glob("*/summary.md")).read_text().splitlines() if "refuted |" in line]
    page = next(tmp_path.glob("*/report.html")).read_text()

    assert line.endswith("  - assert 7.2 <= 5; and 2 more claims failed")
    shown = table.split("|")[-2].strip()
    assert shown == "assert 7.2 &lt;= 5<br>test\\_c: assert 'unknown' == 'remediator'<br>test\\_d: KeyError: 'apo'"
    assert 'assert 7.2 &lt;= 5<span class="more">c: assert ' in page
    for _, _, message in FAILED[1:]:
        assert f"<pre>{escape(message)}</pre>" in page


@pytest.mark.parametrize(
    ("claims", "ends"),
    [
        (
            [("test_a", "failed", ""), ("test_b", "failed", "")],
            "test_kill_api.py::test_a failed; and 1 more claim failed",
        ),
        ([("test_a", "failed", "x"), ("test_b", "failed", "x")], "- x; and 1 more claim failed"),
        ([("test_a", "failed", "x"), ("test_b", "passed", None)], "- x"),
        ([("test_a", "skipped", "x"), ("test_b", "skipped", "x")], "test_kill_api.py::test_a: x"),
    ],
)
def test_the_claim_that_is_the_reason_is_not_one_of_those_that_failed_too(
    tmp_path: Path, claims: list[tuple[str, str, str]], ends: str
) -> None:
    lines = report.summary_lines(run_of(tmp_path, Made(claims=claims)))

    assert lines[0].endswith(ends)


def test_what_the_judge_refuted_failed_once(tmp_path: Path) -> None:
    every = [(name, "failed", "it repaired api") for name in ("test_a", "test_b")]
    made = Made(verdict="refuted", reason="UnprovokedReaction: it repaired api", claims=every)

    assert report.summary_lines(run_of(tmp_path, made))[0].endswith("- UnprovokedReaction: it repaired api")


def test_a_killed_run_and_a_simulated_engine_are_named(tmp_path: Path) -> None:
    lines = report.summary_lines(run_of(tmp_path, Made(judged=False), ended=False, backend="sim"))

    assert lines[0].endswith("- the run ended before this trial was judged")
    assert lines[1] == "1 of 1 proves nothing (simulated engine)"
    assert lines[2].startswith("the run was cut off: its last journal line is from 2026-11-23 16:05:")


@pytest.mark.parametrize(
    ("ran_as", "shown"),
    [("process, not container", " runtime (process, not container), backend"), ("containers", " runtime, backend")],
)
def test_markdown_names_services_that_ran_as_processes(tmp_path: Path, ran_as: str, shown: str) -> None:
    run = reportdata.run_dir(tmp_path, [Made()], ran_as=ran_as)
    report.build(run)

    assert shown in (run / "summary.md").read_text()


def test_markdown_keeps_foreign_text_in_its_cell(tmp_path: Path) -> None:
    reason = "a | b\n\n# head <b>x</b> [link](http://example.org) `code` @someone ![i](x) *bold*"
    run_dir = reportdata.run_dir(tmp_path, [Made(verdict="refuted", reason=reason)])
    report.build(run_dir)

    table = [line for line in (run_dir / "summary.md").read_text().splitlines() if line.startswith("|")]

    assert len(table) == 3
    assert all(line.replace("\\|", "").count("|") == 8 for line in table)
    assert "&lt;b" in table[2]
    for raw in ("<b>", "[link](", "http://", "`code`", "@someone", "*bold*"):
        assert raw not in table[2].replace("\\", "\0")


def test_junit_properties_are_text_of_values_that_exist(tmp_path: Path) -> None:
    (trial,) = run_of(tmp_path, Made(detect_s=None, detected_by=None)).trials

    properties = dict(report.junit_properties(trial))

    assert properties["llmchaos_verdict"] == "held"
    assert properties["llmchaos_time_to_recover_s"] == "4.2"
    assert properties["llmchaos_slo_availability_value"] == "0.867647"
    assert "llmchaos_time_to_detect_s" not in properties
    assert all(isinstance(value, str) and value.isprintable() for value in properties.values())


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, formatting.NONE),
        (float("nan"), formatting.NONE),
        (float("inf"), "∞"),
        (0, "0"),
        (0.0042, "0.0042"),
        (0.00421234, "0.00421"),
        (4.2, "4.2"),
        (12.345, "12.3"),
        (1234.5, "1,234"),
        (12_000_000, "1.20e+07"),
        (True, "True"),
        ("text", "text"),
    ],
)
def test_figures_have_three_significant_digits(value: Any, shown: str) -> None:
    assert formatting.figure(value) == shown


@pytest.mark.parametrize(
    ("ratio", "shown"),
    [
        (1, "100 %"),
        (0.9943, "99.43 %"),
        (0.99999, "99.999 %"),
        (0.5, "50 %"),
        (0.0345, "3.45 %"),
        (0.000041, "0.0041 %"),
        (0, "0 %"),
    ],
)
def test_ratios_show_more_digits_where_they_matter(ratio: float, shown: str) -> None:
    assert formatting.percent(ratio) == shown


@pytest.mark.parametrize(
    ("length_s", "shown"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (298, "4 min 58 s"), (7260, "2 h 1 min"), (-3, "0 s")]
)
def test_durations_read_naturally(length_s: float, shown: str) -> None:
    assert formatting.duration(1000.0, 1000.0 + length_s) == shown


def test_what_acts_on_a_terminal_is_spelled_out() -> None:
    assert formatting.visible("a\x1b[31mb\u202ec") == "a⟨U+001B⟩[31mb⟨U+202E⟩c"
    assert formatting.visible("line\n\ttab é 漢 🧨") == "line\n\ttab é 漢 🧨"


def test_a_text_too_long_shows_how_much_is_missing() -> None:
    assert formatting.visible("x" * 50, cut=10) == "xxxxxxxxxx… (40 more characters in run.json)"


def test_the_container_of_a_scaled_service_is_named_next_to_the_fault(tmp_path: Path) -> None:
    drawn = replace(run_of(tmp_path, Made()).trials[0], fault="kill web", target="web", victim="web#2")

    assert fault_of(drawn) == "kill web (web#2)"
    assert fault_of(replace(drawn, fault="kill web#2")) == "kill web#2"
    assert fault_of(replace(drawn, victim="web")) == "kill web"


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("run_prometheus", "alert ServiceDown of the run's own Prometheus"),
        ("user_prometheus", "alert ServiceDown of the user's Prometheus"),
        ("stack_prometheus", "alert ServiceDown"),
        (None, "alert ServiceDown"),
    ],
)
def test_a_detection_names_whose_prometheus_raised_it(tmp_path: Path, source: DetectionSource, shown: str) -> None:
    trial = replace(run_of(tmp_path, Made()).trials[0], detected_by="alert ServiceDown", detection_source=source)

    assert detected_by(trial) == shown
    assert f"({shown})" in summary.took(trial)
    assert [how for what, _, how in tiles(trial, Raw()) if what == "detected after"] == [shown]
    assert ("llmchaos_detection_source" in dict(summary.junit_properties(trial))) == (source is not None)
    assert detected_by(replace(trial, detected_by=None)) is None
