"""Overload: its requests, its proofs, and refusals without a possible proof."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.clock import Clock
from support.own_stack_keys import make_folder, subject_of

from pytest_llmchaos.errors import InvalidExperiment, NoData, PrometheusUnreachable
from pytest_llmchaos.host import identity
from pytest_llmchaos.lab import overload
from pytest_llmchaos.lab.overload import Offer, ProcessFlood, Seen
from pytest_llmchaos.loadgen.process import LoadStatus
from pytest_llmchaos.loads.arrivals import MAX_ARRIVALS
from pytest_llmchaos.servers.canonical import BY_SERIES
from pytest_llmchaos.servers.catalogue import servers
from pytest_llmchaos.servers.contract import parse, selectors_in
from pytest_llmchaos.subject.lab import ENGINES, Subject, lab_subject
from pytest_llmchaos.subject.requests import Requests

# 31.25 requests/s of 8 tokens.
SMALL = {"peak_tokens_per_s": 100.0, "capacity_tokens_per_s": 40.0}
NOTHING = Seen(turned_away=0.0, arriving_rps=None, waiting=None, waited=0.0, tokens_per_s=None, without_queue=None)
LARGE = Offer(rate_rps=100.0, tokens_per_s=1000.0)


BEGUN_UNIX_S = 999.0


class Generator:
    """The load generator without its program."""

    t0_unix_s = BEGUN_UNIX_S + 1
    pid = os.getpid()

    def __init__(self, plan: Any, directory: Path) -> None:
        self.plan, self.directory = plan, directory
        self.alive = False
        self.sent, self.outcomes = 100, {"ok": 10, "http_429": 60, "http_5xx": 5}

    def start(self) -> None:
        self.alive = True

    def stop(self) -> None:
        self.alive = False

    def status(self) -> LoadStatus:
        return LoadStatus(sent=self.sent, outcomes=self.outcomes)


class Metrics:
    """Prometheus with the numbers of some metrics, by a part of the query.

    Numbers of `before` are those of the time when the flood's program is not yet there.
    """

    def __init__(self, before: Mapping[str, float], numbers: Mapping[str, float]) -> None:
        self.before = before
        self.numbers: Mapping[str, float] | None = numbers
        self.asked: list[tuple[str, float]] = []

    def value(self, query: str, at_unix_s: float) -> float:
        self.asked.append((query, at_unix_s))
        if self.numbers is None:
            raise PrometheusUnreachable("no answer from http://prometheus")
        numbers = self.numbers if at_unix_s > BEGUN_UNIX_S else self.before
        found = [number for part, number in numbers.items() if part in query]
        if not found:
            raise NoData("no series")
        return found[0]


@pytest.fixture
def flood_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A flood of 2.5 times the peak in answers of 8 tokens, 5 s after its start."""
    clock: Any = Clock(unix_s=BEGUN_UNIX_S)
    monkeypatch.setattr(overload, "LoadProcess", Generator)
    monkeypatch.setattr(overload, "time", clock)

    def make(subject: Subject | None = None, *, begin: bool = True, before: Any = (), **numbers: float) -> Any:
        processes: list[tuple[int, str]] = []
        record: Any = SimpleNamespace(directory=tmp_path, process=lambda *about: processes.append(about))
        metrics: Any = Metrics(dict(before), numbers)
        subject = subject or replace(lab_subject("sim"), **SMALL)
        flood = ProcessFlood(subject, "http://it", record, lambda: metrics)
        if begin:
            flood.start(subject.api, times=2.5, max_tokens=8)
            clock.advance(6)
        return SimpleNamespace(it=flood, process=flood._process, processes=processes, clock=clock, metrics=metrics)

    return make


def wrong_of(cases: Iterable[tuple[str, bool, Seen, bool]]) -> list[str]:
    return [what for what, lab, seen, proves in cases if seen.is_too_much(LARGE, at_gateway=lab) is not proves]


def test_a_flood_is_proven_by_half_of_its_requests_at_the_service() -> None:
    assert not wrong_of(
        [
            ("half, and a queue", True, replace(NOTHING, arriving_rps=50.0, waiting=1.0), True),
            ("less, and a queue", True, replace(NOTHING, arriving_rps=49.9, waiting=99.0), False),
            ("none is counted", True, replace(NOTHING, waiting=99.0), False),
        ]
    )


