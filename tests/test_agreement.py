"""The agreement of clients and Prometheus, on a fake Prometheus."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_llmchaos.errors import Inconclusive, NoData, StaleData, TruthsDisagree
from pytest_llmchaos.evidence.trial_record import ClockReading, PhaseBounds
from pytest_llmchaos.evidence.trial_result import Planned
from pytest_llmchaos.model import Sample
from pytest_llmchaos.prometheus.queries import Rule, Target
from pytest_llmchaos.slo.arithmetic import Slo
from pytest_llmchaos.stats.windows import Window, windows
from pytest_llmchaos.subject.lab import lab_subject
from pytest_llmchaos.trial import agreement
from pytest_llmchaos.trial.agreement import (
    CLOCK_TOLERANCE_S,
    require_agreement,
    require_coverage,
    require_evidence,
    require_no_step,
    require_one_clock,
)


def readings(*found: tuple[str, float, float]) -> list[ClockReading]:
    return [ClockReading(clock=clock, at_s=at_s, offset_s=offset_s) for clock, at_s, offset_s in found]


class TestClocks:
    @pytest.mark.parametrize("to_s", [CLOCK_TOLERANCE_S, -CLOCK_TOLERANCE_S, 0.1])
    def test_clocks_that_drift_within_the_tolerance_did_not_step(self, to_s: float) -> None:
        assert CLOCK_TOLERANCE_S == 0.25
        require_no_step(readings(("a", 1, 0.0), ("b", 1, 9.0), ("a", 2, to_s), ("b", 2, 9.0)))

    @pytest.mark.parametrize(("to_s", "by"), [(0.26, r"\+0\.260"), (-0.26, r"-0\.260")])
    def test_clocks_step_by_the_distance_to_their_first_reading(self, to_s: float, by: str) -> None:
        with pytest.raises(Inconclusive, match=rf"b was set by {by} s between 2\.0 s and 3\.0 s of the trial, at most"):
            require_no_step(readings(("b", 1, 0.0), ("a", 1, 9.0), ("b", 2, to_s / 2), ("a", 2, 9.0), ("b", 3, to_s)))

    def record(self, *found: tuple[str, float, float]) -> Any:
        made = SimpleNamespace(clocks=readings(*found), read_wall_clock=lambda: None)
        made.read_clock = lambda clock, offset_s: made.clocks.append(
            ClockReading(clock=clock, at_s=9.0, offset_s=offset_s)
        )
        return made

    @pytest.mark.parametrize(
        ("offset_s", "is_one"), [(0.25, True), (-0.25, True), (0.26, False), (-0.26, False), (float("nan"), False)]
    )
    def test_clocks_are_one_within_the_tolerance(self, offset_s: float, is_one: bool) -> None:
        lab: Any = SimpleNamespace(clocks={"Prometheus' clock": lambda: offset_s, "the runtime's": lambda: None})
        if is_one:
            require_one_clock(lab, self.record())
            return
        with pytest.raises(TruthsDisagree, match=r"Prometheus' clock is .* s off ours, at most 0\.25 s allowed"):
            require_one_clock(lab, self.record())

    def test_clocks_are_compared_by_their_last_reading(self) -> None:
        lab: Any = SimpleNamespace(clocks={"Prometheus' clock": lambda: 0.0})

        require_one_clock(lab, self.record(("a", 1, 0.3), ("a", 2, 0.2)))
        with pytest.raises(TruthsDisagree, match=r"a is \+0\.300 s off ours"):
            require_one_clock(lab, self.record(("a", 1, 0.2), ("a", 2, 0.3)))


def window(*, good: int = 95, bad: int = 5, took_s: float = 0.5) -> Window:
    seen = [
        Sample(i / 8, i / 8, None, i / 8 + took_s, 0.0, 8, "ok" if i < good else "http_5xx", "model-1", "r")
        for i in range(good + bad)
    ]
    return windows(seen, [("in the whole trial", 0, 99)])[0]


class Told:
    """A Prometheus with requests by outcome and latencies as bound -> count."""

    def __init__(self, outcomes: Mapping[str, float], buckets: Mapping[str, float]) -> None:
        self._outcomes, self._buckets = outcomes, buckets
        self.asked: list[tuple[str, float]] = []

    def vector(self, query: str, at_unix_s: float) -> dict[frozenset[tuple[str, str]], float]:
        self.asked.append((query, at_unix_s))
        label, values = ("le", self._buckets) if "_bucket" in query else ("outcome", self._outcomes)
        return {frozenset({(label, name)}): value for name, value in values.items()}


BUCKETS = {"+Inf": 100.0, "0.5": 94.0, "1.0": 96.0, "0.25": 50.0, "2.0": 99.0, "0.125": 10.0}


def agree(whole: Window, told: Told, *, pushgateway: str | None = "pushgateway") -> list[str]:
    findings: list[str] = []
    lab: Any = SimpleNamespace(subject=SimpleNamespace(pushgateway=pushgateway), prometheus=told)
    record: Any = SimpleNamespace(finding=findings.append)
    require_agreement(lab, record, whole, 1012.0)
    return findings


class TestShares:
    def test_shares_that_are_the_same_agree(self) -> None:
        told = Told({"ok": 95.0, "http_5xx": 5.0}, BUCKETS)

        assert agree(window(), told) == []
        assert told.asked == [
            ('sum by (outcome) (llmchaos_client_requests_total{outcome!="cancelled"})', 1012.0),
            ("sum by (le) (llmchaos_client_request_duration_seconds_bucket)", 1012.0),
        ]

    @pytest.mark.parametrize("ok", [950.9, 949.1])
    def test_shares_agree_within_one_event_in_a_thousand(self, ok: float) -> None:
        assert agree(window(), Told({"ok": ok, "http_5xx": 1000 - ok}, BUCKETS)) == []

    def test_shares_agree_if_they_are_apart_by_exactly_the_tolerance(self) -> None:
        buckets = {"0.1": 0.0, "+Inf": 1000.0}

        assert agree(window(good=0), Told({"ok": 1.0, "http_5xx": 999.0}, buckets)) == []

    @pytest.mark.parametrize(("ok", "share"), [(951.1, "0.9511"), (948.9, "0.9489")])
    def test_shares_farther_apart_disagree(self, ok: float, share: str) -> None:
        with pytest.raises(TruthsDisagree, match=rf"whole trial: clients counted 0\.9500, Prometheus {share}"):
            agree(window(), Told({"ok": ok, "http_5xx": 1000 - ok}, BUCKETS))

    def test_shares_without_a_good_request_agree(self) -> None:
        buckets = {"0.1": 0.0, "+Inf": 5.0}

        assert agree(window(good=0), Told({"http_5xx": 5.0}, buckets)) == []

    @pytest.mark.parametrize("outcomes", [{}, {"ok": 0.0}])
    def test_shares_of_no_request_are_no_data(self, outcomes: dict[str, float]) -> None:
        with pytest.raises(NoData, match="Prometheus counted no request of the clients"):
            agree(window(), Told(outcomes, BUCKETS))

    def test_shares_of_one_request_are_data(self) -> None:
        assert agree(window(good=1, bad=0), Told({"ok": 1.0}, BUCKETS)) == []

    def test_shares_are_not_compared_without_a_pushgateway(self) -> None:
        told = Told({}, {})

        assert agree(window(), told, pushgateway=None) == []
        assert told.asked == []


class TestP95:
    """The histogram puts it above 0.5 s and up to 1 s. Its bounds are 0.125 to 2 s."""

    @pytest.mark.parametrize("took_s", [0.5, 0.75, 1.0])
    def test_a_p95_in_the_same_bucket_agrees(self, took_s: float) -> None:
        assert agree(window(took_s=took_s), Told({"ok": 95.0, "http_5xx": 5.0}, BUCKETS)) == []

    @pytest.mark.parametrize("took_s", [0.25, 0.49, 1.01, 2.0])
    def test_a_p95_in_the_next_bucket_is_a_finding(self, took_s: float) -> None:
        assert agree(window(took_s=took_s), Told({"ok": 95.0, "http_5xx": 5.0}, BUCKETS)) == [
            f"p95: clients measured {took_s:.3f} s, Prometheus' histogram 0.5 to 1 s"
        ]

    @pytest.mark.parametrize("took_s", [0.05, 0.24, 2.01, 5.0])
    def test_a_p95_farther_away_disagrees(self, took_s: float) -> None:
        with pytest.raises(TruthsDisagree, match=r"histogram 0\.5 to 1 s, more than one bucket apart"):
            agree(window(took_s=took_s), Told({"ok": 95.0, "http_5xx": 5.0}, BUCKETS))

    def test_a_p95_at_an_edge_is_in_the_bucket_below_it(self) -> None:
        """Of 100 requests, 95 took up to 0.5 s, which is enough for a p95."""
        buckets = {**BUCKETS, "0.5": 95.0}

        assert agree(window(took_s=0.3), Told({"ok": 95.0, "http_5xx": 5.0}, buckets)) == []

    def test_a_p95_in_the_first_bucket_or_the_last_has_one_neighbour(self) -> None:
        first, last = {"0.1": 100.0, "0.2": 100.0, "0.4": 100.0, "+Inf": 100.0}, {"0.1": 0.0, "0.2": 0.0, "+Inf": 100.0}

        def found(took_s: float, buckets: dict[str, float]) -> list[str]:
            return agree(window(took_s=took_s), Told({"ok": 95.0, "http_5xx": 5.0}, buckets))

        second = {"0.1": 0.0, "0.2": 100.0, "0.4": 100.0, "+Inf": 100.0}
        assert found(0.05, second) == ["p95: clients measured 0.050 s, Prometheus' histogram 0.1 to 0.2 s"]
        assert found(0.05, first) == []
        assert found(0.15, first) == ["p95: clients measured 0.150 s, Prometheus' histogram 0 to 0.1 s"]
        with pytest.raises(TruthsDisagree):
            found(0.25, first)
        assert found(9.0, last) == []
        assert found(0.15, last) == ["p95: clients measured 0.150 s, Prometheus' histogram 0.2 to inf s"]
        with pytest.raises(TruthsDisagree):
            found(0.05, last)

    def test_a_p95_of_too_few_requests_is_not_compared(self) -> None:
        assert agree(window(good=19, bad=0, took_s=9.0), Told({"ok": 19.0}, BUCKETS)) == []
        with pytest.raises(TruthsDisagree):
            agree(window(good=20, bad=0, took_s=9.0), Told({"ok": 20.0}, BUCKETS))


class TestScrapes:
    """Without a Pushgateway, no scrape has the last events when the load ends."""

    def lab(self, *ages_s: float, jobs: tuple[str, ...] = ()) -> Any:
        now = time.time()
        asked = iter(ages_s)

        def targets() -> tuple[Target, ...]:
            at = now - next(asked)
            return (
                Target(job="api", service="api", url="", up=True, last_error="", last_scrape_unix_s=at),
                Target(job="other", service="o", url="", up=True, last_error="", last_scrape_unix_s=now - 99),
            )

        return SimpleNamespace(
            subject=SimpleNamespace(scrape_jobs=jobs, brings_judge=False), prometheus=SimpleNamespace(targets=targets)
        )

    def test_scrapes_are_waited_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(agreement.time, "sleep", lambda _: None)
        lab = self.lab(0.5, 0.5, -0.5, jobs=("api",))

        assert agreement.await_scrapes(lab, time.time()) >= time.time() - 1
        with pytest.raises(StopIteration):
            lab.prometheus.targets()

    def test_scrapes_that_do_not_come_are_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(agreement, "SCRAPED_DEADLINE_S", -1.0)

        with pytest.raises(StaleData, match=r"has not scraped api, o within"):
            agreement.await_scrapes(self.lab(0.5), time.time())

    def target(self, job: str, service: str, at_unix_s: float) -> Target:
        return Target(job=job, service=service, url="", up=True, last_error="", last_scrape_unix_s=at_unix_s)

    def lab_of(self, *targets: Target, jobs: tuple[str, ...] = ()) -> Any:
        prometheus = SimpleNamespace(targets=lambda: targets)
        return SimpleNamespace(subject=SimpleNamespace(scrape_jobs=jobs, brings_judge=False), prometheus=prometheus)

    def test_scrapes_at_the_very_instant_count(self) -> None:
        before = time.time()

        assert before <= agreement.await_scrapes(self.lab_of(self.target("api", "api", 1000.0)), 1000.0) <= time.time()

    def test_scrapes_that_are_late_are_named_by_service_or_else_by_job(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(agreement, "SCRAPED_DEADLINE_S", -1.0)
        targets = [self.target("b", "", 999.0), self.target("a", "z", 999.0), self.target("c", "on-time", 1000.0)]

        with pytest.raises(StaleData, match=r"has not scraped b, z within -1 s of the load's end"):
            agreement.await_scrapes(self.lab_of(*targets), 1000.0)
        with pytest.raises(StaleData, match=r"has not scraped z within"):
            agreement.await_scrapes(self.lab_of(*targets, jobs=("a", "c")), 1000.0)

    def test_scrapes_are_queried_ten_times_a_second_until_the_deadline(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each look takes a second, so the sixth is past the deadline."""
        now = [0.0]
        looks: list[float] = []
        pauses: list[float] = []

        def targets() -> tuple[Target, ...]:
            looks.append(now[0])
            return (self.target("api", "api", 999.0),)

        def sleep(by_s: float) -> None:
            pauses.append(by_s)
            now[0] += 1.0

        monkeypatch.setattr(agreement, "time", SimpleNamespace(time=time.time, monotonic=lambda: now[0], sleep=sleep))
        lab = self.lab_of()
        lab.prometheus.targets = targets

        with pytest.raises(StaleData, match="has not scraped api within 5 s"):
            agreement.await_scrapes(lab, 1000.0)
        assert looks == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
        assert pauses == [0.1] * 6

    @pytest.mark.parametrize(
        ("metric", "own", "waits"),
        [
            ("llmchaos:requests_done_total", True, True),
            ("llmchaos:requests_done_total", False, False),
            ("web_requests_total", True, False),
        ],
    )
    def test_rules_that_record_what_an_objective_reads_have_seen_the_last_scrape(
        self, monkeypatch: pytest.MonkeyPatch, metric: str, own: bool, waits: bool
    ) -> None:
        monkeypatch.setattr(agreement.time, "sleep", lambda _: None)
        now = time.time()
        ages = iter([now - 1, now - 1, now + 9])
        lab = self.lab_of(self.target("web", "web", now))
        slo = Slo(name="one", objective=0.9, window_days=30, description="", good=f'{metric}{{code="2"}}', total=metric)
        lab.subject.brings_judge, lab.slos = own, [slo]

        def rules() -> list[Rule]:
            at = next(ages)
            return [
                Rule(name="llmchaos:requests_done_total", is_alert=False, error="", evaluated_unix_s=at),
                Rule(name="Other", is_alert=True, error="", evaluated_unix_s=0.0),
            ]

        lab.prometheus.rules = rules

        agreement.await_scrapes(lab, now)

        assert len([*ages]) == (0 if waits else 3)

    def test_a_rule_that_is_not_evaluated_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(agreement, "SCRAPED_DEADLINE_S", -1.0)
        metric = "llmchaos:requests_done_total"
        slo = Slo(name="one", objective=0.9, window_days=30, description="", good=f'{metric}{{a="b"}}', total=metric)
        lab = self.lab_of(self.target("web", "web", 1000.0))
        lab.subject.brings_judge, lab.slos = True, [slo]
        lab.prometheus.rules = lambda: [Rule(name=metric, is_alert=False, error="", evaluated_unix_s=1000.0)]

        with pytest.raises(StaleData, match=f"has not evaluated the rules of {metric} within -1 s of the load's end"):
            agreement.await_scrapes(lab, 1000.0)


