"""The comparison of clients, Prometheus' SLO and the service's counters."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.judged_world import END_S, GOOD_S, KILLED_S, Gateway, Performed, answered, judge, told
from support.prometheus_server import history

from pytest_llmchaos import faults
from pytest_llmchaos.errors import TruthsDisagree
from pytest_llmchaos.model import Injection
from pytest_llmchaos.prometheus.queries import Prometheus
from pytest_llmchaos.slo.arithmetic import Slo
from pytest_llmchaos.slo.recorded import error_ratio_expression
from pytest_llmchaos.subject.lab_signals import Expected
from pytest_llmchaos.trial import judge as judging
from pytest_llmchaos.trial.trial import Trial

World = tuple[Prometheus, float]


def judged(performed: Performed) -> Trial:
    with performed.load() as (record, running):
        return judging.judge(performed.lab, performed.plan, record, running, performed.injected)


@contextmanager
def both_models_dead(directory: Path, gateway: Gateway) -> Iterator[Performed]:
    """A trial in which the api lives and answers 5xx while its replicas are dead."""
    with judge(directory, "http_5xx", gateway) as (prometheus, t0_unix_s):
        performed = Performed(directory, prometheus, t0_unix_s)
        performed.seen = answered("http_5xx")
        expected = (
            Expected(fault="kill", on="model-*", elsewhere=("ServiceDown",)),
        )  # the world's one alert is about the api
        performed.lab.subject = replace(performed.lab.subject, scrape_jobs=("model",), expected=expected)
        performed.injected.acts = [replace(act, victim="model-1") for act in performed.injected.acts]
        performed.runtime._events = [replace(one, service="model-1") for one in performed.runtime._events]
        yield performed


class TestService:
    def test_a_service_that_counts_like_its_clients_agrees(self, tmp_path: Path) -> None:
        with both_models_dead(tmp_path, Gateway()) as performed:
            trial = judged(performed)

        assert trial.whole.availability == pytest.approx(0.9625)
        assert [one for one in trial.findings if "replica" not in one] == []

    def test_a_service_that_omits_its_failures_is_odd(self, tmp_path: Path) -> None:
        said = (
            r"availability of the whole trial: clients counted 0\.9625 \(308 of 320\), Prometheus' SLO 0\.9625, "
            r"the service's own counters 1\.0000: the service's own counters are odd"
        )
        with (
            both_models_dead(tmp_path, Gateway(counts_failures=False)) as performed,
            pytest.raises(TruthsDisagree, match=said),
        ):
            judged(performed)

    def test_a_service_that_times_only_successes_is_odd(self, tmp_path: Path) -> None:
        said = r"latency-p95 of the whole trial: clients counted 0\.9625 .*own counters 1\.0000: the service's own counters"
        with (
            both_models_dead(tmp_path, Gateway(times_failures=False)) as performed,
            pytest.raises(TruthsDisagree, match=said),
        ):
            judged(performed)

    def test_a_service_that_counts_requests_twice_is_odd(self, tmp_path: Path) -> None:
        said = r"clients sent 320 requests in the whole trial, the service counted 640: its counters are odd"
        with (
            both_models_dead(tmp_path, Gateway(counts_each=2)) as performed,
            pytest.raises(TruthsDisagree, match=said),
        ):
            judged(performed)

    def test_a_death_that_explains_the_difference_is_no_finding(self, tmp_path: Path) -> None:
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

    def test_a_service_is_compared_until_a_flood_that_the_samples_lack(self, tmp_path: Path) -> None:
        with both_models_dead(tmp_path, Gateway(counts_failures=False)) as performed:
            flood = faults.overload("api", times=2.5).primitive
            performed.injected.acts = [Injection(after_s=0.0, fault=flood, victim="api")]
            performed.injected.proven = [(performed.injected.acts[0], performed.t0_unix_s + KILLED_S - 0.5)]

            assert [one for one in judged(performed).findings if "replica" not in one] == []

            performed.injected.proven = [(performed.injected.acts[0], performed.t0_unix_s + GOOD_S + 4)]
            with pytest.raises(TruthsDisagree, match=r"the service's own counters are odd"):
                judged(performed)


class TestServiceLevel:
    def test_an_slo_that_divides_by_successes_is_odd(self, tmp_path: Path) -> None:
        with both_models_dead(tmp_path, Gateway()) as performed:
            performed.lab._slos = tuple(
                replace(slo, total=slo.good) if slo.name == "availability" else slo for slo in performed.lab.slos
            )
            with pytest.raises(TruthsDisagree, match=r"Prometheus' SLO 1\.0000, .* 0\.9625: Prometheus' SLO is odd"):
                judged(performed)

    @pytest.mark.parametrize("about", [{"name": "availability"}, {"name": "whole-answers", "clients": "availability"}])
    def test_an_slo_over_the_services_own_counters_is_compared(self, tmp_path: Path, about: Any) -> None:
        own = Slo(
            **about,
            objective=0.99,
            window_days=30,
            description="",
            good='llmlab_requests_total{outcome="ok"}',
            total="llmlab_requests_total",
        )
        said = r"clients counted 0\.9625 .* Prometheus' SLO 1\.0000: one of them is wrong"
        with both_models_dead(tmp_path, Gateway(counts_failures=False)) as performed:
            performed.lab._slos = (own,)
            # Dead time of a victim among the counting services explains any difference.
            performed.runtime._events = []
            performed.injected.acts = []
            with pytest.raises(TruthsDisagree, match=said):
                judged(performed)
            performed.lab._slos = (replace(own, clients="none"),)
            with pytest.raises(TruthsDisagree, match="the service counted 308"):  # the only comparison left
                judged(performed)


class TestRules:
    NAME = "slo:error_ratio:rate4s"

    @pytest.fixture
    def recorded(self, tmp_path: Path) -> Callable[[Callable[[dict[int, float], int], float]], Trial]:
        """Judge the trial with a rule that recorded this function of each value."""

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

    def test_rules_that_divide_by_successes_are_odd(self, recorded: Any) -> None:
        with pytest.raises(TruthsDisagree, match=rf"the rule {self.NAME} of availability is odd: .* recorded 0\.000"):
            recorded(lambda _, __: 0.0)

    def test_rules_that_record_the_judges_values_agree(self, recorded: Any) -> None:
        assert recorded(lambda found, second: found.get(second, 0.0)).findings == ()

    def test_rules_that_missed_the_newest_scrape_agree(self, recorded: Any) -> None:
        assert recorded(lambda found, second: found.get(second - 1, 0.0)).findings == ()
