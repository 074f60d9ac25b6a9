"""Windows, quantiles and recovery, from samples by hand and by hypothesis."""

import math
import random
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_llmchaos.errors import BadScenario, OpenRequests, TooFewSamples
from pytest_llmchaos.model import OUTCOMES, Sample
from pytest_llmchaos.stats import quantiles as quantiles_module
from pytest_llmchaos.stats.columns import columns_of
from pytest_llmchaos.stats.quantiles import Quantiles, nearest_rank, nth
from pytest_llmchaos.stats.recovery import ClientsSaw, clients_from
from pytest_llmchaos.stats.windows import (
    DEFAULT_TARGETS,
    LatencyTargets,
    Part,
    around,
    evidence,
    first_unknown_s,
    parts,
    unserved_s,
    windows,
)

LIMITS = LatencyTargets(ttft_s=1, e2e_s=5)
quick = settings(deadline=None, max_examples=100)


def sample(due_s, outcome="ok", *, ttft_s=0.1, e2e_s=0.5, gap_s=0.05):
    first_s = None if ttft_s is None else due_s + ttft_s
    return Sample(due_s, due_s, first_s, due_s + e2e_s, gap_s, 8, outcome, "model-1", f"r-{due_s}")


samples = st.lists(
    st.builds(
        sample,
        st.floats(0, 60).map(lambda x: round(x, 3)),
        st.sampled_from([*OUTCOMES, *["ok"] * 12]),
        ttft_s=st.one_of(st.none(), st.floats(0.01, 2)),
        e2e_s=st.floats(0.01, 8),
    ),
    max_size=60,
)


def one(seen, from_s=0.0, to_s=100.0):
    return windows(seen, [("fault", from_s, to_s)], LIMITS)[0]


def is_good_one(seen):
    """True for a good answer, by its definition."""
    shown_s = seen.end_s if seen.first_s is None else seen.first_s
    return seen.outcome == "ok" and shown_s - seen.due_s <= LIMITS.ttft_s and seen.end_s - seen.due_s <= LIMITS.e2e_s


def test_a_window_counts_what_its_clients_saw():
    window = one([*(sample(i / 10) for i in range(98)), sample(9.8, "http_5xx"), sample(9.9, e2e_s=6)], 0, 10)

    assert (window.offered, window.ok, window.good, window.failed) == (100, 99, 98, 1)
    assert window.outcomes == {"ok": 99, "http_5xx": 1}
    assert (window.availability, window.goodput_ratio) == (0.99, 0.98)
    assert (window.offered_rps, window.goodput_rps) == (10, 9.8)


def test_a_window_keeps_its_name_its_bounds_and_what_gives_it_more_requests():
    (window,) = parts([sample(1)], [Part("fault", 0.5, 3, "offer more", could_offer=7)])

    assert (window.name, window.from_s, window.to_s, window.seconds) == ("fault", 0.5, 3, 2.5)
    assert (window.hint, window.could_offer, window.is_live) == ("offer more", 7, False)
    (plain,) = windows([sample(1)], [("fault", 0, 3)])
    assert (plain.hint, plain.could_offer, plain.is_live) == ("raise rate_rps", 0, False)


def test_a_window_prints_as_a_failing_assert_needs_it():
    assert repr(one([sample(1), sample(2, "refused")], 0, 12)) == "<fault: 2 requests, 1 failed, 12.0 s>"


def test_a_request_belongs_to_the_window_it_was_due_in_and_the_end_is_not_inside():
    seen = [sample(0), sample(4.999, e2e_s=20), sample(5), sample(7), sample(10), sample(11)]

    first, second, last = windows(seen, [("steady", 0, 5), ("fault", 5, 10), ("recovery", 10, 20)])

    assert (first.offered, second.offered, last.offered) == (2, 2, 2)


HALVES = st.integers(0, 20).map(lambda n: n / 2)


