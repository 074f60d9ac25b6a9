"""A window's numbers: a vacuous comparison raises."""

import copy
import json
import math
import operator
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmchaos.errors import (
    BadScenario,
    Inconclusive,
    OpenRequests,
    ProvesNothing,
    TooFewSamples,
    VacuousClaim,
)
from pytest_llmchaos.model import Sample
from pytest_llmchaos.stats.bounded import BoundedCount, BoundedFloat, Scale, Seconds
from pytest_llmchaos.stats.quantiles import Quantiles
from pytest_llmchaos.stats.windows import Part, around, parts, windows

SHARE = Scale(
    what="availability during the fault",
    least=0,
    most=1,
    at_least="none of the 100 requests had been answered",
    at_most="every one of the 100 requests had been answered",
    advice="raise rate_rps",
    events=100,
)
COUNT = Scale(what="failed", least=0, most=160, at_least="none had failed", at_most="all had failed", advice="bound it")


def share(value, events=100, **ends):
    return BoundedFloat(value, Scale(**{**vars(SHARE), "events": events}), **ends)


def failed(value=3, most=160, **ends):
    return BoundedCount(value, Scale(**{**vars(COUNT), "most": most}), **ends)


def sample(due_s, outcome="ok", e2e_s=0.5):
    return Sample(due_s, due_s, due_s + 0.1, due_s + e2e_s, 0.0, 8, outcome, "model-1", f"r-{due_s}")


@pytest.mark.parametrize(
    ("claim", "said"),
    [
        (lambda: failed() <= 160, "failed <= 160 cannot fail: even if all had failed, it would be 160; bound it"),
        (lambda: failed() < 161, "failed < 161 cannot fail: even if all had failed, it would be 160; bound it"),
        (lambda: failed() >= 0, "failed >= 0 cannot fail: even if none had failed, it would be 0; bound it"),
        (lambda: failed() > -1, "failed > -1 cannot fail: even if none had failed, it would be 0; bound it"),
        (lambda: failed() > 160, "failed > 160 cannot hold: even if all had failed, it would be 160; bound it"),
        (lambda: failed() >= 161, "failed >= 161 cannot hold: even if all had failed, it would be 160; bound it"),
        (lambda: failed() < 0, "failed < 0 cannot hold: even if none had failed, it would be 0; bound it"),
        (
            lambda: operator.le(failed(), math.nan),
            "failed <= nan cannot hold: even if none had failed, it would be 0; bound it",
        ),
        (
            lambda: operator.ge(160.5, failed()),
            "failed <= 160.5 cannot fail: even if all had failed, it would be 160; bound it",
        ),
        (
            lambda: operator.ge(160, failed()),
            "failed <= 160 cannot fail: even if all had failed, it would be 160; bound it",
        ),
        (
            lambda: share(0.9) >= 95,
            (
                f"{SHARE.what} >= 95 cannot hold: even if every one of the 100 requests had been answered, it would be 1; "
                "95 % is 0.95; raise rate_rps"
            ),
        ),
        (
            lambda: share(0.9) <= 1.5,
            (
                f"{SHARE.what} <= 1.5 cannot fail: even if every one of the 100 requests had been answered, it would be 1; "
                "raise rate_rps"
            ),
        ),
        (lambda: failed() < failed(200, 300, low=161), None),
        (lambda: failed(0, 0) == 0, "failed == 0 proves nothing: even if all had failed, it would be 0; bound it"),
        (lambda: failed(0, 0.0) == 0, "failed == 0 proves nothing: even if all had failed, it would be 0; bound it"),
        (lambda: failed(0, 0) != 0, "failed == 0 proves nothing: even if all had failed, it would be 0; bound it"),
        (lambda: not failed(0, 0), "failed == 0 proves nothing: even if all had failed, it would be 0; bound it"),
    ],
)
def test_a_comparison_that_no_outcome_could_change_raises(claim, said):
    if said is None:
        assert claim()
        return
    with pytest.raises(VacuousClaim) as refused:
        claim()
    assert str(refused.value) == said
    assert isinstance(refused.value, ProvesNothing)


