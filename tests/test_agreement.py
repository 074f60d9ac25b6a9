"""The service's own counters beside its callers: a finding where they differ, nothing where there are none."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_llmchaos.subject.lab import lab_subject
from pytest_llmchaos.trial import agreement

LAB = lab_subject("sim")
COUNTED = {(("outcome", "ok"),): 90.0, (("outcome", "timeout"),): 10.0}
BUCKETS = {(("le", "1.0"),): 100.0, (("le", "+Inf"),): 100.0}


class Server:
    """Answers what the callers counted, and for the service itself `own`."""

    def __init__(self, own: float) -> None:
        self.own = own
        self.asked: list[str] = []

    def vector(self, query: str, _at_unix_s: float) -> Any:
        return BUCKETS if "le" in query.partition(")")[0] else COUNTED

    def value(self, query: str, _at_unix_s: float) -> float:
        self.asked.append(query)
        return self.own


def findings(server: Server, query: str | None) -> list[str]:
    found: list[str] = []
    lab: Any = SimpleNamespace(subject=replace(LAB, availability_query=query), prometheus=server)
    record: Any = SimpleNamespace(anchor_unix_s=1000.0, finding=found.append)
    whole: Any = SimpleNamespace(availability=0.9, e2e_s=SimpleNamespace(p95=0.5))
    agreement.require_agreement(lab, record, whole, 1042.4)
    return found


def test_what_the_service_counts_otherwise_is_a_finding() -> None:
    server = Server(own=0.95)

    assert findings(server, LAB.availability_query) == [
        "the api's own counters say availability 0.9500, its callers 0.9000"
    ]
    (query,) = server.asked
    assert query.count("[42s]") == 2
    assert "$" not in query


@pytest.mark.parametrize("own", [0.9, 0.905])
def test_a_service_that_agrees_with_its_callers_is_no_finding(own: float) -> None:
    assert findings(Server(own), LAB.availability_query) == []


def test_a_service_without_such_counters_is_not_asked() -> None:
    server = Server(own=0.0)

    assert findings(server, None) == []
    assert server.asked == []
