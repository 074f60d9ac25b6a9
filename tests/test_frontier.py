"""Scaling policies compared: ranks, the frontier, its page and its drawings."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmchaos.report.formatting import NONE
from pytest_llmchaos.report.frontier import Cell, Frontier, Moment, below, compare, text_of
from pytest_llmchaos.report.frontier_page import frontier_page


def cell(
    policy: str, fault: str = "none", seed: int = 0, *, attained: float = 1.0, hours: float = 1.0, **more: Any
) -> Cell:
    base: dict[str, Any] = {
        "offered": 100,
        "served": 100,
        "shed": 0,
        "lost": 0,
        "lost_at_zero": 0,
        "open": 0,
        "cut_by_scale_down": 0,
        "first_token_attained": attained,
        "token_gap_attained": attained,
        "first_token_p95_s": 0.5,
        "cold_s": 60.0,
        "flaps": 0,
        "max_replicas": 3,
        "min_ready": 1,
        "fault_acts": {"kill": 1},
        "cell": 0,
        "syncs": 60,
        "blind_syncs": 0,
    }
    return Cell(policy=policy, fault=fault, seed=seed, attained=attained, replica_s=hours * 3600, **(base | more))


def point(frontier: Frontier, policy: str, fault: str = "none"):
    (found,) = [one for one in frontier.points if (one.policy, one.fault) == (policy, fault)]
    return found


def test_the_best_policy_keeps_the_objective_under_every_fault_with_the_fewest_hours() -> None:
    frontier = compare(
        [
            cell("dear", attained=1.0, hours=8),
            cell("dear", "kill", attained=0.995, hours=8),
            cell("good", attained=0.99, hours=3),
            cell("good", "kill", attained=0.99, hours=3),
            cell("cheap", attained=0.999, hours=1),
            cell("cheap", "kill", attained=0.98, hours=1),
        ],
        0.99,
    )

    assert [rank.policy for rank in frontier.ranks] == ["good", "dear", "cheap"]
    assert frontier.best is frontier.ranks[0]
    assert (
        frontier.headline
        == "good keeps 99 % of requests within their targets in all 2 conditions with the fewest replica-hours"
    )


def test_one_seed_below_the_objective_is_enough_to_miss_it() -> None:
    frontier = compare([cell("a", seed=0, attained=1.0), cell("a", seed=1, attained=0.98)], 0.99)

    assert point(frontier, "a").attained == pytest.approx(0.99)
    assert not point(frontier, "a").keeps
    assert frontier.best is None


def test_without_a_best_policy_the_headline_names_the_nearest_and_its_worst_fault() -> None:
    frontier = compare(
        [
            cell("near", attained=1.0),
            cell("near", "kill", attained=0.9),
            cell("far", attained=0.8),
            cell("far", "kill", attained=0.85),
        ],
        0.99,
    )

    assert frontier.best is None
    assert frontier.headline == (
        "No policy keeps 99 % of requests within their targets in all 2 conditions; "
        "near keeps it in 1, and reaches 90 % under kill"
    )


def test_policies_that_keep_it_nowhere_are_ranked_by_what_they_reach() -> None:
    frontier = compare([cell("cheap", attained=0.5, hours=1), cell("dear", attained=0.9, hours=9)], 0.99)

    assert [rank.policy for rank in frontier.ranks] == ["dear", "cheap"]


def test_the_frontier_has_the_policies_that_none_beats_in_both() -> None:
    frontier = compare(
        [
            cell("dear", attained=1.0, hours=5),
            cell("beaten", attained=0.95, hours=4),
            cell("good", attained=0.97, hours=3),
            cell("twin", attained=0.97, hours=3),
            cell("dearer", attained=0.97, hours=3.1),
            cell("cheap", attained=0.5, hours=1),
        ],
        0.99,
    )

    assert [one.policy for one in frontier.points if one.is_frontier] == ["dear", "good", "twin", "cheap"]


def test_a_fault_that_struck_in_no_run_shows_nothing() -> None:
    frontier = compare([cell("a"), cell("a", "kill(at_s=5)", fault_acts={})], 0.99)

    assert frontier.idle_faults == ("kill(at_s=5)",)
    assert frontier.best is None
    assert frontier.headline == "Nothing is shown: kill(at_s=5) struck in no run"
    assert "the fault did not strike" in text_of(frontier)
    assert "fault did not strike" in drawn(*(one for found in frontier.points for one in found.cells))


def test_each_part_of_a_sum_has_to_strike() -> None:
    fault = "kill(at_s=5) + nan(at_s=5, for_s=9)"

    assert not cell("a", fault, fault_acts={"nan": 3}).struck
    assert cell("a", fault, fault_acts={"nan": 3, "kill": 1}).struck
    assert cell("a", fault_acts={}).struck


def test_a_policy_that_starts_nothing_is_rightly_not_hit_by_slow_starts() -> None:
    fault = "slow_load(at_s=0, for_s=9, factor=3)"
    frontier = compare(
        [cell("fixed(4)", fault, fault_acts={}), cell("hpa()", fault, fault_acts={"slow_load": 1})], 0.99
    )

    assert frontier.idle_faults == ()
    assert frontier.best is not None
    assert not point(frontier, "fixed(4)", fault).struck


def test_a_miss_is_never_rounded_up_to_the_objective() -> None:
    assert below(0.98996, 0.99) == "98.996 %"
    assert below(0.989999999, 0.99) == "98.999 %"
    assert below(0.99, 0.99) == "99 %"
    assert below(0.5, 0.99) == "50 %"
    assert "✗ a  98.996 %" in text_of(compare([cell("a", attained=0.98996)], 0.99))


def test_a_policy_that_was_blind_is_named() -> None:
    frontier = compare([cell("a", syncs=40, blind_syncs=30)], 0.99)

    assert ", blind in 75 % of its decisions" in text_of(frontier)
    assert 'data-h="blind">75 %' in drawn(*frontier.points[0].cells)


def test_another_fault_beats_no_policy() -> None:
    frontier = compare([cell("a", attained=0.9, hours=2), cell("b", "kill", attained=1.0, hours=1)], 0.99)

    assert point(frontier, "a").is_frontier


@given(
    st.lists(
        st.tuples(st.floats(0, 1), st.floats(0.1, 9)),
        min_size=1,
        max_size=8,
    )
)
def test_a_frontier_is_never_empty_and_the_best_is_on_it(values: list[tuple[float, float]]) -> None:
    frontier = compare([cell(str(n), attained=a, hours=h) for n, (a, h) in enumerate(values)], 0.5)

    edge = [one for one in frontier.points if one.is_frontier]
    assert edge
    cheapest = min(one.replica_h for one in frontier.points)
    assert cheapest in {one.replica_h for one in edge}
    if frontier.best is not None:
        kept = [one for one in frontier.points if one.keeps]
        assert frontier.best.replica_h == min(one.replica_h for one in kept)


def test_the_text_has_the_spread_the_frontier_and_what_was_lost() -> None:
    frontier = compare(
        [
            cell("hpa()", seed=0, attained=0.98, hours=1, cut_by_scale_down=1, flaps=2),
            cell("hpa()", seed=1, attained=1.0, hours=2, cut_by_scale_down=1, lost_at_zero=1),
            cell("slo()", attained=0.9, hours=4),
        ],
        0.99,
    )

    assert text_of(frontier).splitlines() == [
        "none",
        (
            "  ✗ hpa()      99 % (98 % to 100 %)     1.5 replica-hours (1 to 2)  frontier, "
            "2 requests cut by scale-down, 1 request lost at zero, 2 flaps"
        ),
        "  ✗ slo()      90 % (90 % to 90 %)       4 replica-hours (4 to 4)",
        "",
        f"{frontier.headline}.",
    ]


def moments() -> tuple[Moment, ...]:
    return (
        Moment(at_s=0.0, desired=1, ready=1, cold=0, draining=0, waiting=0),
        Moment(at_s=300.0, desired=3, ready=1, cold=2, draining=0, waiting=9),
        Moment(at_s=330.0, desired=3, ready=3, cold=0, draining=0, waiting=0),
        Moment(at_s=800.0, desired=1, ready=1, cold=0, draining=2, waiting=0),
    )


HOSTILE = "<script>alert(1)</script>"


def drawn(*cells: Cell) -> str:
    return frontier_page(compare(cells, 0.99), {"load": HOSTILE}, [0.0, 100.0, 450.0, 899.0], 900.0)


def test_the_page_has_a_drawing_for_each_fault_and_a_course_for_each_pair() -> None:
    page = drawn(
        *(
            cell(policy, fault, seed, attained=0.9 + seed / 20, trajectory=moments())
            for policy in ("hpa()", "slo()")
            for fault in ("none", "kill(at_s=peak)")
            for seed in (0, 1)
        )
    )

    assert page.count('role="img" aria-label="Policies under') == 2
    assert page.count('aria-label="Replicas of') == 4
    assert page.count('class="point missed"') == 4
    assert "Simulated." in page
    assert 'data-h="replica-hours"' in page


def test_the_page_loads_nothing_and_hostile_text_stays_text() -> None:
    page = drawn(cell(HOSTILE, HOSTILE, attained=0.0, trajectory=moments()))

    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 4
    assert re.findall(r"(?:src|href)=\"(?!#)[^\"]*\"", page) == []
    assert "script-src &#39;none&#39;" in page


def test_a_p95_without_a_value_and_a_run_without_hours_are_shown() -> None:
    page = drawn(cell("fixed(0)", attained=0.0, hours=0.0, cold_s=0.0, first_token_p95_s=None, token_gap_attained=None))

    assert "∞" in page
    assert f'data-h="cold">{NONE}' in page
    assert f'data-h="token gaps">{NONE}' in page


def test_a_line_of_the_simulation_is_a_cell_and_further_fields_are_ignored() -> None:
    made = cell("slo()", trajectory=moments())
    line = msgspec.json.encode(msgspec.to_builtins(made) | {"new_field": 1})

    assert msgspec.json.decode(line, type=Cell) == made
