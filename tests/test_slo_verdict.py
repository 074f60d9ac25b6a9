"""The queries for an SLO's window, and of the answers that are refused."""

from __future__ import annotations

import re

import pytest

from pytest_llmchaos.errors import CounterReset, Inconclusive, NoData, StaleData
from pytest_llmchaos.slo.arithmetic import Slo
from pytest_llmchaos.trial.slo_verdict import events_rps, judge_slo

SLO = Slo(name="made-up", objective=0.99, window_days=30, description="", good="good_total", total="all_total")
FROM_S, TO_S = 10.0, 22.5


class Prometheus:
    """Counters by instant in place of a server, each scraped at the queried instant."""

    def __init__(self, good=(100.0, 190.0), total=(100.0, 200.0), resets=0.0, rates=(), age_s=0.0):
        self.counted = {
            name: {FROM_S: before, TO_S: after}
            for name, (before, after) in (("good_total", good), ("all_total", total))
        }
        self.resets, self.rates, self.age_s, self.asked = resets, rates, age_s, []

    def value(self, query, at_unix_s):
        self.asked.append((query, at_unix_s))
        if query.startswith("min(timestamp("):
            return at_unix_s - self.age_s
        if "resets(" in query:
            return self.resets
        counter = self.counted["good_total" if "good_total" in query else "all_total"]
        if "offset" in query:
            assert "offset 12500ms" in query
            return counter[TO_S] - counter[FROM_S]
        return counter[at_unix_s]

    def vector(self, query, at_unix_s, *, may_be_empty):
        self.asked.append((query, at_unix_s))
        if not self.rates and not may_be_empty:
            raise NoData("no series")
        return {frozenset({("n", str(number))}): rate for number, rate in enumerate(self.rates)}


def judged(**counted):
    return judge_slo(Prometheus(**counted), SLO, FROM_S, TO_S, rate_rps=8.0)


def test_a_window_is_its_events_its_length_its_rate_and_what_was_read_of_the_counters():
    found = judged()

    assert (found.good, found.total, found.window_s, found.rate_rps) == (90.0, 100.0, 12.5, 8.0)
    assert found.raw == {
        "good at the window's start": 100.0,
        "good at the window's end": 190.0,
        "total at the window's start": 100.0,
        "total at the window's end": 200.0,
    }


def test_a_result_of_prometheus_has_nothing_of_clients_or_their_load():
    found = judged()

    assert (found.load_s, found.longest_s, found.clients_say, found.unknown) == (None, 0.0, None, 0)


class TestAFaultInTheMiddleOfAScrape:
    """Prometheus ends the series at the start of the failed scrape."""

    def server(self, ended_from_s):
        server = Prometheus()
        server.counted = {"good_total": {9.0: 100.0, TO_S: 190.0}, "all_total": {9.0: 100.0, TO_S: 200.0}}
        answer = server.value

        def value(query, at_unix_s):
            if "good_total" in query and ended_from_s <= at_unix_s < TO_S:
                raise NoData("matched no series")
            return answer(query.replace("offset 13500ms", "offset 12500ms"), at_unix_s)

        server.value = value
        server.counted = {name: {FROM_S: ends[9.0], **ends} for name, ends in server.counted.items()}
        return server

    def test_leaves_the_scrape_before_it(self):
        found = judge_slo(self.server(9.9), SLO, FROM_S, TO_S, rate_rps=8.0)

        assert (found.good, found.total, found.window_s) == (90.0, 100.0, TO_S - 9.0)

    def test_a_fault_during_a_scrape_does_not_excuse_a_missing_series(self):
        with pytest.raises(NoData, match="matched no series"):
            judge_slo(self.server(0.0), SLO, FROM_S, TO_S, rate_rps=8.0)


@pytest.mark.parametrize("total", [0.0, -3.0])
def test_a_window_without_events_raises_no_data(total):
    with pytest.raises(NoData, match=r"made-up: no requests between 10\.000 and 22\.500"):
        judged(good=(5.0, 5.0), total=(5.0, 5.0 + total))


