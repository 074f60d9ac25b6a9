"""Answers and refusals against a real Prometheus with a history."""

from __future__ import annotations

import http.server
import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from support.prometheus_server import free_port, history, prometheus_with
from support.waiting import until

from pytest_llmchaos.errors import (
    BetweenEdges,
    CounterReset,
    Inconclusive,
    NoData,
    NotANumber,
    PartialScrape,
    PrometheusUnreachable,
    StaleData,
)
from pytest_llmchaos.prometheus.queries import Prometheus
from pytest_llmchaos.servers.bounds import Within
from pytest_llmchaos.slo.arithmetic import Slo
from pytest_llmchaos.slo.recorded import error_ratio_expression
from pytest_llmchaos.trial.slo_result import SloResult
from pytest_llmchaos.trial.slo_verdict import judge_slo

# Far from a whole second, so that rounding anywhere would show.
BASE = float(int(time.time()) - 1800) + 0.25
MINUTE = [BASE + second for second in range(61)]


def slo(good: str, total: str) -> Slo:
    return Slo(name="made-up", objective=0.99, window_days=30, description="made up", good=good, total=total)


def slo_of_failures(bad: str, total: str) -> Slo:
    return Slo(name="made-up", objective=0.99, window_days=30, description="made up", bad=bad, total=total)


def firing(name: str, seconds: list[int], before_s: list[int] | None = None) -> dict[str, dict[float, float]]:
    """An alert that fires in these seconds, and was pending in those before."""
    states = {"firing": seconds, "pending": before_s or []}
    labels = f'alertname="{name}",service="api",severity="page"'
    return {
        f'ALERTS{{{labels},alertstate="{state}"}}': {BASE + second: 1.0 for second in found}
        for state, found in states.items()
        if found
    }


def active(name: str, since: dict[int, int]) -> dict[str, dict[float, float]]:
    """Since which second an alert is active, at each of these evaluations."""
    labels = f'alertname="{name}",service="api",severity="page"'
    return {f"ALERTS_FOR_STATE{{{labels}}}": {BASE + at: math.floor(BASE + begun) for at, begun in since.items()}}


COUNTED = (("first_token_seconds", 10.0), ("go_seconds", 4.0))