def test_a_bound_inside_the_scale_is_plain():
    assert failed() <= 3
    assert failed() < 4
    assert failed() >= 3
    assert failed() > 2
    assert not failed() <= 2
    assert operator.ge(3, failed())
    assert failed() == 3
    assert failed() != 4
    assert failed() != 2
    assert failed()
    assert not failed(0)
    assert hash(failed()) == hash(3)
    assert failed() == pytest.approx(3)


def test_other_types_are_left_to_python():
    assert failed() != "3"
    assert not failed() == "3"  # noqa: SIM201 - both operators are meant
    with pytest.raises(TypeError):
        assert failed() <= "3"


@given(st.floats(0, 1), st.floats(-0.5, 1.5), st.sampled_from([operator.lt, operator.le, operator.gt, operator.ge]))
def test_a_share_compares_like_a_float_unless_it_raises(value, bound, compare):
    try:
        said = compare(share(value, events=1e12), bound)
    except ProvesNothing:
        return
    assert said == compare(value, bound)


@pytest.mark.parametrize(("bound", "needed"), [(0.99, 100), (0.95, 20), (0.5, 2), (0.999, 1000), (1 - 1 / 3, 3)])
def test_few_events_can_break_a_bound_and_cannot_hold_it(bound, needed):
    assert share(1.0, needed) >= bound
    assert not share(bound / 2, 1) >= bound
    with pytest.raises(
        TooFewSamples, match=rf"needs {needed} events to hold, got {needed - 1}: one bad event of so few"
    ):
        assert share(1.0, needed - 1) >= bound


def test_few_events_cannot_hold_a_share_near_zero_either():
    assert share(0.0, 20) <= 0.05
    with pytest.raises(TooFewSamples, match="needs 20 events to hold, got 19"):
        assert share(0.0, 19) <= 0.05


def test_a_bound_next_to_the_end_cannot_be_held_by_any_number_of_events():
    with pytest.raises(TooFewSamples, match="needs inf events to hold"):
        assert share(0.0, 10**9) < 5e-324


def test_a_bound_at_the_end_is_about_these_events_only():
    assert share(1.0, 3) >= 1
    assert share(0.0, 3) <= 0


def test_what_open_requests_could_change_is_inconclusive():
    value = share(0.97, low=0.95, high=0.98)

    assert value >= 0.95
    assert not value >= 0.99
    for unclear in (lambda: value >= 0.97, lambda: value <= 0.96, lambda: value == 0.97, lambda: value != 0.96):
        with pytest.raises(OpenRequests, match=r"still open when the load ended, .* between 0\.95 and 0\.98"):
            unclear()
    assert value != 0.99
    assert not value == 0.99  # noqa: SIM201 - both operators are meant


@pytest.mark.parametrize("bound", [0.95, 0.98])
def test_what_the_best_or_the_worst_end_would_make_true_is_inconclusive(bound):
    with pytest.raises(OpenRequests):
        assert share(0.97, low=0.95, high=0.98) != bound


ORDERS = st.sampled_from([operator.lt, operator.le, operator.gt, operator.ge])
ENDS = st.lists(st.integers(1, 9), min_size=3, max_size=3).map(sorted)


@given(ENDS, ENDS, ORDERS)
def test_two_numbers_compare_if_open_requests_cannot_change_the_answer(one, other, compare):
    """Each is a count from 0 to 10, given as least, value and most."""
    (low, value, high), (least, bound, most) = one, other
    ends = {compare(mine, theirs) for mine in (low, value, high) for theirs in (least, bound, most)}
    left, right = failed(value, 10, low=low, high=high), failed(bound, 10, low=least, high=most)

    if len(ends) == 2:
        with pytest.raises(OpenRequests):
            compare(left, right)
    else:
        assert compare(left, right) in ends


@pytest.mark.parametrize(("distance", "events"), [(1 / 20.0000004, 20), (1 / 20.000001, 21), (1 / 20.000004, 21)])
def test_a_step_with_a_rounding_error_counts_as_whole(distance, events):
    assert SHARE.needed(distance) == events


