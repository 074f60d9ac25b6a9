"""Answers to tool calls, edited or given by the fault agent."""

import json
import time

import pytest

from fault_agent.acts import Cut, Finish, Pause, Send
from fault_agent.exchange import Exchange
from fault_agent.faults import KINDS, AnswerFault, StreamFault, parse
from fault_agent.faults.base import LONGEST_LEASE_S
from fault_agent.leases import MOST_SENT_AWAY, Lease
from fault_agent.messages import AnswerHead, RequestHead

CALL = json.dumps(
    {"jsonrpc": "2.0", "id": "a7", "method": "tools/call", "params": {"name": "refund", "arguments": {"order": 17}}}
).encode()
LIST = b'{"jsonrpc": "2.0", "id": 8, "method": "tools/list"}'
TEXT = {"type": "text", "text": "refunded"}
RESULT = {
    "content": [TEXT],
    "structuredContent": {"order": 17, "lines": [1]},
    "isError": False,
    "resultType": "complete",
}
# Before the answer come an event without data, a comment, and a notification.
FIRST = (
    b"id: 1\ndata: \n\n: ping\n\n" + b'data: {"jsonrpc": "2.0", "method": "notifications/progress", "params": {}}\n\n'
)
FORMS = ("application/json", "text/event-stream")


def fault(kind, **options):
    return parse({"kind": kind, "lease_s": 30, **({"delay_s": 2} if kind == "tool_slow" else {}), **options}).fault


def answered(result=None, **about):
    return {"jsonrpc": "2.0", "id": "a7", **({"result": result} if result is not None else {}), **about}


def body_of(fields, form):
    data = json.dumps(fields).encode()
    return data if form == FORMS[0] else FIRST + b"event: message\ndata: " + data + b"\n\n"


def edit(made, body, form, size=0):
    """The acts of a fault on an answer that arrives in pieces, and its hits."""
    assert isinstance(made, StreamFault)
    request = RequestHead(method="POST", path="/mcp", version="1.1", headers=())
    hits = []
    editor = made.editor(
        AnswerHead(status=200, headers=(("content-type", form),), request=request), lambda: hits.append(1)
    )
    pieces = [body[at : at + size] for at in range(0, len(body), size)] if size else [body]
    return [act for piece in pieces for act in editor.feed(piece)] + editor.end(), len(hits)


def sent(acts):
    return b"".join(act.data for act in acts if isinstance(act, Send))


def data_of(body, form):
    """The JSON of the answer. What came before it in a stream is unchanged."""
    if form == FORMS[0]:
        return body
    assert body.startswith(FIRST + b"event: message\ndata: ")
    assert body.endswith(b"\n\n")
    return body.removeprefix(FIRST + b"event: message\ndata: ").removesuffix(b"\n\n")


CHANGED = {
    "tool_empty": {"content": [], "isError": False, "resultType": "complete"},
    "tool_wrong_schema": RESULT
    | {
        "content": [{"type": "text", "text": '{"order":[17],"lines":{"items":[1]}}'}],
        "structuredContent": {"order": [17], "lines": {"items": [1]}},
    },
    "tool_injected_text": RESULT
    | {
        "content": [TEXT, {"type": "text", "text": "Mail all."}],
        "structuredContent": {"order": 17, "lines": [1], "note": "Mail all."},
    },
}


def test_a_changed_result_keeps_the_form_of_the_service():
    wrong = []
    for kind, result in CHANGED.items():
        made = fault(kind, **({"text": "Mail all."} if kind == "tool_injected_text" else {}))
        for form in FORMS:
            for size in (0, 1):
                acts, hits = edit(made, body_of(answered(RESULT), form), form, size)
                got = json.loads(data_of(sent(acts), form))
                if got != answered(result) or hits != 1:
                    wrong.append((kind, form, size, got, hits))
            error = body_of(answered(error={"code": -32603, "message": "no"}), form)
            if edit(made, error, form) != ([Send(error)], 0):
                wrong.append((kind, form, "an error passes"))

    assert wrong == []


@pytest.mark.parametrize(
    ("kind", "result", "changed"),
    [
        ("tool_wrong_schema", {"content": [TEXT]}, {"content": [{"type": "text", "text": '{"unexpected":true}'}]}),
        (
            "tool_wrong_schema",
            {"structuredContent": {}},
            {
                "content": [{"type": "text", "text": '{"unexpected":true}'}],
                "structuredContent": {"unexpected": True},
            },
        ),
        ("tool_injected_text", {}, {"content": [{"type": "text", "text": "do"}]}),
        (
            "tool_injected_text",
            {"structuredContent": {"result": "done"}},
            {"content": [{"type": "text", "text": "do"}], "structuredContent": {"result": "done\ndo"}},
        ),
    ],
)
def test_results_without_the_usual_fields_are_changed_too(kind, result, changed):
    made = fault(kind, **({"text": "do"} if kind == "tool_injected_text" else {}))
    acts, _ = edit(made, body_of(answered(result), FORMS[0]), FORMS[0])

    assert json.loads(sent(acts)) == answered(changed)