def buckets(name: str, service: str, each_s: dict[str, int]) -> dict[str, dict[float, float]]:
    """A histogram with so many requests a second within each edge."""
    return {
        f'{name}_bucket{{service="{service}",le="{le}"}}': {t: float(each * i) for i, t in enumerate(MINUTE)}
        for le, each in each_s.items()
    }


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    series: dict[str, dict[float, float]] = {
        'one{service="api"}': dict.fromkeys(MINUTE, 7.0),
        'many{service="api"}': dict.fromkeys(MINUTE, 1.0),
        'many{service="model-1"}': dict.fromkeys(MINUTE, 2.0),
        "not_a_number": dict.fromkeys(MINUTE, math.nan),
        "endless": dict.fromkeys(MINUTE, math.inf),
        # 5 requests a second, 1 of them bad from second 20 to 40.
        'answers_total{outcome="ok"}': {t: 5.0 * i - min(20, max(0, i - 20)) for i, t in enumerate(MINUTE)},
        'answers_total{outcome="failed"}': {t: float(min(20, max(0, i - 20))) for i, t in enumerate(MINUTE)},
        # The same failures in a counter that does not exist before the first.
        "failures_total": {t: float(min(20, i - 20)) for i, t in enumerate(MINUTE) if i > 20},
        # Restarted at second 30: the counter begins again at 0.
        "restarted_total": {t: 10.0 * (i if i < 30 else i - 30) for i, t in enumerate(MINUTE)},
        # Restarted at second 30 as well, and above its old count at the next scrape.
        'overtaking_total{job="web",instance="web:1"}': {t: 5.0 * i for i, t in enumerate(MINUTE)},
        'process_start_time_seconds{job="web",instance="web:1"}': {
            t: BASE - 9 if i < 30 else BASE + 29.5 for i, t in enumerate(MINUTE)
        },
        # 10 requests a second. vLLM's edges lack 0.5 s, those of SGLang have it: within
        # 0.4 s are 6 of 8, within 0.8 s 7 of 8, and within 0.5 s 1 of 2.
        **buckets("first_token_seconds", "vllm", {"0.4": 6, "0.8": 7, "+Inf": 8}),
        **buckets("first_token_seconds", "sglang", {"0.1": 0, "0.5": 1, "+Inf": 2}),
        **buckets("first_token_seconds", "idle", {"0.01": 0, "+Inf": 0}),
        **buckets("go_seconds", "api", {"2.0": 3, "+Inf": 4}),
        **{f"{name}_count": {t: each * i for i, t in enumerate(MINUTE)} for name, each in COUNTED},
        "idle_total": dict.fromkeys(MINUTE, 3.0),
        # Longer than Prometheus looks back, which is five minutes.
        'leaving_total{replica="a"}': {BASE + i: 4.0 * i for i in range(401)},
        'leaving_total{replica="b"}': {BASE + i: 2.0 * i for i in range(31)},
        "ended_total": {t: float(i) for i, t in enumerate(MINUTE) if i <= 40},
        'up{job="api",service="api"}': dict.fromkeys(MINUTE, 1.0),
        'up{job="gap",service="gap"}': {t: 1.0 for i, t in enumerate(MINUTE) if not 20 <= i < 26},
        'up{job="late",service="late"}': {t: 1.0 for i, t in enumerate(MINUTE) if i >= 10},
        'up{job="ended",service="ended"}': {t: 1.0 for i, t in enumerate(MINUTE) if i <= 40},
        'up{job="victim",service="model-1"}': {t: float(not 20 <= i < 30) for i, t in enumerate(MINUTE)},
        'up{job="hiccup",service="hiccup"}': {t: float(i != 20) for i, t in enumerate(MINUTE)},
        'up{job="dead",service="dead"}': dict.fromkeys(MINUTE, 0.0),
        **firing("Early", list(range(20))),
        **firing("Twice", [*range(15, 18), *range(40, 45)]),
        **firing("Once", list(range(12, 30))),
        # Evaluated every 15 s. One fires since long before, one ended and fired again.
        **firing("Rare", [2, 17, 32, 47]),
        **active("Rare", {17: -300, 32: -300, 47: -300}),
        **firing("RareAgain", [2, 17, 32]),
        **active("RareAgain", {17: 17, 32: 17}),
        **firing("Waited", [14, 15, 16], before_s=[8, 9, 10, 11, 12, 13]),
        **active("Waited", {14: 8, 15: 8, 16: 8}),
    }
    with history(tmp_path_factory.mktemp("prometheus"), series) as server:
        yield server


class TestOneNumber:
    def test_a_number_is_the_value_at_that_very_instant(self, prometheus: Prometheus) -> None:
        at_second_10 = prometheus.value('answers_total{outcome="ok"}', BASE + 10.9)

        assert at_second_10 == 50

    def test_a_query_without_a_result_is_no_data_and_is_named(self, prometheus: Prometheus) -> None:
        with pytest.raises(NoData, match=r"absent_metric .*no series"):
            prometheus.value("absent_metric", BASE + 10)

    def test_a_number_before_the_first_sample_is_no_data(self, prometheus: Prometheus) -> None:
        with pytest.raises(NoData):
            prometheus.value("one", BASE - 1)

    @pytest.mark.parametrize(
        ("query", "shown"), [("not_a_number", "nan"), ("endless", "inf"), ("idle_total * 0 / 0", "nan")]
    )
    def test_a_number_that_is_nan_or_infinite_is_refused(self, prometheus: Prometheus, query: str, shown: str) -> None:
        with pytest.raises(NotANumber, match=shown):
            prometheus.value(query, BASE + 10)

    def test_a_number_of_two_series_is_refused_and_names_both(self, prometheus: Prometheus) -> None:
        with pytest.raises(Inconclusive, match=r'got 2 .*service="api".*service="model-1"'):
            prometheus.value("many", BASE + 10)

    def test_a_number_may_be_a_scalar(self, prometheus: Prometheus) -> None:
        assert prometheus.value("scalar(one) + 1", BASE + 10) == 8

    def test_a_number_of_a_range_is_refused(self, prometheus: Prometheus) -> None:
        with pytest.raises(Inconclusive, match="matrix"):
            prometheus.value("one[5s]", BASE + 10)

    def test_a_broken_query_reports_prometheus_own_error(self, prometheus: Prometheus) -> None:
        with pytest.raises(Inconclusive, match="parse error"):
            prometheus.value("sum(one", BASE + 10)


