"""The agreement of three counts of an SLO."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_llmchaos import faults
from pytest_llmchaos.errors import NoData, TruthsDisagree
from pytest_llmchaos.lab.injector import Injected
from pytest_llmchaos.model import Injection, RuntimeEvent, Sample
from pytest_llmchaos.prometheus.queries import Series
from pytest_llmchaos.slo.arithmetic import Slo, restarts_query
from pytest_llmchaos.slo.recorded import error_ratio_expression
from pytest_llmchaos.stats.columns import CODES, columns_of
from pytest_llmchaos.subject.lab import LatencyShare
from pytest_llmchaos.trial import comparison
from pytest_llmchaos.trial.comparison import Comparison
from pytest_llmchaos.trial.recorded_rules import require_recorded, strays
from pytest_llmchaos.trial.truths import UNSEEN, Seen, Sight, measure_of, miscount, oddity, seen_by_clients


def as_read(word: str) -> str:
    """Return a word that is not a literal here, as one read from a file or a server."""
    return "".join(list(word))


class TestSeen:
    def sample(self, due_s: float, outcome: Any = "ok", took_s: float = 0.1, first_s: float | None = None) -> Sample:
        return Sample(due_s, due_s, first_s, due_s + took_s, 0.0, 8, outcome, "model-1", "r")

    def seen(self, measure: Any, bound_s: float | None, sight: Sight | None, *samples: Sample) -> Seen:
        return seen_by_clients(columns_of(samples), as_read(measure), bound_s, sight)  # type: ignore[arg-type]

    def test_the_clients_count_is_exact_where_the_clients_counted_themselves(self) -> None:
        samples = [self.sample(0), self.sample(1, "refused"), self.sample(2, "cancelled"), self.sample(2, "left")]
        samples.append(self.sample(3, took_s=3))

        assert self.seen("availability", None, None, *samples) == Seen(good=2, total=3)
        assert self.seen("e2e", 2.0, None, *samples) == Seen(good=1, total=3)
        assert self.seen("e2e", 3.0, None, *samples) == Seen(good=2, total=3)
        assert self.seen("e2e", None, None, *samples) == Seen(good=2, total=3)

    def test_the_clients_count_uses_the_first_token_or_else_the_whole_answer(self) -> None:
        early, late = self.sample(0, took_s=9, first_s=0.0), self.sample(1, took_s=9, first_s=4.0)
        unseen, quick = self.sample(2, took_s=9), self.sample(3, took_s=1)

        assert self.seen("ttft", 2.0, None, early, late, unseen, quick).good == 2
        assert self.seen("e2e", 2.0, None, early, late, unseen, quick).good == 1

    def test_the_clients_count_skips_requests_that_count_nowhere(self) -> None:
        ended = self.sample(9, took_s=2)
        samples = [self.sample(0, "cancelled"), self.sample(1, "left"), ended, self.sample(2), self.sample(3, "cut")]

        assert self.seen("availability", None, Sight(until_s=10), *samples) == Seen(
            good=1, total=2, unsure_good=1, unsure_bad=1
        )
        assert self.seen("availability", None, None, *samples) == Seen(good=2, total=3)

    @pytest.mark.parametrize("short", ["outcomes", "due_s", "first_s", "end_s"])
    def test_the_clients_count_needs_whole_columns(self, short: str) -> None:
        columns = columns_of([self.sample(0), self.sample(1)])
        getattr(columns, short).pop()

        with pytest.raises(ValueError, match=r"shorter|longer"):
            seen_by_clients(columns, "availability", None, None)

    @pytest.mark.parametrize("outcome", ["refused", "timeout", "corrupted"])
    def test_the_clients_count_leaves_out_what_no_service_can_count(self, outcome: Any) -> None:
        assert self.seen("availability", None, Sight(), self.sample(0, outcome)).unsure_bad == 1

    @pytest.mark.parametrize(
        "outcome", ["http_5xx", "http_429", "truncated", "inband_error", "stalled", "cut", "unfinished"]
    )
    def test_the_clients_count_holds_a_service_to_what_it_can_count(self, outcome: Any) -> None:
        assert self.seen("availability", None, Sight(), self.sample(0, outcome)) == Seen(good=0, total=1)

    @pytest.mark.parametrize(("due_s", "unsure"), [(4.8, 0), (4.9, 1), (4.95, 1), (6.0, 1), (7.0, 1), (7.1, 0)])
    def test_the_clients_count_leaves_out_what_was_under_way_while_the_service_was_dead(
        self, due_s: float, unsure: int
    ) -> None:
        seen = self.seen("availability", None, Sight(blind=[(5.0, 7.0)]), self.sample(due_s), self.sample(due_s, "cut"))

        assert (seen.unsure_good, seen.unsure_bad) == (unsure, unsure)

    def test_the_clients_count_leaves_out_latencies_near_the_bound(self) -> None:
        samples = [self.sample(0, took_s=took_s) for took_s in (1.4, 1.6, 2.4, 2.6)]

        assert self.seen("e2e", 2.0, Sight(), *samples) == Seen(good=2, total=4, unsure_good=1, unsure_bad=1)
        beside = [self.sample(0, took_s=took_s) for took_s in (1.5, 2.5)]
        assert self.seen("e2e", 2.0, Sight(), *beside) == Seen(good=1, total=2, unsure_good=1, unsure_bad=1)

    def test_the_clients_count_leaves_out_no_latency_if_only_answers_are_counted(self) -> None:
        samples = [self.sample(0, took_s=1.9), self.sample(0, "cut", took_s=1.9)]

        assert self.seen("availability", 2.0, Sight(counts_failures=False), *samples) == Seen(good=1, total=2)
        assert self.seen("e2e", 2.0, Sight(), *samples) == Seen(good=1, total=2, unsure_good=1)

    def test_the_clients_count_leaves_out_first_tokens_of_answers_that_failed_later(self) -> None:
        begun, mute = self.sample(0, "cut", 3.0, first_s=0.2), self.sample(0, "cut", 3.0)

        assert self.seen("ttft", 2.0, Sight(), begun, mute) == Seen(good=0, total=2, unsure_bad=1)
        assert self.seen("e2e", 2.0, Sight(), begun, mute).unsure_bad == 0
        assert self.seen("e2e", 2.0, Sight(counts_failures=False), begun, mute).unsure_bad == 2

    def test_the_clients_count_leaves_out_what_was_given_up_when_the_load_ended(self) -> None:
        assert self.seen("availability", None, Sight(known_s=3.0), self.sample(2, "stalled", 1.0)).unsure_bad == 1
        assert self.seen("availability", None, Sight(known_s=3.1), self.sample(2, "stalled", 1.0)).unsure_bad == 0
        assert self.seen("availability", None, Sight(known_s=3.0), self.sample(2, took_s=1.0)).unsure_good == 0

    def test_the_clients_count_leaves_out_what_impatient_clients_left_however_the_service_counts_it(self) -> None:
        samples = [self.sample(0), self.sample(1, "http_5xx"), *(self.sample(i, "left") for i in range(2, 7))]

        assert self.seen("availability", None, None, *samples) == Seen(good=1, total=2)
        assert self.seen("availability", None, Sight(), *samples) == Seen(good=1, total=2, unsure_good=1, unsure_bad=1)
        more = [*samples[:3], *(self.sample(i) for i in range(3)), *(self.sample(i, "refused") for i in range(3))]
        assert self.seen("availability", None, Sight(), *more) == Seen(good=4, total=8, unsure_good=1, unsure_bad=4)

    def test_the_clients_count_adds_what_was_left_to_what_has_another_explanation(self) -> None:
        samples = [*(self.sample(i) for i in range(4)), *(self.sample(i, "cut") for i in range(4))]
        samples += [self.sample(3, "left")]

        assert self.seen("availability", None, Sight(blind=[(0.0, 0.5)]), *samples) == Seen(
            good=4, total=8, unsure_good=2, unsure_bad=2
        )

    def test_the_clients_count_ends_where_the_sight_does(self) -> None:
        assert self.seen("availability", None, Sight(until_s=3.0), self.sample(2), self.sample(2.95)).total == 1
        assert self.seen("availability", None, Sight(until_s=3.0), self.sample(2, took_s=1.0)).total == 1

    def test_the_clients_count_explains_a_share_between_the_least_and_the_most(self) -> None:
        seen = Seen(good=60, total=100, unsure_good=5, unsure_bad=7)

        assert [seen.explains(share, 1.0) for share in (0.539, 0.54, 0.6, 0.68, 0.681)] == [
            *(False, True, True, True, False)
        ]
        assert seen.share == 0.6


class TestMiscount:
    SEEN = Seen(good=60, total=100, unsure_good=1, unsure_bad=3)

    @pytest.mark.parametrize("counted", [93.0, 100.0, 108.0])
    def test_a_miscount_within_the_explained_difference_is_ignored(self, counted: float) -> None:
        assert miscount(self.SEEN, 5, counted) is None

    @pytest.mark.parametrize("counted", [92.9, 108.1])
    def test_a_miscount_is_named_with_its_numbers(self, counted: float) -> None:
        assert miscount(self.SEEN, 5, counted) == (
            f"clients sent 100 requests in the whole trial, the service counted {counted:g}: its counters are odd "
            "(9 requests have an explanation, 3.0 are slack)"
        )


class TestOddity:
    ALL = Seen(good=60, total=100)

    @pytest.mark.parametrize(
        ("slo", "service", "odd"),
        [
            (0.6, 1.0, "the service's own counters are odd"),
            (1.0, 0.6, "Prometheus' SLO is odd"),
            (1.0, 1.0, "the clients' samples are odd"),
            (0.8, 1.0, "no two of them agree"),
            (1.0, None, "one of them is wrong, and the service has no counters that show which"),
        ],
    )
    def test_an_odd_truth_is_named(self, slo: float, service: float | None, odd: str) -> None:
        said = oddity("availability", self.ALL, replace(self.ALL), slo, service)

        assert said is not None
        assert odd in said

    @pytest.mark.parametrize(("slo", "service"), [(0.6, 0.6), (0.6009, 0.6), (0.6, 0.629), (0.6, 0.571), (0.6, None)])
    def test_a_difference_within_the_slack_is_not_odd(self, slo: float, service: float | None) -> None:
        assert oddity("availability", self.ALL, replace(self.ALL), slo, service) is None

    @pytest.mark.parametrize(
        ("slo", "service", "odd"),
        [(0.602, 0.6, "SLO is odd"), (0.6, 0.631, "counters are odd"), (0.6, 0.569, "counters are odd")],
    )
    def test_an_odd_truth_is_named_beyond_the_slack(self, slo: float, service: float, odd: str) -> None:
        assert odd in str(oddity("availability", self.ALL, replace(self.ALL), slo, service))

    @pytest.mark.parametrize(("slo", "is_odd"), [(0.629, False), (0.631, True), (0.571, False), (0.569, True)])
    def test_an_odd_truth_of_an_slo_on_the_services_own_counters_has_their_slack(
        self, slo: float, is_odd: bool
    ) -> None:
        assert (oddity("availability", self.ALL, self.ALL, slo, None) is not None) is is_odd

    def test_an_odd_truth_is_named_with_all_its_numbers(self) -> None:
        unsure = Seen(good=60, total=200, unsure_good=2, unsure_bad=3)

        assert oddity("availability", self.ALL, unsure, 0.6, 1.0) == (
            "availability of the whole trial: clients counted 0.6000 (60 of 100), Prometheus' SLO 0.6000, "
            "the service's own counters 1.0000: the service's own counters are odd "
            "(5 of 200 requests have an explanation, 5.0 are slack)"
        )
        assert oddity("availability", self.ALL, unsure, 1.0, None) == (
            "availability of the whole trial: clients counted 0.6000 (60 of 100), Prometheus' SLO 1.0000: "
            "one of them is wrong, and the service has no counters that show which"
        )

    @pytest.mark.parametrize(("service", "odd"), [(0.8, "the clients' samples are odd"), (0.7, "no two of them agree")])
    def test_odd_clients_are_found_by_the_others_view_of_their_samples(self, service: float, odd: str) -> None:
        """The SLO has 40 more good requests, 10 of them unseen by the service."""
        exact, sighted = Seen(good=50, total=100), Seen(good=40, total=100)

        assert odd in str(oddity("availability", exact, sighted, 0.9, service))

    def test_an_explained_difference_is_not_odd(self) -> None:
        unsure = Seen(good=60, total=100, unsure_bad=40)

        assert oddity("availability", self.ALL, unsure, 0.6, 1.0) is None


@pytest.mark.parametrize(
    ("name", "metric", "threshold_s", "measure"),
    [
        ("availability", "requests_total", None, "availability"),
        ("latency-p95", "llmchaos_client_request_duration_seconds_bucket", 2.56, "e2e"),
        ("slow", "vllm:e2e_request_latency_seconds_bucket", 2.5, "e2e"),
        ("ttft-p95", "vllm:time_to_first_token_seconds_bucket", 2.0, "ttft"),
        ("itl", "vllm:inter_token_latency_seconds_bucket", 0.1, None),
        ("queue", "vllm:request_queue_time_seconds_bucket", 0.1, None),
        ("goodput", "llmchaos_client_good_total", None, None),
        ("ttft", "time_to_first_token_seconds_count", None, None),
        ("aaa", "requests_total", None, None),
        ("zzz", "requests_total", None, None),
        ("mixed", "e2e_request_latency_after_ttft_seconds_bucket", 2.0, "ttft"),
    ],
)
def test_what_clients_can_judge(name: str, metric: str, threshold_s: float | None, measure: Any) -> None:
    slo = Slo(
        name=as_read(name),
        objective=0.9,
        window_days=30,
        description="",
        good=f'{metric}{{le="1"}}',
        total="all_total",
        threshold_s=threshold_s,
    )

    assert measure_of(slo) == measure


@pytest.mark.parametrize(
    ("clients", "threshold_s", "measure"),
    [("availability", None, "availability"), ("ttft", 2.0, "ttft"), ("e2e", 2.0, "e2e"), ("none", None, None)],
)
@pytest.mark.parametrize("name", ["availability", "whole-answers"])
def test_an_slo_may_name_its_measure_of_clients(
    name: str, clients: Any, threshold_s: float | None, measure: Any
) -> None:
    slo = Slo(
        name=name,
        objective=0.9,
        window_days=30,
        description="",
        good="whole_total",
        total="all_total",
        threshold_s=threshold_s,
        clients=clients,
    )

    assert measure_of(slo) == measure


def _ended(outcome: Any) -> Sample:
    return Sample(1.0, 1.0, 1.1, 1.5, 0.1, 3, outcome, "", "r")


class TestBlindness:
    """Dead time of a service, by the runtime's events or else by its fault."""

    def spells(
        self, *events: tuple[Any, ...], hit: Any = None, reverted_s: float | None = None, victim: str = "api"
    ) -> list[Any]:
        injected = Injected()
        injected.reverted_unix_s = None if reverted_s is None else 1000.0 + reverted_s
        if hit is not None:
            act = Injection(after_s=0.0, fault=hit.primitive, victim=as_read(victim))
            injected.proven = [(act, 1006.0), (act, 1005.0)]
        comparison = Comparison(
            lab=None,  # type: ignore[arg-type]
            record=SimpleNamespace(at_s=lambda unix_s: unix_s - 1000.0),  # type: ignore[arg-type]
            samples=None,  # type: ignore[arg-type]
            injected=injected,
            events=[
                RuntimeEvent(at_unix_s=1000.0 + at_s, service=as_read(service), action=as_read(action))
                for at_s, action, service in ((*event, "api")[:3] for event in events)
            ],
            counted_unix_s=1030.0,
        )
        return [(round(a, 1), round(b, 1)) for a, b in comparison._blind_spells("api")]

    def test_blindness_lasts_from_each_death_to_the_next_start(self) -> None:
        events = [(5.0, "kill"), (5.0, "die"), (7.0, "start"), (9.0, "die"), (9.5, "start"), (12.0, "start")]

        assert self.spells(*events) == [(3.8, 8.2), (7.8, 10.7)]

    def test_blindness_begins_with_the_first_of_two_deaths(self) -> None:
        assert self.spells((5.0, "die"), (6.0, "die"), (7.0, "start")) == [(3.8, 8.2)]

    @pytest.mark.parametrize("other", ["aaa", "zzz"])
    def test_blindness_concerns_its_own_service_only(self, other: str) -> None:
        events = [(4.0, "die", other), (5.0, "die"), (6.0, "start", other), (7.0, "start"), (8.0, "die", other)]

        assert self.spells(*events) == [(3.8, 8.2)]
        assert self.spells(hit=faults.partition("api"), victim=other) == []

    def test_blindness_is_read_from_events_if_there_are_any(self) -> None:
        assert self.spells((5.0, "die"), (7.0, "start"), hit=faults.partition("api"), reverted_s=20.0) == [(3.8, 8.2)]

    def test_blindness_lasts_while_it_is_frozen(self) -> None:
        assert self.spells((5.0, "pause"), (7.0, "unpause")) == [(3.8, 8.2)]

    def test_blindness_does_not_end_without_a_new_start(self) -> None:
        assert self.spells((5.0, "die")) == [(3.8, float("inf"))]

    @pytest.mark.parametrize(("reverted_s", "until_s"), [(9.0, 10.2), (None, float("inf"))])
    def test_blindness_lasts_as_long_as_a_fault_without_such_events(
        self, reverted_s: float | None, until_s: float
    ) -> None:
        hit = faults.partition("api")

        assert self.spells(hit=hit, reverted_s=reverted_s) == [(3.8, until_s)]

    @pytest.mark.parametrize(
        ("hit", "is_unseen"),
        [
            (faults.truncate("api", how="false_stop"), True),
            (faults.empty_answer("api"), True),
            (faults.truncate("api", how="clean"), False),
            (faults.stall("api"), False),
            (faults.kill("api"), False),
        ],
        ids=lambda value: str(value) + str(getattr(value, "strength", {}).get("how", "")) if value else "",
    )
    def test_a_short_answer_that_looks_whole_is_unseen_by_the_service(self, hit: Any, is_unseen: bool) -> None:
        injected = Injected()
        injected.proven = [(Injection(after_s=0.0, fault=hit.primitive, victim="model-1"), 1005.0)]
        comparison = Comparison(
            lab=None,  # type: ignore[arg-type]
            record=None,  # type: ignore[arg-type]
            samples=SimpleNamespace(columns=SimpleNamespace(due_s=[])),  # type: ignore[arg-type]
            injected=injected,
            events=[],
            counted_unix_s=1030.0,
        )

        sight = comparison._sight({"api"}, counts_failures=True)

        assert sight.unseen - UNSEEN == ({CODES["truncated"]} if is_unseen else set())

    def test_an_unseen_outcome_explains_what_a_service_counts_as_good(self) -> None:
        columns = columns_of([_ended("ok")] * 7 + [_ended("truncated")] * 3)
        for unseen, explains in ((UNSEEN, False), (UNSEEN | {CODES["truncated"]}, True)):
            seen = seen_by_clients(columns, "availability", None, Sight(unseen=unseen))
            assert seen.explains(1.0, 1.0) is explains

    def test_blindness_excludes_a_flooded_service_and_one_that_was_not_hit(self) -> None:
        assert self.spells(hit=faults.overload("api", times=2), reverted_s=9.0) == []
        assert self.spells() == []