class TestCoverage:
    """The span from 4 s before the end of the steady phase to 0.5 s ago."""

    def asked(
        self, monkeypatch: pytest.MonkeyPatch, *phases: tuple[str, float], jobs: Any = ("api",), **more: Any
    ) -> list[Any]:
        monkeypatch.setattr(agreement, "time", SimpleNamespace(time=lambda: 1040.0))
        found: list[Any] = []
        prometheus = SimpleNamespace(require_coverage=lambda *asked, **more: found.append((*asked, more["allow_down"])))
        subject = replace(lab_subject("sim", scales=True), scrape_jobs=jobs)
        lab: Any = SimpleNamespace(subject=subject, prometheus=prometheus)
        record: Any = SimpleNamespace(
            phases=[PhaseBounds(name="".join([*name]), from_s=0.0, to_s=to_s) for name, to_s in phases],
            unix_s=lambda at_s: 1000.0 + at_s,
            planned=Planned(**more),
        )
        require_coverage(lab, record, SimpleNamespace(victims=("model-1",)))  # type: ignore[arg-type]
        return found

    def test_coverage_is_required_of_the_scraped_jobs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        phases = (("a", 1.0), ("steady", 8.0), ("z", 30.0))

        down = ("model-1", "model-3", "model-4")  # the victim, and replicas that only an autoscaler starts
        assert self.asked(monkeypatch, *phases) == [(("api",), 1004.0, 1039.5, down)]
        assert self.asked(monkeypatch, ("steady", 3.0)) == [(("api",), 1000.0, 1039.5, down)]
        assert self.asked(monkeypatch, ("a", 9.0), ("z", 9.0)) == [(("api",), 1000.0, 1039.5, down)]

    def test_any_replica_may_rest_while_the_autoscaler_runs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ((_, _, _, down),) = self.asked(monkeypatch, ("steady", 8.0), autoscaler="slo()")

        assert set(down) == {"model-1", "model-2", "model-3", "model-4"}

    def test_coverage_is_not_required_without_scrape_jobs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.asked(monkeypatch, jobs=()) == []


def test_evidence_needs_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    for name in ("require_one_clock", "require_agreement", "require_coverage"):
        monkeypatch.setattr(agreement, name, lambda *_, name=name: asked.append(name))

    require_evidence(None, None, window(), 1012.0, None)  # type: ignore[arg-type]

    assert asked == ["require_one_clock", "require_agreement", "require_coverage"]