def test_a_vector_is_keyed_by_labels(prometheus: Prometheus) -> None:
    values = prometheus.vector("many * 2", BASE + 10)

    assert values == {frozenset({("service", "api")}): 2.0, frozenset({("service", "model-1")}): 4.0}


def test_an_empty_vector_is_an_answer_only_where_it_may_be(prometheus: Prometheus) -> None:
    assert prometheus.vector("absent_metric", BASE + 10, may_be_empty=True) == {}

    with pytest.raises(NoData):
        prometheus.vector("absent_metric", BASE + 10)


def test_raw_samples_keep_their_stamps_and_stay_inside_the_window(prometheus: Prometheus) -> None:
    (series,) = prometheus.raw("one", BASE + 10, BASE + 12.5)

    assert series.labels == {"__name__": "one", "service": "api"}
    assert [round(t - BASE, 3) for t, _ in series.points] == [10, 11, 12]


def test_raw_samples_of_an_expression_are_refused(prometheus: Prometheus) -> None:
    with pytest.raises(Inconclusive):
        prometheus.raw("sum(one)", BASE, BASE + 10)


def test_a_window_that_ends_before_it_begins_is_refused(prometheus: Prometheus) -> None:
    with pytest.raises(ValueError, match="must end after it begins"):
        prometheus.raw("one", BASE + 10, BASE + 10)


class TestAlerts:
    def test_alerts_have_their_first_and_last_firing_second(self, prometheus: Prometheus) -> None:
        once = [alert for alert in prometheus.firing_spells(BASE + 5, BASE + 60) if alert.name == "Once"]

        assert [(round(a.at_unix_s - BASE), round(a.until_unix_s - BASE), a.before) for a in once] == [(12, 29, False)]
        assert once[0].labels == {"service": "api", "severity": "page"}

    def test_alerts_that_fire_again_are_two_alerts(self, prometheus: Prometheus) -> None:
        twice = [alert for alert in prometheus.firing_spells(BASE + 5, BASE + 60) if alert.name == "Twice"]

        assert [round(a.at_unix_s - BASE) for a in twice] == [15, 40]

    def test_alerts_that_fired_before_the_window_are_marked(self, prometheus: Prometheus) -> None:
        fired = {alert.name: alert.before for alert in prometheus.firing_spells(BASE + 10.5, BASE + 60)}

        assert {name: fired[name] for name in ("Early", "Once", "Twice")} == {
            "Early": True,
            "Once": False,
            "Twice": False,
        }

    @pytest.mark.parametrize(
        ("name", "before"),
        [("Rare", True), ("RareAgain", False), ("Waited", True)],
        ids=["evaluated seldom and firing all along", "evaluated seldom and begun anew", "pending before"],
    )
    def test_alerts_that_were_active_before_the_window_are_marked(
        self, prometheus: Prometheus, name: str, before: bool
    ) -> None:
        first = next(alert for alert in prometheus.firing_spells(BASE + 10.5, BASE + 60) if alert.name == name)

        assert first.before is before

    def test_alerts_of_another_server_are_marked_as_theirs(self, prometheus: Prometheus) -> None:
        both = Prometheus(prometheus.url, also=Prometheus(prometheus.url)).firing_spells(BASE + 5, BASE + 60)

        assert sorted(alert.theirs for alert in both if alert.name == "Once") == [False, True]
        assert not any(alert.theirs for alert in prometheus.firing_spells(BASE + 5, BASE + 60))

    def test_alerts_that_fire_in_no_second_of_the_window_are_omitted(self, prometheus: Prometheus) -> None:
        assert prometheus.firing_spells(BASE + 50, BASE + 60) == ()