@pytest.mark.parametrize(
    "claim",
    [
        lambda spent: spent * 100 <= 2,
        lambda spent: 100 * spent <= 2,
        lambda spent: spent / 0.5 <= 0.04,
        lambda spent: spent + 1 <= 1.02,
        lambda spent: 1 + spent <= 1.02,
        lambda spent: spent - 1 <= -0.98,
        lambda spent: 1 - spent >= 0.98,
        lambda spent: round(spent, 4) <= 0.02,
        lambda spent: round(spent) <= 1,
        lambda spent: sum([spent]) <= 0.02,
        lambda spent: round(100 - spent * 100, 1) >= 98,
    ],
)
def test_a_claim_that_no_outcome_could_refute_raises(claim):
    spent = BoundedFloat(0.0005, Scale(**{**vars(SHARE), "most": 0.004, "events": None}))

    with pytest.raises(VacuousClaim):
        claim(spent)


def test_what_too_few_events_cannot_hold_they_cannot_hold_in_per_cent():
    value = share(1.0, events=3)

    for claim in (lambda: 100 * value >= 95, lambda: 1 - value <= 0.05, lambda: value - 0.95 >= 0):
        with pytest.raises(TooFewSamples, match="needs 20 events to hold, got 3"):
            claim()
    with pytest.raises(TooFewSamples, match="needs 20 events to hold, got 19"):
        assert 1 + share(0.0, events=19) <= 1.05
    assert 1 + share(0.0, events=20) <= 1.05
    assert 100 * share(1.0) >= 95
    assert not 100 * share(0.9) >= 95
    with pytest.raises(OpenRequests, match="between 94 and 98"):
        assert 100 * share(0.97, low=0.94, high=0.98) >= 95
    with pytest.raises(OpenRequests, match=r"1 - availability during the fault <= 0\.05 .* between 0\.02 and 0\.06"):
        assert 1 - share(0.97, low=0.94, high=0.98) <= 0.05


def test_arithmetic_gives_the_numbers_of_floats():
    value = share(0.97)

    assert [float(one) for one in (value + 1, 1 + value, value - 1, 1 - value, value * 2, 2 * value, value / 2)] == [
        *(0.97 + 1, 1 + 0.97, 0.97 - 1, 1 - 0.97, 0.97 * 2, 2 * 0.97, 0.97 / 2)
    ]
    assert (float(round(value, 1)), float(round(value))) == (1.0, 1.0)
    assert float(round(share(0.943), 2)) == 0.94
    for odd in ("1", None, [1]):
        with pytest.raises(TypeError):
            value + odd


def test_arithmetic_of_two_windows_or_without_a_bound_is_plain():
    unlimited = BoundedFloat(2.0, Scale(**{**vars(SHARE), "most": math.inf}))

    for made in (share(0.9) - share(0.8), share(0.9) / share(0.8), unlimited * 0):
        assert type(made) is float
    assert type(unlimited * 2) is BoundedFloat


def test_a_part_of_no_answers_is_a_bound_that_every_number_is_above():
    with pytest.raises(VacuousClaim, match="cannot fail"):
        assert failed(0) >= 0.95 * failed(0)
    assert failed(5) >= 0.95 * failed(5)
    assert not failed(4) >= 0.95 * failed(5)


def test_a_number_prints_and_copies_as_a_plain_one():
    value = failed(5)

    assert (repr(value), str(value), f"{value}", f"{value:03d}", list(range(value))) == (
        "5",
        "5",
        "5",
        "005",
        [*range(5)],
    )
    assert repr(share(0.943)) == "0.943"
    assert type(copy.deepcopy(value)) is float
    assert json.dumps([share(0.5)]) == "[0.5]"


def test_claims_about_a_window_use_its_number_of_requests():
    (window,) = windows([*(sample(i / 10) for i in range(8)), sample(0.9, "truncated")], [("during the fault", 0, 1)])

    assert window.failed == window.count_of("truncated") == window.outcomes["truncated"] == 1
    assert window.count_of("cut") == window.left == window.refused == 0
    with pytest.raises(
        VacuousClaim, match="failed during the fault <= 9 cannot fail: even if every one of the 9 requests"
    ):
        assert window.failed <= 9
    with pytest.raises(VacuousClaim, match=r"cut during the fault <= 10 cannot fail: .* had ended as cut"):
        assert window.count_of("cut") <= 10
    with pytest.raises(VacuousClaim, match="availability during the fault >= 0 cannot fail"):
        assert window.availability >= 0
    with pytest.raises(VacuousClaim, match="goodput_rps during the fault <= 9 cannot fail"):
        assert window.goodput_rps <= 9
    with pytest.raises(TooFewSamples, match=r"goodput_ratio during the fault >= 0.8.* got 4"):
        assert windows([sample(i / 10) for i in range(4)], [("during the fault", 0, 1)])[0].goodput_ratio >= 0.8


