"""A flood that nothing could prove is refused before it starts."""

from dataclasses import replace
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