@quick
@given(
    seen=st.lists(st.builds(sample, HALVES, st.just("ok"), e2e_s=HALVES), max_size=20),
    bounds=st.lists(st.integers(0, 10).map(float), min_size=4, max_size=4).map(sorted),
)
def test_around_a_fault_a_request_is_in_the_fault_if_it_was_open_when_the_fault_struck(seen, bounds):
    begin_s, struck_s, over_s, end_s = bounds
    counts = [0, 0, 0]
    for one in seen:
        if begin_s <= one.due_s < end_s:
            is_before = one.due_s < struck_s and one.end_s < struck_s
            counts[0 if is_before else 1 if one.due_s < over_s else 2] += 1

    found = around(
        seen, Part("before", begin_s, struck_s), Part("during", struck_s, over_s), Part("after", over_s, end_s)
    )

    assert [window.offered for window in found] == counts


def test_a_window_without_a_length_is_empty():
    assert one([sample(1)], 1, 1).offered == 0


@pytest.mark.parametrize(
    "read",
    [
        lambda seen: windows(seen, [("fault", 0, 9)]),
        lambda seen: around(seen, Part("before", 0, 1), Part("during", 1, 2), Part("after", 2, 3)),
        lambda seen: list(evidence(seen, 0, 9, LIMITS)),
        unserved_s,
        first_unknown_s,
    ],
    ids=["windows", "around", "evidence", "unserved", "unknown"],
)
@pytest.mark.parametrize("short", ["due_s", "outcomes"])
def test_columns_of_different_lengths_are_no_samples(read, short):
    torn = SimpleNamespace(columns=columns_of([sample(1), sample(2)]))
    getattr(torn.columns, short).pop()

    with pytest.raises(ValueError, match=r"shorter|longer"):
        read(torn)


def test_what_a_client_waits_for_begins_when_a_request_is_due_and_not_when_it_could_be_sent():
    late = replace(sample(4.9, e2e_s=5.2), sent_s=9.5)

    before, after = windows([late], [("before", 0, 5), ("after", 5, 10)], LIMITS)

    assert (before.offered, before.ok, before.good, after.offered) == (1, 1, 0, 0)
    assert before.e2e_s.max == pytest.approx(5.2)
    assert clients_from([late], 0, 1, LIMITS).suffered


def test_what_the_end_of_the_run_cut_off_counts_nowhere():
    seen = [sample(1, "cancelled", ttft_s=None), sample(2)]

    assert (one(seen).offered, one(seen).unknown) == (1, 1)
    assert not clients_from(seen, 0, 5, LIMITS).suffered


def test_a_request_that_its_client_gave_up_early_is_no_failure_and_no_answer_and_leaves_the_rest_known():
    seen = [sample(1, "left", ttft_s=None), sample(2), sample(3, "left"), sample(4), sample(5)]

    assert (one(seen).offered, one(seen).left, one(seen).failed) == (3, 2, 0)
    assert "left" not in one(seen).outcomes
    assert clients_from(seen, 0, 2, LIMITS, 40) == ClientsSaw(suffered=False, good_s=2)
    assert first_unknown_s(seen) == math.inf