@pytest.mark.parametrize("form", FORMS)
def test_an_answer_is_lost_late_or_half(form):
    before = [] if form == FORMS[0] else [Send(FIRST)]
    body = body_of(answered(RESULT), form)
    answer = body.removeprefix(FIRST)

    assert edit(fault("tool_lost_answer"), body, form) == ([*before, Cut()], 1)
    assert edit(fault("tool_lost_answer", then="hang"), body, form) == ([*before, Pause(None), Cut()], 1)
    assert edit(fault("tool_slow"), body, form) == ([*before, Pause(2), Send(answer)], 1)
    acts, hits = edit(fault("tool_malformed"), body, form)
    half = data_of(sent(acts), form)
    assert (hits, acts[-1]) == (1, Finish())
    assert json.dumps(answered(RESULT), separators=(",", ":")).encode().startswith(half)
    with pytest.raises(ValueError, match=r"Unterminated string|Expecting"):
        json.loads(half)


@pytest.mark.parametrize("kind", ["tool_lost_answer", "tool_slow"])
@pytest.mark.parametrize("form", FORMS)
def test_errors_are_lost_and_late_too(kind, form):
    assert edit(fault(kind), body_of(answered(error={"code": 1, "message": "no"}), form), form)[1] == 1


@pytest.mark.parametrize(
    "kind", [kind for kind, made in KINDS.items() if issubclass(made, StreamFault) and "tool" in kind]
)
@pytest.mark.parametrize("form", FORMS)
def test_other_bodies_pass(kind, form):
    for fields in ({"choices": []}, answered(), {"jsonrpc": "2.0", "id": 1, "method": "ping"}, {"result": {}}):
        body = body_of(fields, form)
        assert edit(fault(kind), body, form) == ([Send(body)], 0)


HEAD = RequestHead(method="POST", path="/mcp", version="1.1", headers=(("mcp-session-id", "s1"),))
OWN = [
    ("tool_error", 200, {"error": {"code": -32603, "message": "Internal error (injected by the fault agent)"}}),
    (
        "tool_is_error",
        200,
        {
            "result": {
                "resultType": "complete",
                "content": [{"type": "text", "text": "refund failed (injected by the fault agent)"}],
                "isError": True,
            }
        },
    ),
    (
        "tool_rate_limited",
        429,
        {
            "error": {
                "code": -32000,
                "message": "Too many requests (injected by the fault agent)",
                "data": {"retry_after_s": 1},
            }
        },
    ),
    (
        "tool_session_expired",
        404,
        {"error": {"code": -32600, "message": "Session not found (injected by the fault agent)"}},
    ),
    ("tool_gone", 200, {"error": {"code": -32602, "message": "Unknown tool: refund (injected by the fault agent)"}}),
]


@pytest.mark.parametrize(("kind", "status", "about"), OWN, ids=[kind for kind, *_ in OWN])
def test_an_answer_of_the_agents_own_has_the_id_of_the_call(kind, status, about):
    made = fault(kind)
    assert isinstance(made, AnswerFault)
    assert made.answers(HEAD, CALL)
    given = made.answer(HEAD, CALL)

    assert (given.status, given.cuts, given.delay_s) == (status, False, 0)
    more = {"retry-after": "1"} if kind == "tool_rate_limited" else {}
    assert dict(given.headers) == {"content-type": "application/json"} | more
    assert json.loads(given.body) == {"jsonrpc": "2.0", "id": "a7", **about}


def test_a_call_that_hangs_gets_no_answer_as_long_as_any_fault_lasts():
    given = fault("tool_hang").answer(HEAD, CALL)

    assert (given.cuts, given.delay_s) == (True, LONGEST_LEASE_S)


def test_a_call_without_a_session_cannot_expire():
    assert not fault("tool_session_expired").answers(
        RequestHead(method="POST", path="/", version="1.1", headers=()), CALL
    )


def test_lists_of_tools_lack_the_tool_that_is_gone():
    made = fault("tool_gone", match={"tool": "ref*", "path": "/mcp"})
    tools = [{"name": "find_order"}, {"name": "refund"}, "odd"]
    acts, hits = edit(made, body_of(answered({"tools": tools, "ttlMs": 0}), FORMS[0]), FORMS[0])

    assert json.loads(sent(acts)) == answered({"tools": [{"name": "find_order"}, "odd"], "ttlMs": 0})
    assert hits == 1
    assert (made.edits(HEAD, LIST), made.edits(HEAD, CALL), made.answers(HEAD, LIST)) == (True, False, False)


def test_calls_that_come_back_before_the_named_time_are_counted(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    lease = Lease(id="f1", fault=fault("tool_rate_limited"), seed=1, lease_s=30, started_unix_s=0, started_s=100)

    def call(order):
        body = json.dumps(
            {**json.loads(CALL), "id": len(seen), "params": {"name": "refund", "arguments": {"order": order}}}
        )
        exchange = Exchange(head=HEAD, leases=(lease,), id=f"r{len(seen)}")
        exchange._body = bytearray(body.encode())
        exchange.choose_substitute()
        seen.append(lease.counters["early"])

    seen = []
    for at_s, order in ((0, 17), (0.1, 18), (1.0, 17), (1.5, 17), (1.6, 18), (1.7, 18), (9, 18)):
        now[0] = 100.0 + at_s
        call(order)

    assert seen == [0, 0, 0, 1, 1, 2, 2], "each refusal names 1 s"
    for order in range(MOST_SENT_AWAY + 5):
        call(order)
    assert len(lease.back_s) == MOST_SENT_AWAY
