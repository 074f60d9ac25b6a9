"""Samples into curves, curves into SVG."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import reportdata
from support.reportdata import Made

from pytest_llmchaos import report
from pytest_llmchaos.model import Sample
from pytest_llmchaos.report import svg
from pytest_llmchaos.report.binning import curves, gather, quantile
from pytest_llmchaos.report.journal_reader import journal
from pytest_llmchaos.report.markers import marks
from pytest_llmchaos.report.timeline import timeline


def sample(due_s: float, outcome: str = "ok", ttft_s: float = 0.1, e2e_s: float = 0.5) -> Sample:
    first_s = due_s + ttft_s if outcome == "ok" else None
    return Sample(due_s, due_s + 0.001, first_s, due_s + e2e_s, 0.0, 3, outcome, "model-1", "r")  # type: ignore[arg-type]


def test_requests_are_counted_in_the_bin_in_which_they_were_due() -> None:
    drawn = curves(
        gather([sample(0.1), sample(0.9, "refused"), sample(1.0), sample(2.5, "http_429")]), until_s=3, points=9, dots=9
    )

    assert (drawn.width_s, drawn.offered, drawn.ok) == (1, [2, 1, 1], [1, 1, 0])
    assert drawn.bad == {"failed": [1, 0, 0], "wrong": [0, 0, 0], "shed": [0, 0, 1]}


def test_requests_cut_off_by_the_end_of_the_run_are_not_drawn() -> None:
    drawn = curves(gather([sample(0.1), sample(0.2, "cancelled"), sample(0.3, "left")]), until_s=1, points=9, dots=9)

    assert (drawn.offered, drawn.ok) == ([1], [1])


def test_failures_are_slower_than_every_answer() -> None:
    answers = [sample(i / 100, ttft_s=0.2) for i in range(19)]

    half = curves(gather([*answers, *(sample(0.5, "timeout") for _ in range(19))]), until_s=1, points=1, dots=0)
    one = curves(gather([*answers, sample(0.5, "timeout")]), until_s=1, points=1, dots=0)

    assert half.ttft_p95_s == [math.inf]
    assert half.ttft_p50_s[0] == pytest.approx(0.2)
    assert one.ttft_p95_s[0] == pytest.approx(0.2)


def test_in_flight_counts_the_most_at_once_also_in_bins_in_which_nothing_left() -> None:
    drawn = curves(
        gather([sample(0.0, e2e_s=3.5), sample(0.5, e2e_s=0.2), sample(3.2, e2e_s=0.1)]), until_s=5, points=9, dots=0
    )

    assert drawn.inflight == [2, 1, 1, 2, 0]


@given(st.lists(st.tuples(st.floats(0, 20), st.floats(0.001, 8)), max_size=40))
def test_in_flight_agrees_with_counting_by_hand(spans: list[tuple[float, float]]) -> None:
    seen = [sample(due_s, e2e_s=0.001 + e2e_s) for due_s, e2e_s in spans]
    drawn = curves(gather(seen), until_s=20, points=20, dots=0)

    def under_way(at_s: float) -> int:
        return sum(one.sent_s <= at_s < one.end_s for one in seen)

    for place, most in enumerate(drawn.inflight):
        inside = [one.sent_s for one in seen if int(one.sent_s) == place or (place == 19 and one.sent_s >= 20)]
        begin = sum(one.sent_s < place < one.end_s for one in seen)
        assert most == max([begin, *(under_way(at_s) for at_s in inside)])


@given(st.lists(st.floats(0, 100), min_size=1), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_quantile_is_a_measured_value_with_enough_below_it(values: list[float], q: float) -> None:
    ordered = sorted(values)
    found = quantile(ordered, q)

    assert found in ordered
    assert sum(value <= found for value in ordered) >= q * len(ordered) - 1e-9


def test_a_quantile_of_nothing_is_nothing() -> None:
    assert quantile([], 0.95) is None


@pytest.mark.parametrize(("until_s", "rate_rps"), [(30, 2), (30, 1000), (600, 2), (86_400, 0.1), (1e6, 0.001)])
def test_a_chart_has_no_more_points_than_it_was_given(until_s: float, rate_rps: float) -> None:
    seen = [sample(i / rate_rps) for i in range(int(until_s * rate_rps))]

    drawn = curves(gather(seen), until_s=until_s, points=120, dots=0)

    assert len(drawn.offered) <= 120
    assert drawn.edges_s[-1] == until_s
    assert sum(drawn.per_second(drawn.offered)) * drawn.width_s == pytest.approx(len(seen), rel=0.02)
    assert sum(drawn.offered) == len(seen)


def test_a_timeline_is_well_formed_and_marks_what_happened(tmp_path: Path) -> None:
    made = Made()
    run = report.fold(journal(reportdata.run_dir(tmp_path, [made])).lines)
    raw = gather(Sample(*row) for row in reportdata.samples(made, 42))

    drawn = timeline(run.trials[0], curves(raw, until_s=34, points=120, dots=500))

    root = ET.fromstring(str(drawn))
    texts = [element.text for element in root.iter("text")]
    assert {"steady 8 s", "fault 14 s", "recovery 12 s", "requests per second", "in flight, most at once"} <= set(texts)
    assert "recovered +4.2 s · remediator" in texts
    assert len(list(root.iter("circle"))) == 5
    height = float(root.attrib["viewBox"].split()[3])
    assert all(0 <= float(element.attrib["y"]) <= height for element in root.iter("text"))
    assert max(len(path.attrib["d"]) for path in root.iter("path")) < 6_000


@pytest.mark.parametrize(
    "made", [Made(judged=False), Made(fault="none", victim=""), Made(outage_s=14)], ids=["died", "none", "out"]
)
def test_a_timeline_of_an_odd_trial_is_well_formed(tmp_path: Path, made: Made) -> None:
    (trial,) = report.fold(journal(reportdata.run_dir(tmp_path, [made])).lines).trials
    raw = gather(Sample(*row) for row in reportdata.samples(made, 42))

    for seen in (raw, gather([])):
        drawn = ET.fromstring(str(timeline(trial, curves(seen, until_s=34, points=50, dots=0))))
        assert drawn.tag == "svg"


def test_a_phase_that_did_not_end_has_no_length(tmp_path: Path) -> None:
    (trial,) = report.fold(journal(reportdata.run_dir(tmp_path, [Made(judged=False)])).lines).trials
    raw = gather(Sample(*row) for row in reportdata.samples(Made(judged=False), 42))

    drawn = str(timeline(trial, curves(raw, until_s=34, points=50, dots=0)))

    assert "fault, cut off" in drawn
    assert re.findall(r">((?:steady|fault|recovery) [0-9.]+ s)<", drawn) == ["steady 8 s"]


def test_detection_and_recovery_are_counted_from_the_fault_that_the_witness_saw(tmp_path: Path) -> None:
    (trial,) = report.fold(journal(reportdata.run_dir(tmp_path, [Made(detect_s=2.0, recover_s=5.0)])).lines).trials

    keys = {mark.css: mark.at_s for mark in marks(trial) if mark.key}

    assert keys == pytest.approx({"fault": 8.031, "detected": 10.031, "recovered": 13.031, "healed": 22.2})


def test_a_control_without_a_fault_has_no_fault_mark(tmp_path: Path) -> None:
    made = Made(fault="none", victim="", detect_s=None, recover_s=None)
    (trial,) = report.fold(journal(reportdata.run_dir(tmp_path, [made])).lines).trials

    assert [mark for mark in marks(trial) if mark.key] == []


@given(st.floats(1e-6, 1e9), st.integers(1, 12))
def test_ticks_are_round_few_and_at_least_one(high: float, most: int) -> None:
    found = svg.ticks(high, most)

    assert 2 <= len(found) <= most + 1
    assert found[0] == 0
    assert found[-1] <= high * (1 + 1e-6)


def test_bars_of_one_floor_are_one_outline() -> None:
    drawn = svg.steps([10, 10, 5, 20], [20, 20, 20, 20], [0, 1, 2, 3, 4], "ok")

    assert drawn == '<path d="M0 20V10H2V5H3V20z" class="ok"/>'


def test_a_line_is_broken_where_there_is_no_value() -> None:
    drawn = svg.path([(0, 0), (1, 1), None, (5, 5), None, (9, 9), (8, 7)], "line")

    assert re.search('d="([^"]*)"', drawn) is not None
    assert drawn == '<path d="M0 0l1 1M5 5h0M9 9l-1-2" class="line"/>'