def test_a_flood_is_proven_by_more_than_what_is_served() -> None:
    all_come = replace(NOTHING, arriving_rps=100.0)
    assert not wrong_of(
        [
            ("no queue at the gateway", True, replace(all_come, waiting=0.0), False),
            ("an old queue", True, replace(all_come, waiting=7.0, waited=7.0), False),
            ("a longer one", True, replace(all_come, waiting=8.0, waited=7.0), True),
            (
                "a queue, although the engines serve most",
                True,
                replace(all_come, waiting=1.0, tokens_per_s=990.0),
                True,
            ),
            (
                "no queue, although the engines serve little",
                True,
                replace(all_come, waiting=0.0, tokens_per_s=9.0),
                False,
            ),
            ("waits for an engine's next step", False, replace(all_come, waiting=9.9), False),
            ("0.1 s of requests wait", False, replace(all_come, waiting=10.0), True),
            ("no more than before", False, replace(all_come, waiting=19.0, waited=10.0), False),
            ("a gateway keeps some back", False, replace(NOTHING, arriving_rps=9.0, waiting=10.0), True),
            ("they wait, most is served", False, replace(all_come, waiting=99.0, tokens_per_s=900.0), False),
            ("they wait, less is served", False, replace(all_come, waiting=99.0, tokens_per_s=899.0), True),
            ("no queue known", False, replace(all_come, tokens_per_s=9.0), False),
            ("no queue known in the lab", True, replace(all_come, tokens_per_s=9.0), False),
            ("half is turned away", False, replace(NOTHING, waiting=99.0, turned_away=0.5), True),
            ("more is turned away", False, replace(NOTHING, waiting=99.0, turned_away=0.51), False),
            ("nothing", False, NOTHING, False),
        ]
    )
    few = Offer(rate_rps=2.0, tokens_per_s=20.0)
    assert not replace(NOTHING, waiting=0.9).is_too_much(few, at_gateway=False), "a request waits at least"


def test_a_proof_has_what_is_offered_and_served_and_what_no_server_reports() -> None:
    known = replace(NOTHING, arriving_rps=98.4, waiting=7.0, waited=1.0, tokens_per_s=400.4)
    sent = "Prometheus: api is sent 100 requests/s"
    said = {
        known: f"{sent}, 98/s arrive or wait; 7 requests wait, 1 before; the engines generate 400 of 1000 offered tokens/s",
        replace(NOTHING, waiting=2.0, turned_away=0.6, without_queue=1.0): f"{sent}; 2 requests wait, 0 before; "
        "60% of the flood ends with a status 3xx or 4xx, or gets no connection; "
        "engines that report no waiting requests: 1",
        NOTHING: f"{sent}; no engine reports waiting requests",
    }

    assert {seen: seen.text("api", LARGE) for seen in said} == said


def test_a_flood_without_a_witness_is_refused(flood_of: Any, tmp_path: Path) -> None:
    lab, folder = lab_subject("sim"), make_folder(tmp_path)
    own, blind = subject_of(folder, metrics=("web",)), subject_of(folder)
    cases = [
        (lab, "model-1", "only api can be flooded, got 'model-1'"),
        (blind, "web", "a flood of web cannot be proven: this stack has no scraped model server"),
        (own, "web", "no scraped engine has llmchaos:requests_waiting, .*The queues of gateways do not count"),
        (
            replace(lab, peak_tokens_per_s=11_000.0),
            "api",
            rf"a flood of .* at most {MAX_ARRIVALS} are possible: raise max_tokens",
        ),
    ]

    for subject, service, said in cases:
        flood = flood_of(subject, begin=False, before={"requests_done": 5.0, "requests_running": 5.0}).it
        with pytest.raises(InvalidExperiment, match=said):
            flood.start(service, times=2.5, max_tokens=8)
        assert flood.seen(service, 0.0) is None
        assert flood.report(service) == f"no flood of {service} has begun"
        flood.stop()
        assert flood.gone() is not None


