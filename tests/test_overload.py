"""Overload: its requests, its proofs, and refusals without a possible proof."""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.clock import Clock

from pytest_llmchaos.errors import InvalidExperiment, NoData
from pytest_llmchaos.host import identity
from pytest_llmchaos.lab import overload
from pytest_llmchaos.lab.overload import ProcessFlood
from pytest_llmchaos.subject.lab import lab_subject
from pytest_llmchaos.subject.requests import Requests


@pytest.mark.parametrize(
    ("subject", "service", "said"),
    [
        (replace(lab_subject("sim"), requests_query=None), "api", "a flood of api cannot be proven"),
        (lab_subject("sim"), "model-1", "only api can be flooded, got 'model-1'"),
    ],
    ids=["an unknown count of requests", "another service"],
)
def test_a_flood_without_a_witness_is_refused(subject: Any, service: str, said: str) -> None:
    unused: Any = None
    flood = ProcessFlood(subject, "http://127.0.0.1:9", unused, unused)

    with pytest.raises(InvalidExperiment, match=said):
        flood.start(service, times=2.5, max_tokens=8)
    assert flood.seen(service, 0.0) is None


@pytest.mark.parametrize(("seen_rps", "is_proven"), [(49.0, False), (50.0, True)])
def test_a_flood_is_proven_by_half_of_its_requests_at_the_service(seen_rps: float, is_proven: bool) -> None:
    record: Any = None
    prometheus: Any = SimpleNamespace(value=lambda *_: seen_rps)
    flood = ProcessFlood(lab_subject("sim"), "http://127.0.0.1:9", record, lambda: prometheus)
    process: Any = SimpleNamespace(t0_unix_s=7.0)
    flood._process, flood._rate_rps = process, 100.0

    proof = flood.seen("api", time.time() - 10)

    assert (proof is not None) is is_proven
    assert flood.seen("api", time.time() - 1) is None, "what is seen at once was there before"


class Generator:
    """The load generator without its program."""

    t0_unix_s = 2.0
    pid = os.getpid()

    def __init__(self, plan: Any, directory: Path) -> None:
        self.plan, self.directory = plan, directory
        self.alive = False

    def start(self) -> None:
        self.alive = True

    def stop(self) -> None:
        self.alive = False


@pytest.fixture
def flood_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A flood of 2.5 times the peak in answers of 8 tokens, with Prometheus' view."""
    clock: Any = Clock(unix_s=Generator.t0_unix_s)
    monkeypatch.setattr(overload, "LoadProcess", Generator)
    monkeypatch.setattr(overload, "time", clock)

    def make(seen: Callable[..., float] = lambda *_: 0.0, **subject: Any) -> Any:
        processes: list[tuple[int, str]] = []
        record: Any = SimpleNamespace(directory=tmp_path, process=lambda *about: processes.append(about))
        prometheus: Any = SimpleNamespace(value=seen)
        flood = ProcessFlood(replace(lab_subject("sim"), **subject), "http://it", record, lambda: prometheus)
        flood.start("api", times=2.5, max_tokens=8)
        return SimpleNamespace(it=flood, process=flood._process, processes=processes, clock=clock)

    return make