class TestClientsWhoAllLeave:
    """A hung service and clients that leave before they see a failure or an answer."""

    HUNG = tuple(sample(5 + i / 2, "left", ttft_s=None) for i in range(16))

    def seen(self, *hung):
        return [*(sample(i / 2) for i in range(10)), *hung, *(sample(13 + i / 2) for i in range(14))]

    def test_prove_nothing_of_a_service_that_showed_them_no_token(self):
        window = one(self.seen(*self.HUNG))

        assert (window.offered, window.left, window.unknown) == (24, 16, 12)  # clients a second away stayed for four
        for claim in (
            lambda: window.failed == 0,
            lambda: window.availability >= 0.9,
            lambda: window.ttft_s.p95 <= 1,
            lambda: window.goodput_ratio >= 0.9,
        ):
            with pytest.raises(OpenRequests, match="left"):
                claim()
        assert window.availability >= 0.5  # whatever they would have met

    def test_around_a_fault_they_are_unknown_where_they_were_due(self):
        before, during, after = around(
            self.seen(*self.HUNG), Part("before", 0, 5), Part("during", 5, 13), Part("after", 13, 20), LIMITS
        )

        assert (before.unknown, during.unknown, after.unknown) == (0, 12, 0)

    def test_show_no_more_than_a_client_who_stayed_at_the_same_time(self):
        patient = (sample(due) for due in (6, 8, 10, 12))
        failed = (sample(due, "timeout") for due in (6, 8, 10, 12))

        assert one(self.seen(*self.HUNG, *patient)).failed == 0
        assert one(self.seen(*self.HUNG, *failed)).failed == 4

    @pytest.mark.parametrize(
        ("stayed", "unknown"),
        [
            (sample(3.99), 1),
            (sample(4.0), 0),
            (sample(6.0), 0),
            (sample(6.01), 1),
            (sample(5.5, "refused"), 0),
            (sample(5.5, "left"), 1),
        ],
    )
    def test_clients_who_all_left_are_judged_by_one_who_stayed(self, stayed, unknown):
        assert one([sample(1), sample(5, "left", ttft_s=None), stayed, sample(20)]).unknown == unknown

    def test_stay_unknown_if_all_who_stayed_were_long_before(self):
        assert one([*(sample(i / 100) for i in range(400)), sample(9, "left", ttft_s=None)]).unknown == 1

    def test_stay_unknown_if_the_end_of_the_other_client_is_unknown(self):
        assert one([sample(5, "left", ttft_s=None), sample(5.5, "cancelled")]).unknown == 2

    def test_show_that_the_service_works_by_a_token_in_the_first_instant_too(self):
        assert one([sample(0, "left", ttft_s=0.0), sample(20)]).unknown == 0
        assert one([sample(0, "left", ttft_s=0.5), sample(20)]).unknown == 0

    def test_a_client_who_saw_a_token_shows_that_the_service_works(self):
        assert one(self.seen(*(replace(s, first_s=s.due_s + 0.1) for s in self.HUNG))).failed == 0


def test_a_second_is_unserved_if_something_was_due_in_it_and_nothing_was_answered():
    seen = [
        *(sample(1.2), sample(1.7, "timeout")),
        *(sample(2.1, "timeout"), sample(2.9, "refused")),
        *(sample(3.1, "left"), sample(4.1, "cancelled")),
        sample(5.0, "http_5xx"),
    ]

    assert unserved_s(seen) == (2.0, 5.0)


def test_a_wait_is_counted_from_0_on():
    """A first token may come at the instant the load begins."""
    window = one([sample(0, ttft_s=0.0, e2e_s=3), sample(0, ttft_s=0.5, e2e_s=3)])

    assert (window.good, window.ttft_s.max) == (2, 0.5)


def test_evidence_is_of_what_was_due_from_one_instant_to_another_both_included():
    seen = [sample(1), sample(2, "refused"), sample(3), sample(3.5, "left"), sample(3.6, "cancelled"), sample(4)]

    assert list(evidence(seen, 1, 4, LIMITS)) == [(1, True), (2, False), (3, True), (4, True)]
    assert list(evidence(seen, 1.5, 3.9, LIMITS)) == [(2, False), (3, True)]


@pytest.mark.parametrize("outcome", [one for one in OUTCOMES if one not in ("ok", "cancelled", "left")])
def test_a_request_that_was_not_answered_was_offered_and_failed_whatever_became_of_it(outcome):
    window = one([sample(1), sample(2, outcome)])

    assert (window.offered, window.ok, window.failed, window.outcomes[outcome]) == (2, 1, 1, 1)
    assert window.e2e_s.max == math.inf