def test_a_flood_sends_so_many_times_the_peak_for_ten_minutes(flood_of: Any, tmp_path: Path) -> None:
    requests = Requests(tls="unverified", path="/chat")
    lab = replace(lab_subject("sim"), requests=requests, **SMALL)
    flood = flood_of(lab)
    plan = flood.process.plan

    assert len(plan.arrivals) == 31.25 * 600
    assert [arrival.due_s for arrival in plan.arrivals[:3]] == [0.0, 0.032, 0.064]
    assert len({arrival.prompt for arrival in plan.arrivals}) == len(plan.arrivals), "no answer comes from a cache"
    assert {arrival.max_tokens for arrival in plan.arrivals} == {8}
    assert (plan.requests, plan.url, plan.model) == (requests, "https://it", lab.model)
    assert (plan.timeout_s, plan.drain_s) == (10.0, 0.0)
    assert flood.processes == [(os.getpid(), identity.process_started(os.getpid()))]
    assert flood.process.directory == tmp_path / "overload"
    assert len(flood_of(replace(lab, peak_tokens_per_s=0.0)).process.plan.arrivals) == 12.5 * 600, "a declared capacity"


def test_a_flood_is_proven_in_prometheus_from_its_third_second_on_until_it_ends(flood_of: Any) -> None:
    flood = flood_of(llmlab_requests_total=31.0, min_over_time=4.0, output_tokens=98.4, before={"min_over_time": 3.0})
    begin, now = Generator.t0_unix_s, Generator.t0_unix_s + 5

    proof = flood.it.seen("api", begin)

    assert (proof.step, proof.at_unix_s) == ("injected", begin)
    assert proof.witness == (
        "Prometheus: api is sent 31 requests/s, 31/s arrive or wait; 4 requests wait, 3 before; "
        "the engines generate 98 of 250 offered tokens/s"
    )
    waiting = f"min_over_time({lab_subject('sim').waiting_query}[3s:1s])"
    assert {(waiting, now), (waiting, BEGUN_UNIX_S)} <= set(flood.metrics.asked)
    assert [flood.it.seen("api", now - after_s) is not None for after_s in (2.5, 3.0)] == [False, True]
    flood.metrics.numbers = {**flood.metrics.numbers, "min_over_time": 3.0}
    assert flood.it.seen("api", begin) is None
    assert flood.it.report("api").endswith("offered tokens/s: raise times of faults.overload")
    flood.metrics.numbers = None
    assert flood.it.seen("api", begin) is None
    assert flood.it.report("api") == "no answer from http://prometheus"

    assert flood.it.gone() is None
    flood.it.stop()
    assert (flood.it.gone().step, flood.it.gone().at_unix_s) == ("healed", now)


def test_a_flood_of_a_users_own_stack_is_proven_by_canonical_names(flood_of: Any, tmp_path: Path) -> None:
    own = subject_of(make_folder(tmp_path), metrics=("web",), tokens_per_s=100.0)
    flood = flood_of(own, before={"requests_waiting": 0.0}, min_over_time=4.0)

    assert "4 requests wait, 0 before" in flood.it.seen("web", Generator.t0_unix_s).witness
    for outcomes, is_proven in [
        ({"http_4xx": 50}, True),
        ({"http_4xx": 51}, False),
        ({"http_3xx": 20, "refused": 31}, False),
    ]:
        flood.process.outcomes = outcomes
        assert (flood.it.seen("web", Generator.t0_unix_s) is not None) is is_proven, outcomes
    flood.process.outcomes, flood.process.sent = {}, 0
    assert flood.it.seen("web", Generator.t0_unix_s) is None, "no request is sent"
    flood.process.sent, flood.process.alive = 100, False
    assert flood.it.seen("web", Generator.t0_unix_s) is None, "the flood has ended"
    flood.process.alive = True
    flood.metrics.numbers = {"min_over_time": 3.0}
    assert flood.it.seen("web", Generator.t0_unix_s) is None
    assert flood.it.report("web").endswith(": raise llmchaos_tokens_per_s, now 100")
    asked = {query for query, _ in flood.metrics.asked}
    names = {one.name for query in asked for one in selectors_in(parse(query))}
    assert names <= set(BY_SERIES)
    assert len(names) == 6
    gateways = "|".join(sorted(one.name for one in servers().values() if one.kind == "gateway"))
    assert f'{{server!~"{gateways}"}}' == ENGINES, "a gateway counts its engines' requests once more"
    assert not [query for query in asked if query.count("llmchaos:") != query.count(ENGINES)]