class TestCoverage:
    def test_coverage_of_a_job_scraped_throughout_is_accepted(self, prometheus: Prometheus) -> None:
        prometheus.require_coverage(["api"], BASE + 0.5, BASE + 60)

    @pytest.mark.parametrize(
        ("job", "error", "said"),
        [
            ("absent", NoData, "job absent has no scrape"),
            ("gap", PartialScrape, r"gap was not scraped for 7\.0 s"),
            ("late", PartialScrape, r"late was not scraped for 9\.5 s"),
            ("ended", StaleData, r"newest scrape of ended is 20\.0 s older"),
            (
                "victim",
                PartialScrape,
                r"model-1 was not scraped for 11\.0 s .*: 10 of 60 scrapes failed, and it was not a victim",
            ),
            ("dead", PartialScrape, "dead was not scraped for 59.5 s .* 60 of 60 scrapes failed"),
        ],
    )
    def test_coverage_of_a_job_that_was_not_is_refused(
        self, prometheus: Prometheus, job: str, error: type[Exception], said: str
    ) -> None:
        with pytest.raises(error, match=said):
            prometheus.require_coverage(["api", job], BASE + 0.5, BASE + 60)

    def test_forgives_a_single_failed_scrape(self, prometheus: Prometheus) -> None:
        prometheus.require_coverage(["hiccup"], BASE + 0.5, BASE + 60)

    def test_lets_a_victim_be_down(self, prometheus: Prometheus) -> None:
        prometheus.require_coverage(["victim"], BASE + 0.5, BASE + 60, allow_down=("model-1",))


class TestLatencyBound:
    def bounded(self, le: str, bound_s: float | None, of: str = "", name: str = "first_token_seconds") -> Slo:
        one = slo(f'{name}_bucket{{{of}le="{le}"}}', f"{name}_count")
        return replace(one, threshold_s=bound_s, objective=0.72)

    def judged(self, prometheus: Prometheus, one: Slo) -> SloResult:
        return judge_slo(prometheus, one, BASE + 20, BASE + 40, rate_rps=10)

    def test_a_bound_that_is_an_edge_is_counted_exactly(self, prometheus: Prometheus) -> None:
        found = self.judged(prometheus, self.bounded("0.4", 0.4, 'service="vllm",'))

        assert (found.good, found.total, found.within) == (120, 200, None)

    def test_a_bound_that_is_no_edge_counts_between_the_edges_of_each_server(self, prometheus: Prometheus) -> None:
        """Within 0.5 s are 6 or 7 of vLLM's requests a second and 1 of SGLang's."""
        found = self.judged(prometheus, self.bounded("0.5", 0.5))

        assert found.within == Within(bound_s=0.5, lower_s=0.4, upper_s=0.8, least=140, most=160)
        assert (found.good, found.total, found.share, found.slo.good) == (
            140,
            200,
            (0.7, 0.8),
            'first_token_seconds_bucket{le="0.5"}',
        )
        with pytest.raises(
            BetweenEdges,
            match=r"between 0\.7 and 0\.8, because the bound 0\.5 s lies between the edges 0\.4 and 0\.8 s",
        ):
            _ = found.met
        at = {dict(labels)["le"]: share for labels, share in prometheus.vector(found.query, BASE + 40).items()}
        assert at == {"0.01": 0, "0.1": 0, "0.4": 0.6, "0.5": 0.1, "0.8": 0.7, "+Inf": 1.0}
        assert found.raw["good within 0.4 s"] == 140
        assert found.raw["total at the window's end"] == 400

    def test_a_bound_below_the_first_edge_is_between_none_and_the_first(self, prometheus: Prometheus) -> None:
        found = self.judged(prometheus, self.bounded("0.3", 0.3, 'service="vllm",'))

        assert found.share == (0.0, 0.6)
        with pytest.raises(BetweenEdges, match=r"lies below the first edge, 0\.4 s of first_token_seconds_bucket"):
            _ = found.value >= 0.5

    def test_a_bound_above_the_last_edge_is_between_the_last_and_all(self, prometheus: Prometheus) -> None:
        assert self.judged(prometheus, self.bounded("5", 5.0, 'service="vllm",')).share == (0.7, 0.8)

    def test_a_bound_that_the_slo_does_not_declare_is_refused_with_its_neighbours(self, prometheus: Prometheus) -> None:
        with pytest.raises(BetweenEdges, match=r'edges 0\.4 and 0\.8 s .* write the annotation .*-seconds: "0\.5"'):
            self.judged(prometheus, self.bounded("0.5", None))

    @pytest.mark.parametrize("bound_s", [2.0, None])
    def test_another_spelling_of_an_edge_is_exact(self, prometheus: Prometheus, bound_s: float | None) -> None:
        found = self.judged(prometheus, self.bounded("2", bound_s, name="go_seconds"))

        assert (found.good, found.total, found.within) == (60, 80, None)

    def test_a_histogram_that_is_not_there_is_no_data(self, prometheus: Prometheus) -> None:
        with pytest.raises(NoData, match="absent_bucket"):
            self.judged(prometheus, self.bounded("2", 2.0, name="absent"))


