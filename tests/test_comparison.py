"""Three truths of one trial: what callers saw, Prometheus' service level, and the service's own counters."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.judged_world import END_S, GOOD_S, KILLED_S, Gateway, Performed, answered, judge, told
from support.prometheus_server import history

from pytest_llmchaos import faults
from pytest_llmchaos.errors import StaleData, TruthsDisagree
from pytest_llmchaos.lab.injector import Injected
from pytest_llmchaos.model import Injection, RuntimeEvent, Sample
from pytest_llmchaos.prometheus.queries import Prometheus, Target
from pytest_llmchaos.slo.arithmetic import Slo
from pytest_llmchaos.slo.recorded import error_ratio_expression
from pytest_llmchaos.stats.columns import columns_of
from pytest_llmchaos.trial import agreement
from pytest_llmchaos.trial import judge as judging
from pytest_llmchaos.trial.comparison import Comparison
from pytest_llmchaos.trial.trial import Trial
from pytest_llmchaos.trial.truths import Seen, Sight, measure_of, oddity, seen_by_callers

World = tuple[Prometheus, float]


def judged(performed: Performed) -> Trial:
    with performed.load() as (record, running):
        return judging.judge(performed.lab, performed.plan, record, running, performed.injected)


@contextmanager
def both_models_dead(directory: Path, gateway: Gateway) -> Iterator[Performed]:
    """The api lives, sees every request and answers 5xx while its replicas are dead."""
    with judge(directory, "http_5xx", gateway) as (prometheus, t0_unix_s):
        performed = Performed(directory, prometheus, t0_unix_s)
        performed.seen = answered("http_5xx")
        performed.lab.subject = replace(performed.lab.subject, scrape_jobs=("model",))
        performed.injected.acts = [replace(act, victim="model-1") for act in performed.injected.acts]
        performed.runtime._events = [replace(one, service="model-1") for one in performed.runtime._events]
        yield performed


class TestService:
    def test_that_counts_as_its_callers_do_agrees(self, tmp_path: Path) -> None:
        with both_models_dead(tmp_path, Gateway()) as performed:
            trial = judged(performed)

        assert trial.whole.availability == pytest.approx(0.9625)
        assert [one for one in trial.findings if "replica" not in one] == []

    def test_that_leaves_out_its_failures_is_odd(self, tmp_path: Path) -> None:
        said = (
            r"availability of the whole trial: callers say 0\.9625 \(308 of 320\), Prometheus' SLO 0\.9625, "
            r"the service's own counters 1\.0000: the service's own counters are odd"
        )
        with (
            both_models_dead(tmp_path, Gateway(counts_failures=False)) as performed,
            pytest.raises(TruthsDisagree, match=said),
        ):
            judged(performed)

    def test_that_times_its_successes_alone_is_odd(self, tmp_path: Path) -> None:
        said = r"latency-p95 of the whole trial: callers say 0\.9625 .*own counters 1\.0000: the service's own counters"
        with (
            both_models_dead(tmp_path, Gateway(times_failures=False)) as performed,
            pytest.raises(TruthsDisagree, match=said),
        ):
            judged(performed)

    def test_that_counts_its_requests_twice_is_odd(self, tmp_path: Path) -> None:
        said = r"callers sent 320 requests in the whole trial, the service counted 640: its counters are odd"
        with (
            both_models_dead(tmp_path, Gateway(counts_each=2)) as performed,
            pytest.raises(TruthsDisagree, match=said),
        ):
            judged(performed)

    def test_whose_death_explains_the_difference_is_no_finding(self, tmp_path: Path) -> None:
        with judge(tmp_path) as (prometheus, t0_unix_s):
            trial = judged(Performed(tmp_path, prometheus, t0_unix_s))

        assert trial.findings == ()

    def test_without_the_counters_that_it_should_have_is_a_finding(self, tmp_path: Path) -> None:
        with both_models_dead(tmp_path, Gateway()) as performed:
            query = "sum(increase(renamed_total[$span]))"
            performed.lab.subject = replace(performed.lab.subject, availability_query=query)
            (finding,) = [one for one in judged(performed).findings if "replica" not in one]

        assert finding.startswith("availability: the service's own counters cannot be compared: ")
        assert "renamed_total[" in finding

    def test_is_compared_up_to_a_flood_of_which_its_callers_know_nothing(self, tmp_path: Path) -> None:
        with both_models_dead(tmp_path, Gateway(counts_failures=False)) as performed:
            flood = faults.overload("api", times=2.5).primitive
            performed.injected.acts = [Injection(after_s=0.0, fault=flood, victim="api")]
            performed.injected.proven = [(performed.injected.acts[0], performed.t0_unix_s + KILLED_S - 0.5)]

            assert [one for one in judged(performed).findings if "replica" not in one] == []

            performed.injected.proven = [(performed.injected.acts[0], performed.t0_unix_s + GOOD_S + 4)]
            with pytest.raises(TruthsDisagree, match=r"the service's own counters are odd"):
                judged(performed)


class TestServiceLevel:
    def test_that_divides_by_successes_is_odd(self, tmp_path: Path) -> None:
        with both_models_dead(tmp_path, Gateway()) as performed:
            performed.lab._slos = tuple(
                replace(slo, total=slo.good) if slo.name == "availability" else slo for slo in performed.lab.slos
            )
            with pytest.raises(TruthsDisagree, match=r"Prometheus' SLO 1\.0000, .* 0\.9625: Prometheus' SLO is odd"):
                judged(performed)

    def test_of_the_services_own_counters_is_compared_as_well(self, tmp_path: Path) -> None:
        own = Slo(
            name="availability",
            objective=0.99,
            window_days=30,
            description="",
            good='llmlab_requests_total{outcome="ok"}',
            total="llmlab_requests_total",
        )
        said = r"callers say 0\.9625 .* Prometheus' SLO 1\.0000: one of them is wrong"
        with both_models_dead(tmp_path, Gateway(counts_failures=False)) as performed:
            performed.lab._slos = (own,)
            # Of a victim among the services that count nothing can be known.
            performed.runtime._events = []
            performed.injected.acts = []
            with pytest.raises(TruthsDisagree, match=said):
                judged(performed)


class TestRules:
    NAME = "slo:error_ratio:rate4s"

    @pytest.fixture
    def recorded(self, tmp_path: Path) -> Callable[[Callable[[dict[int, float], int], float]], Trial]:
        """The trial judged where a rule recorded a function of what Prometheus finds at each second."""

        def judged_with(rule: Callable[[dict[int, float], int], float]) -> Trial:
            t0_unix_s = round(time.time() - END_S - 5, 3)
            series = told(t0_unix_s)
            for name in ("without", "with"):
                (tmp_path / name).mkdir()
            with history(tmp_path / "without", series) as server:
                (slo,) = (slo for slo in Performed(tmp_path, server, t0_unix_s).lab.slos if slo.name == "availability")
                found = server.series_over(error_ratio_expression(slo, "4s"), t0_unix_s + 0.7, t0_unix_s + END_S + 4.7)
            second = {round(at - t0_unix_s - 0.7): value for at, value in found.items()}
            assert max(second.values()) > 0.1
            series[f'{self.NAME}{{slo="availability"}}'] = {
                t0_unix_s + at + 0.7: rule(second, at) for at in range(round(END_S) + 4)
            }
            with history(tmp_path / "with", series) as server:
                return judged(Performed(tmp_path, server, t0_unix_s))

        return judged_with

    def test_that_divide_by_successes_are_odd(self, recorded: Any) -> None:
        with pytest.raises(TruthsDisagree, match=rf"the rule {self.NAME} of availability is odd: .* recorded 0\.000"):
            recorded(lambda _, __: 0.0)

    def test_that_record_what_the_judge_finds_agree(self, recorded: Any) -> None:
        assert recorded(lambda found, second: found.get(second, 0.0)).findings == ()

    def test_that_missed_the_newest_scrape_agree(self, recorded: Any) -> None:
        assert recorded(lambda found, second: found.get(second - 1, 0.0)).findings == ()


class TestScrapes:
    """Without a push gateway the last events are in no scrape yet when the load ends."""

    def lab(self, *ages_s: float, jobs: tuple[str, ...] = ()) -> Any:
        now = time.time()
        asked = iter(ages_s)

        def targets() -> tuple[Target, ...]:
            at = now - next(asked)
            return (
                Target(job="api", service="api", url="", up=True, last_error="", last_scrape_unix_s=at),
                Target(job="other", service="o", url="", up=True, last_error="", last_scrape_unix_s=now - 99),
            )

        return SimpleNamespace(subject=SimpleNamespace(scrape_jobs=jobs), prometheus=SimpleNamespace(targets=targets))

    def test_are_waited_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(agreement.time, "sleep", lambda _: None)
        lab = self.lab(0.5, 0.5, -0.5, jobs=("api",))

        assert agreement.await_scrapes(lab, time.time()) >= time.time() - 1
        with pytest.raises(StopIteration):
            lab.prometheus.targets()

    def test_that_do_not_come_are_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(agreement, "SCRAPED_DEADLINE_S", -1.0)

        with pytest.raises(StaleData, match=r"has not scraped api, o within"):
            agreement.await_scrapes(self.lab(0.5), time.time())


class TestSeen:
    def sample(self, due_s: float, outcome: Any = "ok", took_s: float = 0.1, first_s: float | None = None) -> Sample:
        return Sample(due_s, due_s, first_s, due_s + took_s, 0.0, 8, outcome, "model-1", "r")

    def seen(self, measure: Any, bound_s: float | None, sight: Sight | None, *samples: Sample) -> Seen:
        return seen_by_callers(columns_of(samples), measure, bound_s, sight)

    def test_is_exact_where_the_callers_counted_themselves(self) -> None:
        samples = [self.sample(0), self.sample(1, "refused"), self.sample(2, "cancelled"), self.sample(2, "left")]
        samples.append(self.sample(3, took_s=3))

        assert self.seen("availability", None, None, *samples) == Seen(good=2, total=3)
        assert self.seen("e2e", 2.0, None, *samples) == Seen(good=1, total=3)

    @pytest.mark.parametrize("outcome", ["refused", "timeout", "corrupted"])
    def test_leaves_out_what_no_service_can_count(self, outcome: Any) -> None:
        assert self.seen("availability", None, Sight(), self.sample(0, outcome)).unsure_bad == 1

    @pytest.mark.parametrize("outcome", ["http_5xx", "http_429", "truncated", "inband_error", "stalled", "cut"])
    def test_holds_a_service_to_what_it_can_count(self, outcome: Any) -> None:
        assert self.seen("availability", None, Sight(), self.sample(0, outcome)).unsure_bad == 0

    @pytest.mark.parametrize(("due_s", "unsure"), [(4.8, 0), (4.95, 1), (6.0, 1), (7.0, 1), (7.1, 0)])
    def test_leaves_out_what_was_under_way_while_the_service_was_dead(self, due_s: float, unsure: int) -> None:
        seen = self.seen("availability", None, Sight(blind=[(5.0, 7.0)]), self.sample(due_s), self.sample(due_s, "cut"))

        assert (seen.unsure_good, seen.unsure_bad) == (unsure, unsure)

    def test_leaves_out_latencies_beside_the_bound(self) -> None:
        samples = [self.sample(0, took_s=took_s) for took_s in (1.4, 1.6, 2.4, 2.6)]

        assert self.seen("e2e", 2.0, Sight(), *samples) == Seen(good=2, total=4, unsure_good=1, unsure_bad=1)

    def test_leaves_out_first_tokens_of_answers_that_failed_later(self) -> None:
        begun, mute = self.sample(0, "cut", 3.0, first_s=0.2), self.sample(0, "cut", 3.0)

        assert self.seen("ttft", 2.0, Sight(), begun, mute) == Seen(good=0, total=2, unsure_bad=1)
        assert self.seen("e2e", 2.0, Sight(), begun, mute).unsure_bad == 0
        assert self.seen("e2e", 2.0, Sight(counts_failures=False), begun, mute).unsure_bad == 2

    def test_leaves_out_what_was_given_up_when_the_load_ended(self) -> None:
        assert self.seen("availability", None, Sight(known_s=3.0), self.sample(2, "stalled", 1.0)).unsure_bad == 1

    def test_leaves_out_what_impatient_callers_left_however_the_service_counts_it(self) -> None:
        samples = [self.sample(0), self.sample(1, "http_5xx"), *(self.sample(i, "left") for i in range(2, 7))]

        assert self.seen("availability", None, None, *samples) == Seen(good=1, total=2)
        assert self.seen("availability", None, Sight(), *samples) == Seen(good=1, total=2, unsure_good=1, unsure_bad=1)

    def test_ends_where_the_sight_does(self) -> None:
        assert self.seen("availability", None, Sight(until_s=3.0), self.sample(2), self.sample(2.95)).total == 1


class TestOddity:
    ALL = Seen(good=60, total=100)

    @pytest.mark.parametrize(
        ("slo", "service", "odd"),
        [
            (0.6, 1.0, "the service's own counters are odd"),
            (1.0, 0.6, "Prometheus' SLO is odd"),
            (1.0, 1.0, "the callers' samples are odd"),
            (0.8, 1.0, "no two of them agree"),
            (1.0, None, "one of them is wrong, and the service itself tells no third"),
        ],
    )
    def test_is_named(self, slo: float, service: float | None, odd: str) -> None:
        said = oddity("availability", self.ALL, replace(self.ALL), slo, service)

        assert said is not None
        assert odd in said

    @pytest.mark.parametrize(("slo", "service"), [(0.6, 0.6), (0.6009, 0.6), (0.6, 0.629), (0.6, 0.571), (0.6, None)])
    def test_is_none_within_the_slack(self, slo: float, service: float | None) -> None:
        assert oddity("availability", self.ALL, replace(self.ALL), slo, service) is None

    def test_is_none_where_requests_have_an_explanation(self) -> None:
        unsure = Seen(good=60, total=100, unsure_bad=40)

        assert oddity("availability", self.ALL, unsure, 0.6, 1.0) is None


@pytest.mark.parametrize(
    ("name", "metric", "threshold_s", "measure"),
    [
        ("availability", "requests_total", None, "availability"),
        ("latency-p95", "llmchaos_caller_request_duration_seconds_bucket", 2.56, "e2e"),
        ("slow", "vllm:e2e_request_latency_seconds_bucket", 2.5, "e2e"),
        ("ttft-p95", "vllm:time_to_first_token_seconds_bucket", 2.0, "ttft"),
        ("itl", "vllm:inter_token_latency_seconds_bucket", 0.1, None),
        ("queue", "vllm:request_queue_time_seconds_bucket", 0.1, None),
        ("goodput", "llmchaos_caller_good_total", None, None),
    ],
)
def test_what_callers_can_judge(name: str, metric: str, threshold_s: float | None, measure: Any) -> None:
    slo = Slo(
        name=name,
        objective=0.9,
        window_days=30,
        description="",
        good=f'{metric}{{le="1"}}',
        total="all_total",
        threshold_s=threshold_s,
    )

    assert measure_of(slo) == measure


class TestBlindness:
    """When a service could count nothing, by the runtime's events; else by the fault that hit it."""

    def spells(self, *events: tuple[float, str], hit: Any = None, reverted_s: float | None = None) -> list[Any]:
        injected = Injected()
        injected.reverted_unix_s = None if reverted_s is None else 1000.0 + reverted_s
        if hit is not None:
            injected.proven = [(Injection(after_s=0.0, fault=hit.primitive, victim="api"), 1005.0)]
        comparison = Comparison(
            lab=None,  # type: ignore[arg-type]
            record=SimpleNamespace(at_s=lambda unix_s: unix_s - 1000.0),  # type: ignore[arg-type]
            samples=None,  # type: ignore[arg-type]
            injected=injected,
            events=[RuntimeEvent(at_unix_s=1000.0 + at_s, service="api", action=action) for at_s, action in events],
            counted_unix_s=1030.0,
        )
        return [(round(a, 1), round(b, 1)) for a, b in comparison._blind_spells("api")]

    def test_lasts_from_each_death_to_the_next_start(self) -> None:
        events = [(5.0, "kill"), (5.0, "die"), (7.0, "start"), (9.0, "die"), (9.5, "start"), (12.0, "start")]

        assert self.spells(*events) == [(3.8, 8.2), (7.8, 10.7)]

    def test_lasts_while_it_is_frozen(self) -> None:
        assert self.spells((5.0, "pause"), (7.0, "unpause")) == [(3.8, 8.2)]

    def test_does_not_end_where_it_did_not_start_again(self) -> None:
        assert self.spells((5.0, "die")) == [(3.8, float("inf"))]

    @pytest.mark.parametrize(("reverted_s", "until_s"), [(9.0, 10.2), (None, float("inf"))])
    def test_lasts_as_long_as_a_fault_without_such_events(self, reverted_s: float | None, until_s: float) -> None:
        hit = faults.partition("api")

        assert self.spells(hit=hit, reverted_s=reverted_s) == [(3.8, until_s)]

    def test_is_not_of_a_service_that_is_flooded_or_that_nothing_hit(self) -> None:
        assert self.spells(hit=faults.overload("api", times=2), reverted_s=9.0) == []
        assert self.spells() == []