def test_refusals_that_name_no_time_to_come_back_are_counted():
    seen = [
        replace(sample(1, "http_429"), status=429, retry_after_s=1.0),
        replace(sample(2, "http_429"), status=429),
        replace(sample(3, "http_5xx"), status=503),
        replace(sample(4, "http_5xx"), status=500),
        replace(sample(5), status=200),
    ]

    assert (one(seen).refused, one(seen).without_retry_after) == (3, 2)
    assert (one(seen[:1]).refused, one(seen[:1]).without_retry_after) == (1, 0)
    assert (one(seen[:2]).refused, one(seen[:2]).without_retry_after) == (2, 1)


def test_seconds_without_service_are_those_with_failures_and_no_good_answer():
    seen = [sample(0.5), sample(1.5, "timeout"), sample(2.5, "refused"), sample(2.6), sample(3.5, "left"), sample(4.5)]

    assert unserved_s(seen) == (1.0,)


def test_where_no_client_was_refused_nothing_is_known_of_the_time_to_come_back():
    with pytest.raises(TooFewSamples, match="without_retry_after needs 1 answer with 429 or 503, got 0 in"):
        _ = one([sample(1), sample(2, "http_5xx")]).without_retry_after


def test_what_was_still_open_at_the_end_and_older_than_its_limits_is_bad():
    seen = [*(sample(i / 10) for i in range(20)), *(sample(2 + i / 10, "unfinished", ttft_s=None) for i in range(80))]

    assert (one(seen).availability, one(seen).e2e_s.p95, first_unknown_s(seen)) == (0.2, math.inf, math.inf)
    assert clients_from(seen, 0, 1, LIMITS, 30).good_s is None


def test_what_the_end_of_the_run_cut_off_is_unknown_from_its_due_time_on():
    assert first_unknown_s([sample(3), sample(2, "cancelled"), sample(1, "cancelled"), sample(0, "timeout")]) == 1
    assert first_unknown_s([sample(3)]) == math.inf


@pytest.mark.parametrize("what", ["offered_rps", "goodput_rps"])
@pytest.mark.parametrize("to_s", [1.0, math.inf])
def test_a_window_without_a_length_has_no_rate(what, to_s):
    with pytest.raises(TooFewSamples, match=f"{what} needs a window that has a length"):
        getattr(replace(one([sample(1)]), from_s=1.0, to_s=to_s), what)


def test_a_window_may_be_shorter_than_a_second():
    assert one([sample(0.1), sample(0.2)], 0, 0.5).offered_rps == 4


def test_a_rate_is_no_whole_number():
    window = one([sample(0), sample(0.5), sample(1, "refused")], 0, 2)

    assert (window.offered_rps, window.goodput_rps) == (1.5, 1.0)


@pytest.mark.parametrize("what", ["availability", "goodput_ratio", "goodput_rps"])
def test_an_empty_window_has_no_share(what):
    with pytest.raises(TooFewSamples, match=f"{what} needs 1 request, got 0 in <fault: 0 requests, 0 failed, 100.0 s>"):
        getattr(one([]), what)


def test_a_window_cannot_end_before_it_begins():
    with pytest.raises(BadScenario, match="window 'fault' must end after it begins, got 3 to 2"):
        one([], 3, 2)


@pytest.mark.parametrize(
    ("q", "count", "message"),
    [
        ("p50", 1, "p50 of e2e_s needs 2 requests, fault has 1: raise rate_rps"),
        ("p95", 19, "p95 of e2e_s needs 20 requests, fault has 19: raise rate_rps"),
        ("p99", 99, "p99 of e2e_s needs 100 requests, fault has 99: raise rate_rps"),
        ("max", 0, "max of e2e_s needs 1 request, fault has 0: raise rate_rps"),
    ],
)
def test_a_quantile_of_too_few_samples_is_an_error(q, count, message):
    with pytest.raises(TooFewSamples) as refused:
        getattr(one([sample(i / 10) for i in range(count)]).e2e_s, q)
    assert str(refused.value) == message