def test_a_window_that_a_quick_recovery_made_short_is_bounded_by_its_longest():
    (window,) = parts([sample(0, "refused"), sample(1)], [Part("during the fault", 0, 2, could_offer=40)])

    assert window.failed <= 10
    with pytest.raises(VacuousClaim, match="even if every one of the 40 requests had failed, it would be 40"):
        assert window.failed <= 40


def test_no_answers_at_all_are_not_a_good_share():
    (window,) = windows([sample(0, "refused"), sample(1, "refused")], [("during the fault", 0, 2)])

    with pytest.raises(VacuousClaim, match="good during the fault >= 0 cannot fail"):
        assert window.good >= 0.95 * window.ok
    with pytest.raises(VacuousClaim, match="good during the fault >= 0 cannot fail"):
        assert 0.95 * window.ok <= window.good


class TestAWindowOfALoadThatRuns:
    """An abort condition may need more failures than there are requests so far."""

    @pytest.fixture
    def window(self):
        (window,) = windows([sample(0), sample(1, "refused")], [("lately", 0, 2)], is_live=True)
        return window

    def test_a_running_load_may_still_get_any_number_of_requests(self, window):
        assert not window.failed > 100
        assert window.failed <= 100
        assert not window.goodput_rps > 100
        assert window.availability <= 0.99
        assert not window.availability >= 0.99

    @pytest.mark.parametrize(
        "claim",
        [
            lambda window: window.availability >= 0,
            lambda window: window.availability <= 1,
            lambda window: window.goodput_ratio > 1,
            lambda window: window.failed >= 0,
            lambda window: window.count_of("cut") < 0,
            lambda window: window.goodput_rps >= 0,
        ],
    )
    def test_raises_on_a_bound_that_cannot_be_broken(self, window, claim):
        with pytest.raises(VacuousClaim, match=r"lately .* cannot (fail|hold)"):
            claim(window)


class TestWhatIsNoClaim:
    @pytest.mark.parametrize(
        ("value", "said"),
        [
            (share(0.9), "availability during the fault is a number, neither true nor false: compare it with a bound"),
            (1 - share(0.9), "1 - availability during the fault is a number, neither true nor false"),
            (failed(3) / 7, "failed / 7 is a number"),
            (
                Quantiles("e2e_s", [1.0]),
                "<e2e_s of 1 requests, 0 without an end> is neither true nor false: write .* .p95 <= 2",
            ),
            (
                windows([sample(0)], [("whole", 0, 1)])[0],
                "<whole: 1 requests, 0 failed, 1.0 s> is neither .* .failed == 0",
            ),
            (Seconds(0.0), "0 s is a time, neither true nor false: compare it with a bound"),
        ],
    )
    def test_a_value_without_a_bound_is_neither_true_nor_false(self, value, said):
        for asked in (lambda: bool(value), lambda: not value, lambda: value and 1):
            with pytest.raises(BadScenario, match=said):
                asked()

    def test_but_a_count_may_be_compared_with_0(self):
        assert failed(1)
        assert not failed(0)


