"""Answers that the fault agent repeats."""

import pytest

from fault_agent.acts import Send
from fault_agent.exchange import Exchange
from fault_agent.faults import parse
from fault_agent.faults.events import LONGEST_BODY
from fault_agent.faults.stale import MOST_KEPT
from fault_agent.leases import Leases
from fault_agent.messages import AnswerHead, RequestHead

METRICS = ("GET", "/metrics", b"")


@pytest.fixture
def lease():
    fault = parse({"kind": "stale_answers", "lease_s": 60, "match": {"method": "*"}}).fault
    return Leases().start(fault, 0, 60.0)


def answered(lease, request, *pieces, status=200):
    """The body that a client gets for the service's pieces."""
    method, path, body = request
    exchange = Exchange(head=RequestHead(method=method, path=path, version="1.1", headers=()), leases=(lease,))
    exchange.take_body([body])
    head = AnswerHead(status=status, headers=(("content-type", "text/plain"),), request=exchange.head)
    found = exchange.editors(head)
    if not found:
        return b"".join(pieces)
    ((editor, _),) = found
    acts = [act for piece in pieces for act in editor.feed(piece)] + editor.end()
    assert all(isinstance(act, Send) for act in acts)
    return b"".join(act.data for act in acts)


def test_the_first_answer_is_repeated(lease):
    given = [answered(lease, METRICS, b"requests ", number) for number in (b"1", b"2", b"3")]

    assert given == [b"requests 1"] * 3
    assert (lease.counters["met"], lease.counters["hit"]) == (3, 2)


def test_an_answer_that_has_not_changed_is_no_stale_one(lease):
    for given in (b"1", b"1", b"2"):
        assert answered(lease, METRICS, given) == b"1"

    assert (lease.counters["met"], lease.counters["hit"]) == (3, 1)


@pytest.mark.parametrize(
    "other",
    [
        ("GET", "/metrics?name=x", b""),
        ("POST", "/metrics", b""),
        ("GET", "/other", b""),
        ("GET", "/metrics", b"query=up"),
    ],
)
def test_an_answer_to_another_request_is_another(lease, other):
    assert answered(lease, METRICS, b"1") == b"1"
    assert answered(lease, other, b"2") == b"2"
    assert lease.counters["hit"] == 0


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("POST", "/api/v1/query", b"query=up&time=1.5"), ("POST", "/api/v1/query", b"query=up&time=2")),
        (("POST", "/api/v1/query", b"time=1&query=up"), ("POST", "/api/v1/query", b"time=2&query=up")),
        (("GET", "/api/v1/query?time=1&query=up", b""), ("GET", "/api/v1/query?time=2&query=up", b"")),
    ],
)
def test_the_time_of_a_query_makes_no_other_request(lease, first, second):
    assert answered(lease, first, b"1") == answered(lease, second, b"2") == b"1"


def test_a_query_with_the_word_is_another_one(lease):
    assert answered(lease, ("POST", "/q", b"query=uptime=1"), b"1") == b"1"
    assert answered(lease, ("POST", "/q", b"query=uptime=2"), b"2") == b"2"


def test_errors_are_neither_kept_nor_replaced(lease):
    assert answered(lease, METRICS, b"error", status=503) == b"error"
    assert answered(lease, METRICS, b"1") == b"1"
    assert answered(lease, METRICS, b"error", status=503) == b"error"


def test_a_long_answer_passes_in_full(lease):
    long = [b"x" * LONGEST_BODY, b"y", b"z"]

    assert [answered(lease, METRICS, *long) for _ in range(2)] == [b"".join(long)] * 2
    assert lease.counters["hit"] == 0


def test_only_so_many_answers_are_kept(lease):
    for number in range(MOST_KEPT + 1):
        answered(lease, ("GET", f"/{number}", b""), b"1")

    assert answered(lease, ("GET", "/0", b""), b"2") == b"1"
    assert answered(lease, ("GET", f"/{MOST_KEPT}", b""), b"2") == b"2"


def test_with_the_end_of_the_fault_answers_are_fresh_and_forgotten():
    leases = Leases()
    lease = leases.start(parse({"kind": "stale_answers", "lease_s": 60, "match": {"method": "*"}}).fault, 0, 60.0)
    answered(lease, METRICS, b"1")
    leases.end(lease, "request")

    assert lease.kept == {}
    assert answered(lease, METRICS, b"2") == b"2"


def test_an_answer_under_way_at_the_end_passes(lease):
    exchange = Exchange(head=RequestHead(method="GET", path="/m", version="1.1", headers=()), leases=(lease,))
    ((editor, _),) = exchange.editors(AnswerHead(status=200, headers=(), request=exchange.head))

    assert editor.feed(b"half") == []
    assert editor.release() == b"half"