def test_quantiles_are_values_that_a_client_saw():
    quantiles = Quantiles("e2e_s", [i / 100 for i in range(100, 0, -1)])

    assert (quantiles.p50, quantiles.p95, quantiles.p99, quantiles.max) == (0.50, 0.95, 0.99, 1.0)
    assert quantiles.at(0.999 - 0.9) == 0.10
    assert quantiles.count == 100
    assert repr(quantiles) == "<e2e_s of 100 requests, 0 without an end>"


@pytest.mark.parametrize("order", [list, reversed, lambda seen: sorted(seen, key=lambda x: (x * 7919) % 10007)])
def test_a_quantile_of_many_samples_is_the_same_without_sorting_them_all(order):
    seen = [float(i) for i in order(range(30_000))]
    # Every 30th value, from which the place of a quantile is guessed, is wrong here.
    odd = [1e9 if i % 30 == 0 else float(i) for i in range(30_000)]

    for rank in (1, 2, 299, 15_000, 29_700, 30_000):
        assert nth(seen, rank) == rank - 1
        assert nth(odd, rank) == sorted(odd)[rank - 1]
    assert nth([5.0] * 30_000, 15_000) == 5


@quick
@given(values=st.lists(st.integers(0, 50), min_size=100, max_size=200), share=st.floats(0, 1))
def test_the_nth_of_many_values_is_the_nth_in_order(values, share):
    """Including ties, and with few guesses, which are worse than usual."""
    rank = 1 + int(share * (len(values) - 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantiles_module, "_MANY", 100)
        patch.setattr(quantiles_module, "_GUESSES", 20)

        assert nth(values, rank) == sorted(values)[rank - 1]


@pytest.mark.parametrize("count", [10_000, 29_999])
def test_only_values_around_a_guess_are_sorted(monkeypatch, count):
    sizes = []

    def noted(values):
        made = sorted(values)
        sizes.append(len(made))
        return made

    monkeypatch.setattr(quantiles_module, "sorted", noted, raising=False)
    values = random.Random(7).sample(range(count), count)
    for rank in (
        1,
        2,
        count // 50,
        count // 20,
        count // 3,
        count // 2,
        count * 9 // 10,
        count * 19 // 20,
        count * 99 // 100,
        count,
    ):
        sizes.clear()
        assert nth(values, rank) == rank - 1
        guesses, near = sizes
        assert guesses < 2000
        assert near < 0.15 * count


def test_right_guesses_are_made_once(monkeypatch):
    sorts = []
    monkeypatch.setattr(quantiles_module, "sorted", lambda v: sorts.append(len(v)) or sorted(v), raising=False)
    values = list(range(10_000))
    for rank in range(1, 10_001, 53):
        assert nth(values, rank) == rank - 1
        guesses, near = sorts
        assert guesses == 1000
        assert near <= 1001
        sorts.clear()


def test_few_values_are_sorted_at_once(monkeypatch):
    sizes = []
    monkeypatch.setattr(quantiles_module, "sorted", lambda v: sizes.append(len(v)) or sorted(v), raising=False)

    assert nth(list(range(9_999)), 5_000) == 4_999
    assert sizes == [9_999]


@pytest.mark.parametrize(
    ("q", "count", "rank"),
    [
        (0.07, 100, 7),
        (0.01, 30, 1),
        (0.5, 5, 3),
        (0.2000004, 5, 2),
        (0.20000008, 5, 1),
        (0.2000002, 5, 2),
        (0.0001, 3, 1),
        (1e-9, 3, 1),
    ],
)
def test_a_rank_counts_as_whole_where_only_its_rounding_is_off(q, count, rank):
    assert nearest_rank(q, count) == rank


@pytest.mark.parametrize(("q", "needed"), [(1 - 1 / 20.0000004, 20), (1 - 1 / 20.000004, 21), (1 - 1 / 20.000001, 21)])
def test_a_number_of_needed_requests_counts_as_whole_where_only_its_rounding_is_off(q, needed):
    assert Quantiles("e2e_s", [1.0] * needed).at(q) == 1
    with pytest.raises(TooFewSamples, match=f"needs {needed} requests"):
        Quantiles("e2e_s", [1.0] * (needed - 1)).at(q)


def test_a_quantile_names_its_window_and_what_gives_it_more_requests():
    with pytest.raises(TooFewSamples, match="p50 of e2e_s needs 2 requests, the window has 1: raise rate_rps"):
        _ = Quantiles("e2e_s", [1.0]).p50
    with pytest.raises(TooFewSamples, match="p50 of e2e_s needs 2 requests, the fault has 1: offer more"):
        _ = Quantiles("e2e_s", [], 1, where="the fault", hint="offer more").p50


def test_failed_requests_are_slower_than_every_answer():
    window = one([*(sample(i / 10) for i in range(94)), *(sample(9.4 + i / 10, "timeout") for i in range(6))])

    assert window.e2e_s.p50 == pytest.approx(0.5)
    assert window.e2e_s.p95 == math.inf
    assert window.ttft_s.max == math.inf
    assert window.max_gap_s.p99 == math.inf


def test_an_answer_whose_first_token_went_unseen_showed_nothing_before_its_end():
    window = one([sample(0, ttft_s=None, e2e_s=3), sample(1, ttft_s=None, e2e_s=3)])

    assert window.ttft_s.p50 == 3
    assert window.good == 0


@pytest.mark.parametrize("q", [0, 1, -0.1, 1.5, 99])
def test_a_quantile_lies_between_0_and_1(q):
    with pytest.raises(BadScenario, match="a quantile lies between 0 and 1"):
        Quantiles("e2e_s", [1.0]).at(q)


@pytest.mark.parametrize("bound", [0, -1, "2", True, math.nan])
def test_a_bound_is_a_number_of_seconds_above_0(bound):
    with pytest.raises(BadScenario, match="ttft_s must be a number of seconds above 0, got"):
        LatencyTargets(ttft_s=bound)
    with pytest.raises(BadScenario, match="e2e_s must be a number of seconds above 0, got"):
        LatencyTargets(e2e_s=bound)


@pytest.mark.parametrize("bound", [0.001, 1, sys.float_info.max, float("inf")])
def test_a_bound_may_be_as_long_as_floats_are_or_none_at_all(bound):
    assert LatencyTargets(ttft_s=bound, e2e_s=bound).ttft_s == bound


def test_a_bound_beyond_all_floats_is_refused():
    with pytest.raises(BadScenario, match="e2e_s must be a number of seconds above 0"):
        LatencyTargets(e2e_s=10**400)


@pytest.mark.parametrize(("ttft_s", "e2e_s", "good"), [(2, 10, 1), (2.01, 9, 0), (1, 10.01, 0)])
def test_clients_wait_two_seconds_for_a_token_and_ten_for_an_answer_by_default(ttft_s, e2e_s, good):
    seen = [sample(0, ttft_s=ttft_s, e2e_s=e2e_s)]

    assert windows(seen, [("fault", 0, 1)])[0].good == good
    assert parts(seen, [Part("fault", 0, 1)])[0].good == good
    assert around(seen, Part("before", 0, 0), Part("fault", 0, 1), Part("after", 1, 1))[1].good == good
    assert clients_from(seen, 0, 1).suffered is not bool(good)
    assert list(evidence(seen, 0, 1, DEFAULT_TARGETS)) == [(0, bool(good))]


@pytest.mark.parametrize(
    ("seen", "is_good"),
    [
        (sample(0), True),
        (sample(0, ttft_s=1, e2e_s=5), True),
        (sample(0, ttft_s=1.001), False),
        (sample(0, e2e_s=5.001), False),
        (sample(0, "truncated"), False),
        (sample(0, ttft_s=None, e2e_s=0.9), True),
    ],
    ids=["fast", "on both bounds", "late first token", "late end", "truncated", "unseen first token"],
)
def test_good_means_a_whole_answer_inside_every_bound(seen, is_good):
    assert one([seen]).good == is_good
    assert is_good_one(seen) is is_good


def good_again_s(seen, from_s, stable_s, until_s):
    return clients_from(seen, from_s, stable_s, LIMITS, until_s).good_s


def test_recovery_is_the_first_good_request_after_the_last_bad_one():
    # Down from second 10, a single lucky answer at 14, good again from 18.
    seen = [sample(i / 2, "refused" if 20 <= i < 36 and i != 28 else "ok") for i in range(80)]

    saw = clients_from(seen, 5, 4.5, LIMITS, 40)

    assert saw == ClientsSaw(suffered=True, good_s=18, resolution_s=0.5)
    assert good_again_s(seen, 20, 5, 40) == 20


def test_recovery_needs_its_stable_seconds_to_have_passed():
    seen = [sample(i, "refused" if i < 5 else "ok") for i in range(10)]

    assert good_again_s(seen, 0, 5, 9.9) is None
    assert good_again_s(seen, 0, 5, 10) == 5


def test_one_good_request_alone_proves_no_recovery():
    assert good_again_s([sample(1)], 0, 5, 60) is None
    assert good_again_s([sample(1), sample(7)], 0, 5, 6.9) is None
    assert good_again_s([sample(1), sample(7)], 0, 5, 7) == 1
    assert good_again_s([sample(1), sample(6)], 0, 5, 60) == 1


def test_a_good_request_next_to_a_bad_one_of_the_same_instant_is_no_recovery():
    seen = [sample(1), sample(5, "refused"), sample(5), sample(9)]

    assert good_again_s(seen, 0, 1, 60) is None
    assert good_again_s([*seen, sample(9)], 0, 1, 60) == 9


@pytest.mark.parametrize("every_s", [0.1, 1, 5, 30])
def test_a_perfect_service_is_good_from_its_first_request_on_however_rare_requests_are(every_s):
    seen = [sample(i * every_s) for i in range(20)]

    assert good_again_s(seen, 0, 4, 19 * every_s + 4) == 0


def test_no_samples_are_no_recovery():
    assert clients_from([], 0, 5, LIMITS, 60) == ClientsSaw(suffered=False, good_s=None)


def test_a_service_that_stays_down_does_not_recover():
    seen = [sample(i / 2, "timeout") for i in range(80)]

    assert clients_from(seen, 0, 2, LIMITS, 40) == ClientsSaw(suffered=True, good_s=None)


@quick
@given(seen=samples, from_s=st.floats(0, 60), stable_s=st.floats(0.1, 20), until_s=st.floats(0, 90))
def test_recovery_agrees_with_its_definition(seen, from_s, stable_s, until_s):
    inside = [s for s in seen if s.outcome not in ("left", "cancelled") and from_s <= s.due_s <= until_s]

    def holds(start):
        after = [s for s in inside if s.due_s >= start.due_s]
        return len(after) > 1 and start.due_s + stable_s <= until_s and all(map(is_good_one, after))

    expected = min((s.due_s for s in inside if holds(s)), default=None)
    assert good_again_s(seen, from_s, stable_s, until_s) == expected


COARSE = st.lists(st.builds(sample, HALVES, st.sampled_from(["ok", "refused"])), max_size=25)


@settings(deadline=None, max_examples=300)
@given(seen=COARSE, from_s=st.integers(0, 4), stable_s=st.sampled_from([0.5, 1.0, 2.0]), until_s=st.integers(4, 12))
def test_relapse_and_resolution_agree_with_their_definitions(seen, from_s, stable_s, until_s):
    inside = sorted((s.due_s, s.outcome == "ok") for s in seen if from_s <= s.due_s <= until_s)
    bad_s = [due_s for due_s, is_good in inside if not is_good]

    def is_stable_before(i):
        good_s = [due_s for due_s, is_good in inside if is_good and bad_s[i - 1] < due_s < bad_s[i]]
        return len(good_s) > 1 and good_s[0] + stable_s < bad_s[i]

    found = clients_from(seen, from_s, stable_s, LIMITS, until_s)

    assert found.suffered is bool(bad_s)
    assert found.relapsed_s == next((bad_s[i] for i in range(1, len(bad_s)) if is_stable_before(i)), None)
    if found.good_s is None or not bad_s:
        assert found.resolution_s == 0
    else:
        last_two = [bad_s[-1] - bad_s[-2]] if len(bad_s) > 1 and bad_s[-1] - bad_s[-2] < stable_s else []
        assert found.resolution_s == max([found.good_s - bad_s[-1], *last_two])


def test_only_the_last_two_bad_answers_decide_if_answers_alternate():
    seen = [*(sample(s, "refused") for s in (0, 3, 3.5)), sample(4), sample(9)]

    assert clients_from(seen, 0, 4, LIMITS, 40).resolution_s == 0.5
    # Those that are apart by the stable seconds do not alternate.
    assert clients_from(seen, 0, 0.5, LIMITS, 40).resolution_s == 0.5
    apart = [sample(0, "refused"), sample(2, "refused"), sample(2.5), sample(9)]
    assert clients_from(apart, 0, 2, LIMITS, 40).resolution_s == 0.5
    assert clients_from(apart, 0, 2.5, LIMITS, 40).resolution_s == 2


def test_one_good_answer_between_two_bad_ones_is_no_stable_spell_however_long_it_takes():
    """Earlier good answers do not matter."""
    bad = [sample(s, "refused") for s in (0, 2, 4, 20)]
    seen = [*bad, sample(1), sample(3), sample(5), sample(21), sample(22)]

    assert clients_from(seen, 0, 1, LIMITS, 40).relapsed_s is None
    assert clients_from([*seen, sample(19)], 0, 1, LIMITS, 40).relapsed_s == 20
    assert clients_from(seen[1:], 0, 1, LIMITS, 40).relapsed_s is None


def counts(window):
    """Its counts as plain numbers."""
    outcomes = {name: int(count) for name, count in window.outcomes.items()}
    return window.offered, window.unknown, int(window.ok), int(window.good), outcomes


@quick
@given(seen=samples)
def test_the_order_of_samples_changes_no_number(seen):
    bounds = [("a", 0, 20), ("b", 10, 70)]
    there, back = windows(seen, bounds, LIMITS), windows(seen[::-1], bounds, LIMITS)

    for one_way, other in zip(there, back, strict=True):
        assert counts(one_way) == counts(other)
        assert one_way.e2e_s.count < 2 or float(one_way.e2e_s.p50) == float(other.e2e_s.p50)
        assert not one_way.e2e_s.count or float(one_way.e2e_s.max) == float(other.e2e_s.max)


@quick
@given(seen=samples)
def test_every_request_is_counted_once_and_good_ones_are_ok(seen):
    (window,) = windows(seen, [("all", 0, math.inf)], LIMITS)

    assert window.offered == sum(1 for s in seen if s.outcome not in ("left", "cancelled"))
    assert int(window.good) <= int(window.ok) <= window.offered
    assert window.e2e_s.count == window.ttft_s.count == window.max_gap_s.count == window.offered


@quick
@given(seen=samples.filter(lambda seen: int(one(seen).ok) and one(seen).offered >= 10), q=st.floats(0.01, 0.9))
def test_a_failure_in_place_of_an_answer_makes_no_quantile_better(seen, q):
    at = next(i for i, s in enumerate(seen) if s.outcome == "ok")
    worse = [*seen[:at], replace(seen[at], outcome="timeout"), *seen[at + 1 :]]

    assert float(one(worse).e2e_s.at(q)) >= float(one(seen).e2e_s.at(q))