OK, ALL = 'llmchaos_client_requests_total{outcome="ok"}', "llmchaos_client_requests_total"
OWN_OK, OWN_ALL = 'own_requests_total{outcome="ok"}', "own_requests_total"


@dataclass
class Counters:
    """A Prometheus with the increases of counters since the load's start."""

    moved: Mapping[str, float] = field(default_factory=dict)
    resets: Mapping[str, float] = field(default_factory=dict)
    answers: Mapping[str, float] = field(default_factory=dict)
    asked: list[tuple[str, float]] = field(default_factory=list)
    # Counts by edge of the service's histogram, which lacks the bound.
    edges: Mapping[str, float] = field(default_factory=dict)

    def vector(self, query: str, at_unix_s: float, *, may_be_empty: bool) -> dict[frozenset[tuple[str, str]], float]:
        assert may_be_empty
        if query.startswith("count("):
            return {frozenset(): 1.0} if self.edges and "own_" in query else {}
        since = at_unix_s > 1000.0  # the load began at 1000
        return {frozenset({("le", le), ("job", "api")}): count * since for le, count in self.edges.items()}

    def value(self, query: str, at_unix_s: float) -> float:
        self.asked.append((query, at_unix_s))
        for selector, by in self.moved.items():
            if query.lstrip("(").startswith(f"sum(resets({selector}["):
                return self.resets.get(selector, 0.0)
            if query.lstrip("(").startswith((f"sum({selector}) - ", f"sum({selector}) or vector(0)) - ")):
                return by
        if query not in self.answers:
            raise NoData(query)
        return self.answers[query]