class TestServiceLevel:
    ok, every = 'answers_total{outcome="ok"}', "answers_total"

    def test_an_slo_counts_exactly_the_events_of_the_window(self, prometheus: Prometheus) -> None:
        result = judge_slo(prometheus, slo(self.ok, self.every), BASE + 20, BASE + 40, rate_rps=5)

        assert (result.good, result.total) == (80, 100)
        assert result.raw["total at the window's start"] == 100
        assert prometheus.value(result.query, BASE + 40) == 0.8

    def test_an_slo_is_exact_for_windows_between_scrapes(self, prometheus: Prometheus) -> None:
        result = judge_slo(prometheus, slo(self.ok, self.every), BASE + 20.6, BASE + 35.4, rate_rps=5)

        assert (result.good, result.total) == (60, 75)

    @pytest.mark.parametrize(("begin_s", "end_s", "good"), [(20, 40, 80), (15, 40, 105), (25.5, 35.5, 40), (5, 15, 50)])
    def test_an_slo_of_failures_that_another_counter_has_counts_the_same(
        self, prometheus: Prometheus, begin_s: float, end_s: float, good: float
    ) -> None:
        of_failures = slo_of_failures("failures_total", self.every)

        found = judge_slo(prometheus, of_failures, BASE + begin_s, BASE + end_s, rate_rps=5)

        alike = judge_slo(prometheus, slo(self.ok, self.every), BASE + begin_s, BASE + end_s, rate_rps=5)
        assert (found.good, found.total) == (alike.good, alike.total) == (good, 5 * int(end_s - begin_s))
        assert found.raw["bad at the window's start"] == max(0, int(begin_s) - 20)
        assert prometheus.value(found.query, BASE + end_s) == found.good / found.total

    @pytest.mark.parametrize(
        ("total", "error"), [("idle_total", NoData), ("restarted_total", CounterReset), ("misspelt_total", NoData)]
    )
    def test_an_slo_of_failures_needs_a_total_to_judge(
        self, prometheus: Prometheus, total: str, error: type[Exception]
    ) -> None:
        with pytest.raises(error):
            judge_slo(prometheus, slo_of_failures("failures_total", total), BASE + 5, BASE + 45, rate_rps=5)

    def test_an_slo_of_failures_that_stopped_being_counted_is_refused(self, prometheus: Prometheus) -> None:
        with pytest.raises(StaleData, match=r"ended_total is 20\.0 s older"):
            judge_slo(prometheus, slo_of_failures("ended_total", self.every), BASE + 20, BASE + 60, rate_rps=5)

    def test_the_share_of_failures_is_recorded_alike(self, prometheus: Prometheus) -> None:
        """But for the first failures, which a rate cannot see in a new series."""
        of_failures, alike = slo_of_failures("failures_total", self.every), slo(self.ok, self.every)

        for at_s in (15, 35, 55):
            shares = [prometheus.value(error_ratio_expression(one, "8s"), BASE + at_s) for one in (of_failures, alike)]
            assert shares[0] == pytest.approx(shares[1])

    def test_an_slo_without_events_is_no_data_instead_of_met(self, prometheus: Prometheus) -> None:
        with pytest.raises(NoData, match="no requests between"):
            judge_slo(prometheus, slo("idle_total", "idle_total"), BASE + 20, BASE + 40, rate_rps=5)

    def test_an_slo_with_a_misspelt_counter_is_no_data(self, prometheus: Prometheus) -> None:
        with pytest.raises(NoData):
            judge_slo(prometheus, slo('answers_total{outcome="okay"}', self.every), BASE + 20, BASE + 40, rate_rps=5)

    def test_an_slo_of_a_counter_that_stopped_is_stale(self, prometheus: Prometheus) -> None:
        with pytest.raises(StaleData, match=r"20\.0 s older"):
            judge_slo(prometheus, slo("ended_total", "ended_total"), BASE + 20, BASE + 60, rate_rps=5)

    @pytest.mark.parametrize(("good", "every"), [("restarted_total", "one"), ("one", "restarted_total")])
    def test_an_slo_of_a_counter_that_began_again_is_refused(
        self, prometheus: Prometheus, good: str, every: str
    ) -> None:
        with pytest.raises(CounterReset, match=r"made-up: .*restarted_total.* restarted at 0 .*\(1 resets\)"):
            judge_slo(prometheus, slo(good, every), BASE + 20.5, BASE + 50.5, rate_rps=10)

    def test_an_slo_of_a_process_that_began_again_is_refused_though_its_counter_never_fell(
        self, prometheus: Prometheus
    ) -> None:
        name = "overtaking_total"

        with pytest.raises(CounterReset, match=r"overtaking_total.* restarted at 0 .*\(1 resets\)"):
            judge_slo(prometheus, slo(name, name), BASE + 20.5, BASE + 50.5, rate_rps=5)

        assert judge_slo(prometheus, slo(name, name), BASE + 30.5, BASE + 50.5, rate_rps=5).good == 100

    def test_an_slo_over_a_replica_that_left_is_refused(self, prometheus: Prometheus) -> None:
        with pytest.raises(
            CounterReset,
            match=r'missing at its end \(__name__="leaving_total", replica="b"\), so their counts are lost',
        ):
            judge_slo(prometheus, slo("leaving_total", "leaving_total"), BASE + 20, BASE + 390, rate_rps=5)

    def test_an_slo_of_a_counter_that_began_again_before_the_window_is_exact(self, prometheus: Prometheus) -> None:
        result = judge_slo(prometheus, slo("restarted_total", "restarted_total"), BASE + 30, BASE + 50, rate_rps=10)

        assert (result.good, result.total) == (200, 200)