class TestATimeThatMayHaveBeenShorter:
    """Times from a watcher that had been blind."""

    SEEN = Seconds(4.0, blind=Inconclusive("not watched"))

    @pytest.mark.parametrize(
        ("claim", "holds"),
        [
            (lambda s: s <= 4, True),
            (lambda s: s < 5, True),
            (lambda s: operator.ge(4, s), True),
            (lambda s: s > 4, False),
            (lambda s: s >= 4.5, False),
            (lambda s: s >= 0, True),
            (lambda s: s <= Decimal("4.5"), True),
            (lambda s: s == 5, False),
            (lambda s: s != 5, True),
            (lambda s: s == "4", False),
            (lambda s: s != "4", True),
        ],
    )
    def test_a_claim_is_conclusive_if_each_shorter_time_agrees(self, claim, holds):
        assert claim(self.SEEN) is holds

    @pytest.mark.parametrize(
        "claim",
        [
            lambda s: s <= 3,
            lambda s: s < 4,
            lambda s: s > 3,
            lambda s: s >= 4,
            lambda s: operator.lt(3, s),
            lambda s: s == 4,
            lambda s: s != 0,
            lambda s: s == Decimal(2),
        ],
    )
    def test_a_claim_that_a_shorter_time_would_change_is_inconclusive(self, claim):
        with pytest.raises(Inconclusive, match="not watched"):
            claim(self.SEEN)

    def test_a_time_that_could_not_be_shorter_is_exact(self):
        assert Seconds(0.0, blind=Inconclusive("not watched")) == 0
        assert Seconds(4.0) >= 4
        assert Seconds(4.0) == 4
        assert Seconds(4.0) != 5
        assert {Seconds(4.0)} == {4.0}

    def test_a_copy_is_as_blind(self):
        with pytest.raises(Inconclusive, match="not watched"):
            assert copy.copy(self.SEEN) >= 4

    def test_a_time_is_not_compared_with_a_text(self):
        with pytest.raises(TypeError):
            assert self.SEEN <= "4"


class TestAPartOfItsRequests:
    """A count divided by the number of requests that it is a part of."""

    def part(self, bad, of, could_offer=0):
        answers = [sample(i / of, "truncated" if i < bad else "ok") for i in range(of)]
        return parts(answers, [Part("in the whole trial", 0, 1, could_offer=could_offer)])[0]

    def test_rests_on_these_requests_as_a_share_does(self):
        few, enough = self.part(0, 99, could_offer=500), self.part(1, 100)

        assert enough.failed / enough.offered <= 0.01
        assert few.failed / few.offered <= 0.02
        with pytest.raises(
            TooFewSamples, match=r"failed in the whole trial / 99 <= 0\.01 needs 100 events to hold, got 99"
        ):
            assert few.failed / few.offered <= 0.01
        with pytest.raises(TooFewSamples, match="needs 100 events to hold, got 99"):
            assert 1 - few.failed / few.offered >= 0.99

    def test_a_part_of_the_requests_is_at_most_all_of_them(self):
        window = self.part(1, 10, could_offer=50)

        with pytest.raises(VacuousClaim, match="<= 1 cannot fail"):
            assert window.failed / window.offered <= 1
        assert window.failed / 5 <= 2

    def test_about_a_value_is_a_claim_that_can_fail(self):
        assert self.part(5, 100).availability == pytest.approx(0.96, abs=0.02)
        assert self.part(5, 100).availability != pytest.approx(0.99, abs=0.02)
        with pytest.raises(
            VacuousClaim, match=r"\|0\.96 - availability in the whole trial\| <= 1 cannot fail: even if"
        ):
            assert self.part(5, 100).availability == pytest.approx(0.96, abs=1)
        with pytest.raises(OpenRequests):
            assert share(0.95, low=0.9, high=0.96) == pytest.approx(0.96, abs=0.02)

    def test_a_tolerance_may_be_relative_to_another_windows_value(self):
        before, after = self.part(0, 200).availability, self.part(60, 200).availability

        assert after != pytest.approx(before, rel=0.1)
        assert after == pytest.approx(before, rel=0.4)
        assert after == pytest.approx(before * 0.9, rel=0.4)
        assert repr(pytest.approx(before)) == "1.0 ± 1.0e-06"

    def test_the_distance_from_a_value_inside_the_scale_can_be_0(self):
        distance = abs(share(0.5, 10) - 0.25)

        assert (distance.scale.least, distance.scale.most) == (0.0, 0.75)
        assert abs(share(0.5, 10, low=0.2, high=0.6) - 0.25).low == 0.0
        assert (abs(share(0.5, 10) - 2).scale.least, abs(share(0.5, 10) - 2).scale.most) == (1.0, 2.0)
        assert (-share(0.5, 10)).scale.least == -1

    @pytest.mark.parametrize("bound", [Decimal("0.9"), Fraction(9, 10)])
    def test_a_bound_of_another_kind_of_number_is_a_bound(self, bound):
        assert share(0.95) >= bound
        assert share(0.95) != bound
        with pytest.raises(TooFewSamples, match="needs 10 events to hold, got 9"):
            assert share(1.0, 9) >= bound


