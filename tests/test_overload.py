"""A flood that nothing could prove is refused before it starts."""

import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_llmchaos.errors import InvalidExperiment
from pytest_llmchaos.lab.overload import ProcessFlood
from pytest_llmchaos.subject.lab import lab_subject


@pytest.mark.parametrize(
    ("subject", "service", "said"),
    [
        (replace(lab_subject("sim"), requests_query=None), "api", "a flood of api could not be proven"),
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