def test_the_clocks_offset_is_measured(prometheus: Prometheus) -> None:
    assert abs(prometheus.clock_offset_s()) < 0.5


@pytest.mark.parametrize("offset_s", [3.0, -3.0])
def test_a_clock_that_is_off_is_reported_with_its_sign(offset_s: float) -> None:
    now = f"{time.time() + offset_s:.3f}"
    answer = {"status": "success", "data": {"resultType": "scalar", "result": [0, now]}}
    with something_else(200, json.dumps(answer)) as (server, _):
        assert server.clock_offset_s() == pytest.approx(offset_s, abs=0.3)


def test_a_server_without_a_clock_is_checked_for_being_prometheus() -> None:
    answer = {"status": "success", "data": {"resultType": "vector", "result": []}}
    with something_else(200, json.dumps(answer)) as (server, _), pytest.raises(NoData, match="is that Prometheus"):
        server.clock_offset_s()


def test_each_thread_may_query(prometheus: Prometheus) -> None:
    answers: list[float] = []
    threads = [
        threading.Thread(target=lambda: answers.extend(prometheus.value("one", BASE + 10) for _ in range(5)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert answers == [7.0] * 20


class _Exporter(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"answer 42\n")

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def something_else(status: int, body: str, delay_s: float = 0) -> Iterator[tuple[Prometheus, list[str]]]:
    """A server that is no Prometheus, and the requested paths."""
    asked: list[str] = []
    released = threading.Event()

    class Answer(_Exporter):
        def do_GET(self) -> None:
            asked.append(self.path)
            released.wait(delay_s)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield Prometheus(f"http://127.0.0.1:{server.server_address[1]}", timeout_s=0.3), asked
    finally:
        released.set()
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, "<html>hello</html>", "no answer|not Prometheus"),
        (200, "{}", "not Prometheus"),
        (503, "starting", "could not answer"),
        (404, "nothing here", "could not answer"),
    ],
    ids=["a page", "other JSON", "an overloaded server", "a missing path"],
)
def test_a_server_that_is_not_prometheus_is_unreachable_after_one_query(status: int, body: str, said: str) -> None:
    with something_else(status, body) as (server, asked):
        with pytest.raises(PrometheusUnreachable, match=said):
            server.value("one", 1000)

        assert len(asked) == 1


