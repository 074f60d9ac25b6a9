"""Differences with intervals: published values, invariants and coverage."""

import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmchaos.stats.intervals import Estimate, difference, median, share

COUNTS = st.integers(min_value=1, max_value=500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
TIMES = st.lists(st.floats(min_value=0, max_value=100) | st.just(math.inf), min_size=1, max_size=60)


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [  # Newcombe 1998, "Two-sided confidence intervals for the single proportion", Stat. Med. 17:857-872, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_a_share_has_the_published_interval(hits, n, low, high):
    found = share(hits, n)

    assert (round(found.low, 4), round(found.high, 4)) == (low, high)


@pytest.mark.parametrize(
    ("treated", "control", "low", "high"),
    [  # Newcombe 1998, "Interval estimation for the difference ...", Stat. Med. 17:873-890, table II, method 10
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((6, 7), (2, 7), 0.0582, 0.8062),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((0, 10), (0, 20), -0.1611, 0.2775),
        ((10, 10), (0, 20), 0.6791, 1.0000),
        ((10, 10), (0, 10), 0.6075, 1.0000),
    ],
)
def test_a_difference_of_shares_has_the_published_interval(treated, control, low, high):
    found = difference(share(*treated), share(*control))

    assert (round(found.low, 4), round(found.high, 4)) == (low, high)


@pytest.mark.parametrize(
    ("n", "low", "high"),
    [(5, None, None), (6, 1, 6), (8, 1, 8), (9, 2, 8), (20, 6, 15), (50, 18, 33), (100, 40, 61), (1001, 470, 532)],
)
def test_a_median_lies_between_the_ranks_of_the_tables(n, low, high):  # Conover, table A3: binomial with p = 1/2
    found = median(range(1, n + 1))

    assert (found.low, found.high) == ((low, high) if low else (-math.inf, math.inf))


@pytest.mark.parametrize("n", range(1, 301))
def test_a_share_lies_inside_its_interval_which_ends_at_none_and_at_all(n):
    for hits in {0, 1, n // 2, n - 1, n}:
        found = share(hits, n)

        assert 0 <= found.low <= found.value == hits / n <= found.high <= 1
    assert share(0, n).low == 0
    assert share(n, n).high == 1


@given(TIMES)
def test_a_median_is_the_lower_one_of_the_two_in_the_middle(values):
    assert median(values).value == statistics.median_low(values)


def test_the_ranks_of_many_are_those_of_the_normal_distribution():
    assert (median(range(1, 10_001)).low, median(range(1, 10_001)).high) == (4902, 5099)


@given(COUNTS, COUNTS)
def test_a_difference_of_shares_is_a_difference_inside_its_interval(one, other):
    found = difference(share(*one), share(*other))
    back = difference(share(*other), share(*one))

    assert -1 <= found.low <= found.value <= found.high <= 1
    assert (back.value, back.low, back.high) == pytest.approx((-found.value, -found.high, -found.low))


@given(TIMES, TIMES)
def test_a_difference_of_medians_is_inside_its_interval_or_does_not_exist(one, other):
    found = difference(median(one), median(other))

    if math.isinf(median(one).value) or math.isinf(median(other).value):
        assert found is None
    else:
        assert found.low <= found.value <= found.high


@given(st.lists(st.floats(min_value=0, max_value=100), min_size=1, max_size=60), st.floats(min_value=-50, max_value=50))
def test_a_median_moves_with_its_values(values, by_s):
    here, there = median(values), median([value + by_s for value in values])

    assert (there.value, there.low, there.high) == pytest.approx((here.value + by_s, here.low + by_s, here.high + by_s))
    assert here.value in values


def test_failed_requests_are_slower_than_every_answer():
    answered = [0.1] * 12
    some, half = median([*answered, *[math.inf] * 4]), median([*answered, *[math.inf] * 13])

    assert (some.value, some.high) == (0.1, math.inf)
    assert half.value == math.inf
    assert difference(some, median(answered)) == Estimate(value=0.0, low=0.0, high=math.inf)
    assert difference(half, median(answered)) is None
    assert difference(median(answered), half) is None


@pytest.mark.parametrize("wrong", [(0, 0), (-1, 3), (4, 3)])
def test_a_share_of_nothing_is_refused(wrong):
    with pytest.raises(ValueError, match="needs 0 <= hits <= n and n >= 1, got"):
        share(*wrong)


def test_a_median_of_nothing_is_refused():
    with pytest.raises(ValueError, match="needs 1 value, got 0"):
        median([])


def covered(draws, truth, *, times=400):
    return (
        sum(found is not None and found.low <= truth <= found.high for found in (draws() for _ in range(times))) / times
    )


def test_the_intervals_hold_the_truth_about_as_often_as_they_claim():
    rng = random.Random(42)

    def shares():
        return difference(*(share(sum(rng.random() < p for _ in range(n)), n) for p, n in ((0.9, 60), (0.99, 45))))

    def medians():
        slow, fast = ([rng.lognormvariate(mu, 0.5) for _ in range(n)] for mu, n in ((0.3, 60), (0.0, 45)))
        return difference(median(slow), median(fast))

    assert covered(shares, -0.09) >= 0.93
    assert covered(medians, math.exp(0.3) - 1) >= 0.93