class TestComparison:
    """A load of 100 requests in 10 s, of which the last 10 failed with 5xx."""

    PUSHED = Slo(name="availability", objective=0.9, window_days=30, description="", good=OK, total=ALL)
    OWN = replace(PUSHED, good=OWN_OK, total=OWN_ALL)
    TTFT = Slo(
        name="ttft-p95",
        objective=0.9,
        window_days=30,
        description="",
        good='llmchaos_client_time_to_first_token_seconds_bucket{le="2.5"}',
        total="llmchaos_client_time_to_first_token_seconds_count",
        threshold_s=2.5,
    )

    def comparison(self, prometheus: Counters, *slos: Slo, **more: Any) -> Comparison:
        samples = more.pop("samples", None) or [
            Sample(i / 10, i / 10, i / 10 + 0.02, i / 10 + 0.05, 0.0, 8, "ok" if i < 90 else "http_5xx", "model-1", "r")
            for i in range(100)
        ]
        injected = Injected()
        injected.acts = [Injection(after_s=0.0, fault=faults.kill("model-1").primitive, victim="model-1")]
        injected.proven = [
            (Injection(after_s=0.0, fault=fault, victim=victim), 1000.0 + at_s)
            for at_s, fault, victim in more.pop("proven", ())
        ]
        subject = {"api": "api", "attempts_counters": None, "availability_query": None, "latency_shares": ()}
        self.findings: list[str] = []
        return Comparison(
            lab=SimpleNamespace(slos=slos, subject=SimpleNamespace(**{**subject, **more}), prometheus=prometheus),  # type: ignore[arg-type]
            record=SimpleNamespace(  # type: ignore[arg-type]
                at_s=lambda unix_s: unix_s - 1000.0, anchor_unix_s=1000.0, finding=self.findings.append
            ),
            samples=SimpleNamespace(columns=columns_of(samples)),  # type: ignore[arg-type]
            injected=injected,
            events=[
                RuntimeEvent(at_unix_s=1000.0 + at_s, service=service, action=action)
                for at_s, service, action in more.pop("events", ())
            ],
            counted_unix_s=1012.6,
        )

    def pushed(self, share: float = 0.9, **more: Any) -> Counters:
        return Counters(answers={f"sum({OK}) / sum({ALL})": share}, **more)

    def test_a_comparison_of_truths_that_agree_passes(self) -> None:
        self.comparison(self.pushed(), self.PUSHED).require()
        self.comparison(Counters({OWN_OK: 90, OWN_ALL: 100}), self.OWN).require()

    def test_a_comparison_looks_at_each_service_level_that_clients_can_judge(self) -> None:
        goodput = replace(self.PUSHED, name="goodput")

        with pytest.raises(TruthsDisagree, match=r"Prometheus' SLO 0\.9100: one of them is wrong"):
            self.comparison(self.pushed(0.91), goodput, self.PUSHED).require()

    def test_a_comparison_is_exact_where_clients_pushed_and_has_slack_where_the_service_counts(self) -> None:
        """The last request was still open when the load ended."""
        self.comparison(Counters({OWN_OK: 94, OWN_ALL: 100}), self.OWN).require()
        with pytest.raises(TruthsDisagree, match=r"SLO 0\.9500: one of them"):
            self.comparison(Counters({OWN_OK: 95, OWN_ALL: 100}), self.OWN).require()
        with pytest.raises(TruthsDisagree, match=r"SLO 0\.9020: one of them"):
            self.comparison(self.pushed(0.902), self.PUSHED).require()

    def test_a_comparison_of_an_slo_of_bad_events_is_with_the_rest_of_the_total(self) -> None:
        of_failures = replace(self.OWN, good="", bad="app_failed_total")
        self.comparison(Counters({"app_failed_total": 10, OWN_ALL: 100}), of_failures).require()

        with pytest.raises(TruthsDisagree, match=r"SLO 0\.9800: one of them is wrong"):
            self.comparison(Counters({"app_failed_total": 2, OWN_ALL: 100}), of_failures).require()

    def test_a_comparison_of_bad_events_that_clients_pushed_is_exact(self) -> None:
        failed = 'llmchaos_client_requests_total{outcome!="ok"}'
        of_failures = replace(self.PUSHED, good="", bad=failed)
        query = f"(sum({ALL}) - (sum({failed}) or vector(0))) / sum({ALL})"
        self.comparison(Counters(answers={query: 0.9}), of_failures).require()

        with pytest.raises(TruthsDisagree, match=r"SLO 0\.9020: one of them"):
            self.comparison(Counters(answers={query: 0.902}), of_failures).require()

    @pytest.mark.parametrize("selectors", [{"good": OWN_OK}, {"total": OWN_ALL}])
    def test_a_comparison_of_an_slo_that_clients_pushed_in_part_counts_both_parts(self, selectors: Any) -> None:
        half = replace(self.PUSHED, **selectors)
        counters = Counters({OWN_OK: 100, OWN_ALL: 100, OK: 100, ALL: 100})

        with pytest.raises(TruthsDisagree, match=r"SLO 1\.0000: one of them is wrong"):
            self.comparison(counters, half).require()

    def test_a_comparison_queries_exactly_the_time_of_the_load(self) -> None:
        counters = Counters({OWN_OK: 90, OWN_ALL: 100})
        self.comparison(counters, self.OWN).require()

        resets, moved = counters.asked[:2]
        assert resets == (
            f"sum(resets({OWN_OK}[12600ms])) + {restarts_query(OWN_OK, '12600ms')}",
            1012.6,
        )
        assert moved == (f"sum({OWN_OK}) - (sum({OWN_OK} offset 12600ms) or vector(0))", 1012.6)

    @pytest.mark.parametrize("reset", [OWN_OK, OWN_ALL])
    def test_a_comparison_of_a_counter_that_restarted_passes(self, reset: str) -> None:
        self.comparison(Counters({OWN_OK: 50, OWN_ALL: 100}, resets={reset: 1.0}), self.OWN).require()

    def test_a_comparison_without_an_answer_of_prometheus_passes(self) -> None:
        self.comparison(Counters(), self.OWN, self.PUSHED).require()
        self.comparison(Counters({OWN_OK: 0, OWN_ALL: 0}), self.OWN).require()

    def test_a_comparison_of_a_load_without_known_requests_passes(self) -> None:
        cut = [Sample(0.0, 0.0, None, 1.0, 0.0, 0, "cancelled", "", "r")]

        self.comparison(self.pushed(0.5), self.PUSHED, samples=cut).require()

    def test_a_comparison_leaves_out_what_a_dead_victim_could_not_count(self) -> None:
        """The clients' own counters have every request, even if services were dead."""
        events = [(8.0, "model-1", "die"), (9.9, "model-1", "start")]
        counters = Counters({OWN_OK: 100, OWN_ALL: 100})

        self.comparison(counters, self.OWN, events=events).require()
        with pytest.raises(TruthsDisagree, match=r"1\.0000"):
            self.comparison(counters, self.OWN, events=[(8.0, "model-2", "die")]).require()
        with pytest.raises(TruthsDisagree, match=r"1\.0000"):
            self.comparison(self.pushed(1.0), self.PUSHED, events=events).require()

    def by_service(self, share: float, **more: Any) -> Comparison:
        """The SLO has the clients' share, the service's counters have this one."""
        counters = self.pushed(more.pop("slo", 0.9))
        counters.answers = {**counters.answers, f"own[{more.pop('span', '15s')}]": share}
        return self.comparison(counters, self.PUSHED, availability_query="own[$span]", **more)

    def test_a_comparison_of_the_services_own_counters_begins_before_the_load(self) -> None:
        self.by_service(0.94).require()
        with pytest.raises(TruthsDisagree, match=r"own counters 0\.9500: the service's own counters are odd"):
            self.by_service(0.95).require()

    def test_a_comparison_reaches_back_by_scrapes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(comparison, "SCRAPE_S", 3.0)

        with pytest.raises(TruthsDisagree, match=r"own counters 1\.0000"):
            self.by_service(1.0, span="18s").require()

    def test_a_comparison_of_missing_own_counters_is_a_finding(self) -> None:
        self.by_service(1.0, span="another").require()

        assert self.findings == ["availability: the service's own counters cannot be compared: own[15s]"]

    def test_a_comparison_leaves_out_what_the_dead_service_could_not_count(self) -> None:
        self.by_service(1.0, events=[(8.0, "api", "die"), (9.9, "api", "start")]).require()
        with pytest.raises(TruthsDisagree, match=r"own counters 1\.0000"):
            self.by_service(1.0, events=[(8.0, "model-1", "die"), (9.9, "model-1", "start")]).require()

    def test_a_comparison_of_a_flooded_service_ends_with_the_scrape_before_the_flood(self) -> None:
        flood = faults.overload("api", times=2).primitive
        asked = []
        for at_s, share in ((9.0, 1.0), (10.0, 0.95)):
            found = self.by_service(share, span=f"{11 if at_s == 9.0 else 12}s", proven=[(at_s, flood, "api")])
            found.require()
            asked.append(found.lab.prometheus.asked[-1][1])  # type: ignore[attr-defined]

        assert asked == [1009.0, 1010.0]

        with pytest.raises(TruthsDisagree, match=r"own counters 0\.8000"):
            self.by_service(0.8, span="11s", proven=[(9.0, flood, "api")]).require()

    def test_a_comparison_of_a_flooded_service_is_blind_between_that_scrape_and_the_flood(self) -> None:
        flood = (9.0, faults.overload("api", times=2).primitive, "api")
        sight = self.comparison(Counters(), proven=[flood])._sight({"api"}, counts_failures=False)

        assert (sight.until_s, sight.known_s, sight.counts_failures) == (9.0, 9.9, False)
        assert sight.blind == [(pytest.approx(7.8), 9.0)]

    def test_a_comparison_of_no_service_is_blind_without_a_reason(self) -> None:
        sight = self.comparison(Counters())._sight({"api", "model-1"}, counts_failures=True)

        assert sight == Sight(blind=[], known_s=9.9)

    def test_a_comparison_ends_with_the_first_of_two_floods(self) -> None:
        flood = faults.overload("api", times=2).primitive
        two = [(9.5, flood, "api"), (9.0, flood, "api"), (3.0, faults.kill("api").primitive, "model-2")]

        with pytest.raises(TruthsDisagree, match=r"own counters 0\.8000"):
            self.by_service(0.8, span="11s", proven=two).require()

    def test_a_comparison_of_a_flood_that_began_with_the_load_passes(self) -> None:
        flood = faults.overload("api", times=2).primitive

        self.by_service(0.5, span="2s", proven=[(0.05, flood, "api")], slo=0.5).require()

    def timed(self, good: float, share: LatencyShare | None = None, **more: Any) -> Comparison:
        """Clients judged first tokens, and the service has a histogram of its own."""
        own = share or LatencyShare(measure=as_read("ttft"), good='own_bucket{le=~"$le"}', total="own_count")  # type: ignore[arg-type]
        said = {f"sum({self.TTFT.good}) / sum({self.TTFT.total})": more.pop("slo", 0.9)}
        counters = Counters({'own_bucket{le=~"2[.]5"}': good, "own_count": 100}, answers=said)
        return self.comparison(counters, self.TTFT, latency_shares=(own,), **more)

    def test_a_comparison_of_latencies_is_with_the_services_own_histogram(self) -> None:
        self.timed(90).require()
        with pytest.raises(TruthsDisagree, match=r"own counters 0\.5000: the service's own counters are odd"):
            self.timed(50).require()

    @pytest.mark.parametrize(("within_2_s", "within_3_s", "odd"), [(60, 95, False), (92, 95, False), (10, 70, True)])
    def test_a_comparison_of_latencies_is_with_the_edges_next_to_a_bound_between_them(
        self, within_2_s: float, within_3_s: float, odd: bool
    ) -> None:
        """Clients counted 90 within 2.5 s, with a slack of 3."""
        service = Counters(
            {'own_bucket{le="+Inf"}': 100, "own_count": 100},
            edges={"2": within_2_s, "3": within_3_s, "+Inf": 100},
        )
        bounded = replace(self.TTFT, good='own_bucket{le="2.5"}', total="own_count", clients="ttft")

        comparison = self.comparison(service, bounded)

        if not odd:
            comparison.require()
            return
        with pytest.raises(TruthsDisagree, match=rf"SLO 0\.{within_2_s}00 to 0\.{within_3_s}00: one of them is wrong"):
            comparison.require()

    @pytest.mark.parametrize(("within_2_s", "within_3_s", "odd"), [(60, 95, False), (10, 70, True)])
    def test_a_comparison_of_the_services_histogram_is_with_its_edges(
        self, within_2_s: float, within_3_s: float, odd: bool
    ) -> None:
        """The clients' own histogram has other edges than the service's."""
        own = LatencyShare(measure="ttft", good='own_bucket{le=~"$le"}', total="own_count")
        edges = {"2": within_2_s, "3": within_3_s, "+Inf": 100}
        pushed = f"sum({self.TTFT.good}) / sum({self.TTFT.total})"
        counters = Counters({'own_bucket{le="+Inf"}': 100, "own_count": 100}, answers={pushed: 0.9}, edges=edges)

        comparison = self.comparison(counters, self.TTFT, latency_shares=(own,))

        if not odd:
            comparison.require()
            return
        with pytest.raises(TruthsDisagree, match=r"own counters 0\.1000 to 0\.7000"):
            comparison.require()

    def test_a_comparison_of_latencies_leaves_out_edges_of_a_histogram_that_restarted(self) -> None:
        every = 'own_bucket{le="+Inf"}'
        service = Counters({every: 100, "own_count": 100}, resets={every: 1}, edges={"2": 10, "3": 20, "+Inf": 100})

        self.comparison(
            service, replace(self.TTFT, good='own_bucket{le="2.5"}', total="own_count", clients="ttft")
        ).require()

    @pytest.mark.parametrize("measure", ["availability", "e2e", "zzz"])
    def test_a_comparison_of_latencies_is_with_no_histogram_of_something_else(self, measure: Any) -> None:
        other = LatencyShare(measure=measure, good='own_bucket{le=~"$le"}', total="own_count")

        self.timed(50, other).require()

    def test_a_comparison_of_latencies_leaves_out_a_histogram_that_died(self) -> None:
        self.timed(50, events=[(3.0, "api", "die"), (3.5, "api", "start")]).require()
        with pytest.raises(
            TruthsDisagree, match="one of them is wrong, and the service has no counters that show which"
        ):
            self.timed(50, events=[(3.0, "api", "die"), (3.5, "api", "start")], slo=0.5).require()

    def test_a_comparison_of_latencies_does_not_use_the_query_of_availability(self) -> None:
        with pytest.raises(TruthsDisagree, match=r"own counters 0\.5000"):
            self.timed(50, availability_query="own[$span]").require()

    def counted(self, requests: float, **more: Any) -> Comparison:
        return self.comparison(Counters({"taken": requests}), attempts_counters=("sent", "taken"), **more)

    def test_a_comparison_of_requests_is_with_what_the_service_took(self) -> None:
        self.counted(100).require()
        self.counted(103).require()
        for odd in (95, 104, 200):
            with pytest.raises(TruthsDisagree, match=f"clients sent 100 requests .* counted {odd}: its counters are"):
                self.counted(odd).require()

    def test_a_comparison_of_requests_allows_for_those_that_were_given_up(self) -> None:
        samples = [
            *(Sample(i / 10, i / 10, None, i / 10 + 0.1, 0.0, 8, "ok", "model-1", "r") for i in range(90)),
            *(Sample(1.0, 1.0, None, 2.0, 0.0, 8, "left", "model-1", "r") for _ in range(6)),
            *(Sample(9.0, 9.0, None, 9.5, 0.0, 8, "cancelled", "model-1", "r") for _ in range(4)),
        ]

        self.counted(102, samples=samples).require()
        with pytest.raises(TruthsDisagree, match="clients sent 90 requests"):
            self.counted(103, samples=samples).require()

    def test_a_comparison_of_requests_needs_a_live_service_that_counts(self) -> None:
        self.counted(200, events=[(3.0, "api", "die"), (3.5, "api", "start")]).require()
        self.comparison(Counters(), attempts_counters=("sent", "taken")).require()
        self.comparison(Counters({"taken": 200})).require()
        self.comparison(Counters({"taken": 200}, {"taken": 1.0}), attempts_counters=("sent", "taken")).require()

    @pytest.mark.parametrize(
        ("bound_s", "pattern"), [(2.0, "2|2[.]0"), (2.56, "2[.]56"), (0.5, "0[.]5"), (10.0, "10|10[.]0")]
    )
    def test_a_comparison_finds_a_bucket_however_its_bound_is_printed(self, bound_s: float, pattern: str) -> None:
        assert comparison._bucket(bound_s) == pattern