def test_a_server_that_hangs_is_unreachable_after_one_query_and_the_deadline() -> None:
    with something_else(200, "{}", delay_s=5) as (server, asked):
        started = time.monotonic()
        with pytest.raises(PrometheusUnreachable, match=r"within 0\.3 s"):
            server.value("one", 1000)

        assert time.monotonic() - started < 2
        assert len(asked) == 1


def test_a_closed_port_is_unreachable_and_not_ready() -> None:
    server = Prometheus(f"http://127.0.0.1:{free_port()}", timeout_s=0.3)

    assert not server.ready()
    with pytest.raises(PrometheusUnreachable):
        server.value("one", 1000)


def test_a_warning_makes_the_answer_inconclusive() -> None:
    answer = {
        "status": "success",
        "warnings": ["remote read: 1 of 2 stores did not answer"],
        "data": {"resultType": "vector", "result": [{"metric": {}, "value": [1000, "1"]}]},
    }
    with something_else(200, json.dumps(answer)) as (server, _), pytest.raises(Inconclusive, match="1 of 2 stores"):
        server.value("one", 1000)


def test_the_instant_is_sent_with_its_milliseconds() -> None:
    answer = {"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": [1, "1"]}]}}
    with something_else(200, json.dumps(answer)) as (server, asked):
        server.value("one", 1_700_000_000.1239)

    assert "time=1700000000.124" in asked[0]


def test_importing_the_judge_imports_no_http_library() -> None:
    script = "import sys, pytest_llmchaos.trial.slo_verdict; print({'requests', 'yaml'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "set()"


TWO_FOR_ONE = '(vector(1) or label_replace(vector(1), "x", "1", "", "")) + ignoring (x) vector(1)'


def test_each_rule_is_known_by_its_name_and_by_how_its_last_evaluation_went(tmp_path):
    groups = [
        {
            "name": "often",
            "interval": "200ms",
            "rules": [{"alert": "Down", "expr": "up == 0"}, {"record": "x", "expr": "up"}],
        },
        {"name": "odd", "interval": "200ms", "rules": [{"alert": "Busy", "expr": TWO_FOR_ONE}]},
        {"name": "seldom", "interval": "30d", "rules": [{"alert": "Late", "expr": "up"}]},
    ]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": groups}))

    with prometheus_with(tmp_path, f"rule_files: ['{tmp_path / 'rules.yml'}']") as server:
        begun = time.time()

        def often_twice() -> bool:
            return all(rule.evaluated_unix_s > begun for rule in server.rules() if rule.name != "Late")

        until(often_twice, "rules that are evaluated")
        rules = server.rules()

    assert [(rule.name, rule.is_alert) for rule in rules] == [
        ("Busy", True),
        ("Down", True),
        ("Late", True),
        ("x", False),
    ]
    assert "multiple matches" in rules[0].error
    assert [rule.error for rule in rules[1:]] == ["", "", ""]
    assert rules[2].evaluated_unix_s == 0  # Prometheus reports a time before Unix time began


def test_rules_that_cannot_be_had_are_no_empty_answer():
    with pytest.raises(PrometheusUnreachable, match="about its rules"):
        Prometheus("http://127.0.0.1:9").rules()