def test_a_single_event_without_a_good_one_is_counted():
    assert (judged(good=(5.0, 5.0), total=(5.0, 6.0)).good, judged(good=(5.0, 5.0), total=(5.0, 5.5)).total) == (0, 0.5)


@pytest.mark.parametrize("by", [1.0, 0.25, 3.0])
def test_good_events_that_became_fewer_are_inconclusive(by):
    with pytest.raises(Inconclusive, match=rf"good_total decreased by {re.escape(f'{by:g}')} without a reset"):
        judged(good=(10.0, 10.0 - by))


def test_a_counter_that_began_again_is_refused():
    with pytest.raises(CounterReset, match=r"restarted at 0 within the window \(2 resets\)"):
        judged(resets=2.0)


def test_a_series_that_is_gone_is_refused_with_its_labels():
    with pytest.raises(CounterReset, match=r'are missing at its end \(n="0"; n="1"\)'):
        judged(rates=(1.0, 2.0))


def test_counters_that_are_gone_with_their_process_are_refused_as_reset():
    """The name is right, as the window's start shows."""
    server = Prometheus()
    answer = server.value

    def value(query, at_unix_s):
        if "good_total" in query and at_unix_s == TO_S:
            raise NoData("matched no series: is the metric scraped, and its name right?")
        return answer(query, at_unix_s)

    server.value = value

    with pytest.raises(
        CounterReset, match="good_total or all_total has series at the window's start and none at its end"
    ):
        judge_slo(server, SLO, FROM_S, TO_S, rate_rps=8.0)


def test_bad_events_that_the_total_does_not_count_are_inconclusive():
    slo = Slo(name="made-up", objective=0.99, window_days=30, description="", bad="bad_total", total="all_total")
    server = Prometheus()
    answer = server.value
    server.value = lambda query, at: -2.0 if query.startswith("(sum(all_total) - ") else answer(query, at)

    with pytest.raises(
        Inconclusive, match="bad_total counts events that all_total does not, or all_total decreased by 2"
    ):
        judge_slo(server, slo, FROM_S, TO_S, rate_rps=8.0)


class TestFreshness:
    """Scrapes are a second apart, and two lost ones in a row are too many."""

    @pytest.mark.parametrize("age_s", [0.0, 1.0, 2.9])
    def test_both_counters_must_be_fresh_at_both_ends(self, age_s):
        server = Prometheus(age_s=age_s)
        server.counted = {name: {0.0: 1.0, 2.9: 2.0} for name in server.counted}
        server.value = lambda query, at, ask=server.value: ask(query, at) if "offset" not in query else 1.0

        judge_slo(server, SLO, 0.0, 2.9, rate_rps=8.0)

        looks = [(query, at) for query, at in server.asked if "timestamp" in query]
        assert looks == [(f"min(timestamp({name}))", at) for at in (0.0, 2.9) for name in ("good_total", "all_total")]

    def test_an_old_sample_is_refused_with_its_age(self):
        with pytest.raises(StaleData, match=r"newest sample of good_total is 7\.2 s older than 10\.000"):
            judged(age_s=7.2)


class TestEvents:
    @pytest.mark.parametrize(("to_s", "span"), [(22.5, "13s"), (14.0, "4s"), (11.5, "4s")])
    def test_events_are_counted_over_whole_seconds_and_at_least_four_scrapes(self, to_s, span):
        server = Prometheus(rates=(0.5,))

        assert events_rps(server, SLO, FROM_S, to_s) == 0.5
        assert server.asked == [(f"sum(rate(all_total[{span}]))", to_s)]

    @pytest.mark.parametrize("rates", [(), (0.0,)])
    def test_absent_events_have_no_rate(self, rates):
        assert events_rps(Prometheus(rates=rates), SLO, FROM_S, TO_S) is None