class TestRecorded:
    SLO = TestComparison.PUSHED
    NAME = "slo:error_ratio:rate15s"

    def lab(self, recorded: Sequence[float], judged: Sequence[float], *, slo: Slo | None = None) -> Any:
        """A rule's series and the judge's, a value a second from 1000.5 on."""
        points = tuple((1000.5 + i, value) for i, value in enumerate(recorded))
        series = [Series(labels={"__name__": self.NAME}, points=points)]
        self.asked: list[Any] = []

        def raw(*asked: Any) -> Any:
            self.asked.append(asked)
            return series

        def series_over(*asked: Any) -> Any:
            self.asked.append(asked)
            return {1000.5 + i: value for i, value in enumerate(judged)}

        return SimpleNamespace(slos=(slo or self.SLO,), prometheus=SimpleNamespace(raw=raw, series_over=series_over))

    def test_series_are_judged_at_the_very_instants_at_which_they_were_recorded(self) -> None:
        require_recorded(self.lab([0.1] * 10, [0.1] * 10), 1000.0, 1012.0)

        assert self.asked == [
            (f'{{__name__=~"slo:error_ratio:rate[0-9]+s",slo="{self.SLO.name}"}}', 1000.0, 1012.0),
            (error_ratio_expression(self.SLO, "15s"), 1000.5, 1009.5, 1.0),
        ]

    def test_one_late_evaluation_is_not_odd(self) -> None:
        require_recorded(self.lab([*[0.1] * 5, 0.5, *[0.1] * 4], [0.1] * 10), 1000.0, 1012.0)
        # Five in a hundred are within the tolerance too.
        require_recorded(self.lab([*[0.5] * 7, *[0.1] * 93], [0.1] * 100), 1000.0, 1100.0)

    def test_two_of_a_few_or_six_of_a_hundred_are(self) -> None:
        with pytest.raises(TruthsDisagree, match=r"differs at 2 of 10 instants\): generate the rules again"):
            require_recorded(self.lab([*[0.1] * 5, 0.5, 0.6, *[0.1] * 3], [0.1] * 10), 1000.0, 1012.0)
        with pytest.raises(TruthsDisagree, match=r"differs at 6 of 100 instants"):
            require_recorded(self.lab([*[0.5] * 8, *[0.1] * 92], [0.1] * 100), 1000.0, 1100.0)

    def test_the_one_in_the_middle_is_named_with_the_judges_value(self) -> None:
        recorded = [0.1] * 5 + [0.5, 0.6, 0.7] + [0.1] * 2

        with pytest.raises(TruthsDisagree) as odd:
            require_recorded(self.lab(recorded, [0.1] * 10), 1000.0, 1012.0)
        assert str(odd.value) == (
            f"the rule {self.NAME} of availability is odd: at 1006.500 it recorded 0.600, {OK} of {ALL} give 0.100 "
            "(differs at 3 of 10 instants): generate the rules again"
        )
        rising = [*[0.1] * 6, *[0.2] * 4]
        with pytest.raises(TruthsDisagree, match=r"at 1007\.500 it recorded 0\.700, .* give 0\.100 to 0\.200 "):
            require_recorded(self.lab(recorded, rising), 1000.0, 1012.0)
        barely = [*[0.1] * 6, *[0.1009] * 4]
        with pytest.raises(TruthsDisagree, match=r"give 0\.100 \("):
            require_recorded(self.lab(recorded, barely), 1000.0, 1012.0)
        beyond = [*[0.1] * 6, *[0.1012] * 4]
        with pytest.raises(TruthsDisagree, match=r"give 0\.100 to 0\.101 \("):
            require_recorded(self.lab(recorded, beyond), 1000.0, 1012.0)

    def test_a_rule_that_missed_the_newest_scrapes_saw_a_shorter_window(self) -> None:
        # Early in a recovery, such as 0.14 with the newest scrape and 0.2 without it.
        values = {0: [0.14] * 10, 1: [0.2] * 10, 2: [0.26] * 10}
        expressions = {error_ratio_expression(self.SLO, "15s", missed): values[missed] for missed in values}
        lab = self.lab([*[0.14] * 4, 0.2, 0.26, *[0.14] * 4], [0.14] * 10)
        lab.prometheus.series_over = lambda asked, *_: {1000.5 + i: v for i, v in enumerate(expressions[asked])}

        require_recorded(lab, 1000.0, 1012.0)

        values[0][:] = values[1][:] = values[2][:] = [0.14] * 10
        with pytest.raises(TruthsDisagree, match="differs at 2 of 10 instants"):
            require_recorded(lab, 1000.0, 1012.0)

    def test_a_window_is_shortened_to_no_less_than_two_scrapes(self) -> None:
        self.NAME = "slo:error_ratio:rate3s"
        with pytest.raises(TruthsDisagree):
            require_recorded(self.lab([0.5] * 10, [0.1] * 10), 1000.0, 1012.0)

        assert [asked[0] for asked in self.asked[1:]] == [
            error_ratio_expression(self.SLO, "3s"),
            error_ratio_expression(self.SLO, "3s", 1),
        ]
        assert "[2s] offset 1s" in self.asked[-1][0]