class TestFlood:
    def test_sends_so_many_times_what_the_backend_was_seen_to_serve_for_ten_minutes(self, flood_of: Any) -> None:
        plan = flood_of(peak_tokens_per_s=100.0, capacity_tokens_per_s=40.0).process.plan

        assert len(plan.arrivals) == 31.25 * 600
        assert [arrival.due_s for arrival in plan.arrivals[:3]] == [0.0, 0.032, 0.064]
        assert len({arrival.prompt for arrival in plan.arrivals}) == len(plan.arrivals), "no answer comes from a cache"
        assert {arrival.max_tokens for arrival in plan.arrivals} == {8}
        assert (plan.url, plan.model) == ("http://it", lab_subject("sim").model)
        assert (plan.timeout_s, plan.drain_s) == (10.0, 0.0)

    def test_sends_requests_like_the_loads(self, flood_of: Any) -> None:
        requests = Requests(tls="unverified", path="/chat")
        plan = flood_of(requests=requests).process.plan

        assert (plan.requests, plan.url) == (requests, "https://it")

    def test_exceeds_what_the_backend_holds_where_its_most_is_not_known(self, flood_of: Any) -> None:
        plan = flood_of(peak_tokens_per_s=0.0, capacity_tokens_per_s=40.0).process.plan

        assert len(plan.arrivals) == 12.5 * 600

    def test_a_flood_is_a_process_of_the_trial(self, flood_of: Any, tmp_path: Path) -> None:
        flood = flood_of()

        assert flood.processes == [(os.getpid(), identity.process_started(os.getpid()))]
        assert flood.process.directory == tmp_path / "overload"

    def test_the_gateways_own_count_proves_a_flood(self, flood_of: Any) -> None:
        asked: list[tuple[Any, ...]] = []

        def seen(query: str, at_unix_s: float) -> float:
            asked.append((query, at_unix_s))
            if query != "sum(arrived)":
                raise NoData("this engine has no metrics")
            return 31.0

        flood = flood_of(seen, peak_tokens_per_s=100.0, requests_query="sum(arrived)")
        flood.clock.advance(5)

        proof = flood.it.seen("api", Generator.t0_unix_s)

        assert asked[0] == ("sum(arrived)", Generator.t0_unix_s + 5)
        assert proof.step == "injected"
        assert proof.at_unix_s == Generator.t0_unix_s
        assert proof.witness == "Prometheus: api sees 31 requests/s or waiting, 31/s are sent"

    @pytest.mark.parametrize(
        ("metrics", "said"),
        [
            (
                {"llmchaos:output_tokens_total": 98.4, "llmchaos:requests_waiting": 7.0},
                "98 output tokens/s, 7 requests wait",
            ),
            ({"llmchaos:output_tokens_total": 98.4}, "98 output tokens/s"),
            ({"llmchaos:requests_waiting": 0.0}, "0 requests wait"),
        ],
        ids=["both", "no queue", "no tokens"],
    )
    def test_the_engines_report_what_they_serve_and_whether_requests_wait(
        self, flood_of: Any, metrics: dict[str, float], said: str
    ) -> None:
        def seen(query: str, at_unix_s: float) -> float:
            if query == "sum(arrived)":
                return 99.0
            found = [value for name, value in metrics.items() if name in query]
            if not found:
                raise NoData("this engine lacks it")
            assert at_unix_s == Generator.t0_unix_s + 5
            return found[0]

        flood = flood_of(seen, requests_query="sum(arrived)", peak_tokens_per_s=100.0)
        flood.clock.advance(5)

        assert flood.it.seen("api", Generator.t0_unix_s).witness.endswith(f"are sent; the engines: {said}")

    @pytest.mark.parametrize(("after_s", "is_seen"), [(2.5, False), (3.0, True), (3.5, True)])
    def test_a_flood_is_proven_from_its_third_second_on(self, flood_of: Any, after_s: float, is_seen: bool) -> None:
        flood = flood_of(lambda *_: 9999.0)
        flood.clock.advance(after_s)

        assert (flood.it.seen("api", Generator.t0_unix_s) is not None) is is_seen

    def test_a_flood_is_unproven_while_prometheus_has_no_answer(self, flood_of: Any) -> None:
        def no_data(*_: object) -> float:
            raise NoData("not scraped yet")

        flood = flood_of(no_data)
        flood.clock.advance(5)

        assert flood.it.seen("api", Generator.t0_unix_s) is None

    def test_a_flood_is_gone_once_its_process_has_ended(self, flood_of: Any) -> None:
        flood = flood_of()
        flood.clock.advance(5)
        assert flood.it.gone() is None

        flood.it.stop()

        proof = flood.it.gone()
        assert (proof.step, proof.at_unix_s) == ("healed", Generator.t0_unix_s + 5)

    def test_a_flood_that_never_began_is_gone_and_can_be_stopped(self, flood_of: Any) -> None:
        unused: Any = None
        flood = ProcessFlood(lab_subject("sim"), "http://it", unused, unused)

        flood.stop()

        assert flood.gone() is not None