def test_a_bound_on_a_quantile_can_always_be_broken_by_failures():
    quantiles = Quantiles("e2e_s", [0.5] * 20)

    assert quantiles.p95 <= 1e9
    with pytest.raises(VacuousClaim, match="p95 of e2e_s the window >= 0 cannot fail"):
        assert quantiles.p95 >= 0
    with pytest.raises(VacuousClaim, match="p95 of e2e_s the window <= inf cannot fail: even if no request had been"):
        assert quantiles.p95 <= math.inf


def test_open_requests_could_have_been_faster_or_slower_than_every_answer():
    quantiles = Quantiles("e2e_s", [float(i) for i in range(1, 21)], unknown=5)

    assert (quantiles.p50.low, float(quantiles.p50), quantiles.p50.high) == (8, 10, 13)
    assert (quantiles.p95.low, float(quantiles.p95), quantiles.p95.high) == (19, 19, math.inf)
    with pytest.raises(OpenRequests):
        assert quantiles.p95 <= 30
    assert Quantiles("e2e_s", [1.0, 1.0], unknown=9).p50.low == 0
    assert Quantiles("e2e_s", [1.0, 2.0, 3.0], unknown=3).p50.low == 0
    assert Quantiles("e2e_s", [1.0, 2.0, 3.0, 4.0], unknown=2).p50.low == 1


def test_a_value_that_may_have_grown_is_open_above_its_own():
    """One of five tasks has used 2.5 or more."""
    used = Quantiles("tokens", [4.0, 1.0, 2.0, 3.0], growing=[2.5], undecided="one has no end: wait for it")

    assert used.count == 5
    assert [(float(one), one.low, one.high) for one in (used.p50, used.max)] == [(2.5, 2.5, 3.0), (4.0, 4.0, math.inf)]
    assert not used.p50 <= 2
    assert used.p50 <= 3
    with pytest.raises(OpenRequests, match="between 4 and inf, because one has no end: wait for it"):
        assert used.max <= 5


@pytest.mark.parametrize("unknown", [0, 1, 3])
def test_a_window_counts_open_requests_apart(unknown):
    seen = [*(sample(i / 10) for i in range(9)), sample(0.95, "refused")]
    seen += [sample(0.96 + i / 100, "cancelled") for i in range(unknown)]
    (window,) = windows(seen, [("during the fault", 0, 1)])

    assert (window.offered, window.unknown) == (10, unknown)
    assert (window.failed.low, window.failed.high) == (1, 1 + unknown)
    assert (window.availability.low, window.availability.high) == (9 / (10 + unknown), (9 + unknown) / (10 + unknown))
    assert window.goodput_rps.low == pytest.approx(10 * window.availability.low)
    assert window.goodput_rps.high == pytest.approx(10 * window.availability.high)
    for compare, claim in (
        (window.failed, f"every one of the {10 + unknown} requests had failed, it would be {10 + unknown};"),
        (window.availability, f"every one of the {10 + unknown} requests had been answered well, it would be 1;"),
        (window.goodput_rps, f"every one of the {10 + unknown} requests had been answered well, it would be 10;"),
    ):
        with pytest.raises(VacuousClaim, match=claim):
            assert compare <= 99


def test_around_a_fault_every_request_is_in_one_window():
    seen = [
        sample(0),
        sample(1, e2e_s=3),
        sample(2.2),
        sample(2.8),
        sample(3),
        sample(4.5, "refused"),
        sample(5),
        sample(9),
    ]

    before, during, after = around(seen, Part("before", 0, 3), Part("during", 3, 5), Part("after", 5, 9, "hint"))

    # Due at 1 and 2.8, two requests were in flight at 3.
    assert (before.offered, during.offered, after.offered) == (2, 4, 1)
    assert during.failed == 1
    with pytest.raises(TooFewSamples, match="after has 1: hint"):
        _ = after.e2e_s.p50