class TestStrays:
    def of(self, recorded: Sequence[float], judged: Mapping[int, float]) -> list[tuple[float, float, float, float]]:
        return strays([(float(i), value) for i, value in enumerate(recorded)], {i + 0.0: v for i, v in judged.items()})

    @pytest.fixture
    def flat(self) -> Iterator[dict[int, float]]:
        return dict.fromkeys(range(6), 0.5)  # type: ignore[return-value]

    def test_strays_lie_beyond_a_tolerance_on_either_side(self, flat: dict[int, float]) -> None:
        recorded = [0.5, 0.5, 0.47, 0.479, 0.481, 0.53]

        assert self.of(recorded, flat) == [(2.0, 0.47, 0.5, 0.5), (3.0, 0.479, 0.5, 0.5), (5.0, 0.53, 0.5, 0.5)]
        assert self.of([0.5, 0.5, 0.48, 0.519, 0.52, 0.521], flat) == [(5.0, 0.521, 0.5, 0.5)]

    def test_strays_are_absent_among_the_first_two_points_whose_past_is_unknown(self, flat: dict[int, float]) -> None:
        assert self.of([0.9, 0.9, 0.9], flat) == [(2.0, 0.9, 0.5, 0.5)]

    def test_strays_are_absent_if_the_judge_found_the_same_up_to_two_points_earlier(self) -> None:
        judged = {0: 0.1, 1: 0.1, 2: 0.9, 3: 0.2, 4: 0.3, 5: 0.4}

        assert self.of([0.1, 0.1, 0.1, 0.9, 0.9, 0.9], judged) == [(5.0, 0.9, 0.2, 0.4)]
        assert self.of([0.1, 0.1, 0.1, 0.1, 0.1, 0.1], judged) == [(4.0, 0.1, 0.2, 0.9), (5.0, 0.1, 0.2, 0.4)]

    def test_strays_start_again_after_an_instant_without_a_value_of_the_judge(self) -> None:
        judged = {0: 0.5, 1: 0.5, 3: 0.5, 4: 0.5, 5: 0.5}

        assert self.of([0.9] * 6, judged) == [(5.0, 0.9, 0.5, 0.5)]

    def test_strays_are_found_at_the_same_millisecond(self) -> None:
        points = [(1000.4999 + i, 0.9) for i in range(4)]

        assert len(strays(points, {1000.5002 + i: 0.5 for i in range(4)})) == 2
        assert strays(points, {1000.502 + i: 0.5 for i in range(4)}) == []
