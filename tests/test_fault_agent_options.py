"""Options of the fault agent's faults, selection of requests, and decisions."""

import json
import math
import re
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fault_agent import faults
from fault_agent.faults import KINDS, InvalidValueError, Match, options, parse
from fault_agent.faults.decide import is_chosen
from fault_agent.messages import RequestHead

README = Path(faults.__file__).parent / "README.md"
NEEDED = {
    "latency": {"delay_s": 0.1},
    "bandwidth": {"bytes_per_s": 1000},
    "slow_error": {"delay_s": 0.5},
    "late_first_token": {"delay_s": 0.5},
    "truncate": {"after_tokens": 1},
    "inband_error": {"after_tokens": 1},
    "malformed": {"after_tokens": 1},
    "duplicate": {"after_tokens": 1},
    "reorder": {"after_tokens": 1},
    "slow_drip": {"every_s": 0.1},
    "tool_slow": {"delay_s": 0.1},
}


def head(path="/v1/chat/completions", method="POST", **headers):
    pairs = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return RequestHead(method=method, path=path, version="1.1", headers=pairs)


def body(**fields):
    return json.dumps(fields).encode()


CALL = body(jsonrpc="2.0", id=3, method="tools/call", params={"name": "refund", "arguments": {"order": 17}})


def fault(kind, **more):
    return parse({"kind": kind, "lease_s": 30, **NEEDED.get(kind, {}), **more})


# Options


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_parsed_with_its_defaults(kind):
    made, lease_s, seed = fault(kind)

    assert (type(made), lease_s, seed) == (KINDS[kind], 30.0, 0)
    assert json.loads(json.dumps(options(made)))["share"] == 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_options_are_parsed_again_from_their_own_json(kind):
    made = fault(kind, share=1.0 if kind == "hold" else 0.5).fault

    assert fault(kind, **options(made)).fault == made


@pytest.mark.parametrize("kind", NEEDED)
def test_a_needed_option_has_no_default(kind):
    name = next(iter(NEEDED[kind]))

    with pytest.raises(InvalidValueError, match=f"^{name} is missing: {kind} cannot act without it"):
        parse({"kind": kind, "lease_s": 30})


WRONG = [
    ([], r"^a fault must be a JSON object, got \[\]"),
    ("flaky", "^a fault must be a JSON object, got 'flaky'"),
    ({"lease_s": 30}, "^kind must be one of bandwidth, .*, got None"),
    ({"kind": "flakey", "lease_s": 30}, "^kind must be one of .*flaky.*, got 'flakey'"),
    ({"kind": ["flaky"], "lease_s": 30}, r"^kind must be one of .*, got \['flaky'\]"),
    ({"kind": "flaky"}, "^lease_s is missing: every fault needs"),
    ({"kind": "flaky", "lease_s": 0}, "^lease_s must be greater than 0, got 0"),
    ({"kind": "flaky", "lease_s": 3601}, "^lease_s must be at most 3600, got 3601"),
    ({"kind": "flaky", "lease_s": True}, "^lease_s must be a finite number, got True"),
    ({"kind": "flaky", "lease_s": math.nan}, "^lease_s must be a finite number, got nan"),
    ({"kind": "flaky", "lease_s": 9, "seed": 0.5}, "^seed must be a whole number, got 0.5"),
    ({"kind": "flaky", "lease_s": 9, "seed": -1}, "^seed must be at least 0, got -1"),
    ({"kind": "flaky", "lease_s": 9, "seed": 10**400}, "^seed must be at most 1.84467e.19, got 1000"),
    ({"kind": "flaky", "lease_s": 9, "share": 0}, "^share must be greater than 0, got 0"),
    ({"kind": "flaky", "lease_s": 9, "share": 1.1}, "^share must be at most 1, got 1.1"),
    ({"kind": "flaky", "lease_s": 9, "model": "m"}, "^flaky has no option 'model'; it takes share, match, status"),
    ({"kind": "flaky", "lease_s": 9, "status": 200}, "^status must be at least 400, got 200"),
    ({"kind": "flaky", "lease_s": 9, "status": "503"}, "^status must be a whole number, got '503'"),
    ({"kind": "flaky", "lease_s": 9, "retry_after_s": 0.5}, "^retry_after_s must be a whole number, got 0.5"),
    ({"kind": "slow_error", "lease_s": 9, "delay_s": 0}, "^delay_s must be greater than 0, got 0"),
    ({"kind": "flaky", "lease_s": 9, "match": "POST"}, "^match must be a JSON object, got 'POST'"),
    ({"kind": "flaky", "lease_s": 9, "match": {"host": "a"}}, "^match has no option 'host'; it takes path, method, m"),
    ({"kind": "flaky", "lease_s": 9, "match": {"path": ""}}, "^match.path must be a text that is not empty, got ''"),
    ({"kind": "flaky", "lease_s": 9, "match": {"method": None}}, "^match.method must be a text .*, got None"),
    ({"kind": "flaky", "lease_s": 9, "match": {"model": 3}}, "^match.model must be a text .*, got 3"),
    ({"kind": "flaky", "lease_s": 9, "match": {"header": "x-a"}}, "^match.header must be .name: glob., got 'x-a'"),
    ({"kind": "flaky", "lease_s": 9, "match": {"header": " : a"}}, "^match.header must be .name: glob., got ' : a'"),
    ({"kind": "flaky", "lease_s": 9, "match": {"streaming": 1}}, "^match.streaming must be true, false or null, got 1"),
    ({"kind": "reject", "lease_s": 9, "match": {}}, "^reject has no option 'match'; it takes share$"),
    ({"kind": "latency", "lease_s": 9, "delay_s": 0}, "^delay_s must be greater than 0, got 0"),
    ({"kind": "latency", "lease_s": 9, "delay_s": 1, "jitter_s": 2}, "^jitter_s must be at most 1, got 2"),
    (
        {"kind": "latency", "lease_s": 9, "delay_s": 1, "distribution": "pareto"},
        "^distribution must be one of uniform, normal, got 'pareto'",
    ),
    ({"kind": "bandwidth", "lease_s": 9, "bytes_per_s": 0}, "^bytes_per_s must be at least 1, got 0"),
    ({"kind": "late_first_token", "lease_s": 9, "delay_s": 0}, "^delay_s must be greater than 0, got 0"),
    ({"kind": "stall", "lease_s": 9, "after_tokens": 0.5}, "^after_tokens must be a whole number, got 0.5"),
    ({"kind": "stall", "lease_s": 9, "for_s": 0}, "^for_s must be greater than 0, got 0"),
    ({"kind": "stall", "lease_s": 9, "keep_alive_s": 0}, "^keep_alive_s must be at least 0.01, got 0"),
    ({"kind": "truncate", "lease_s": 9, "after_tokens": -1}, "^after_tokens must be at least 0, got -1"),
    (
        {"kind": "truncate", "lease_s": 9, "after_tokens": 1, "how": "half"},
        "^how must be one of clean, false_stop, mid",
    ),
    ({"kind": "inband_error", "lease_s": 9, "after_tokens": True}, "^after_tokens must be a whole number, got True"),
    ({"kind": "malformed", "lease_s": 9, "after_tokens": "1"}, "^after_tokens must be a whole number, got '1'"),
    ({"kind": "duplicate", "lease_s": 9, "after_tokens": None}, "^after_tokens must be a whole number, got None"),
    ({"kind": "reorder", "lease_s": 9, "after_tokens": 10**10}, "^after_tokens must be at most 1e.09, got 1000"),
    ({"kind": "slow_drip", "lease_s": 9, "every_s": 0}, "^every_s must be at least 0.001, got 0"),
    (
        {"kind": "slow_drip", "lease_s": 9, "every_s": 1, "bytes_per_piece": 0},
        "^bytes_per_piece must be at least 1, got 0",
    ),
    ({"kind": "wrong_model", "lease_s": 9, "model": ""}, "^model must be a text that is not empty, got ''"),
    (
        {"kind": "empty_answer", "lease_s": 9, "after_tokens": 1},
        "^empty_answer has no option 'after_tokens'; it takes s",
    ),
    ({"kind": "hold", "lease_s": 9, "event": "sent"}, "^event must be one of received, first_token, answered, deliv"),
    ({"kind": "hold", "lease_s": 9, "number": 0}, "^number must be at least 1, got 0"),
    ({"kind": "hold", "lease_s": 9, "most_s": 0}, "^most_s must be greater than 0, got 0"),
    ({"kind": "hold", "lease_s": 9, "share": 0.5}, "^share must be 1, because number selects the request, got 0.5"),
    ({"kind": "hold", "lease_s": 9, "match": {"model": "m"}}, "^match of hold must not name model or streaming"),
    ({"kind": "flaky", "lease_s": 9, "match": {"tool": ""}}, "^match.tool must be a text that is not empty, got ''"),
    (
        {"kind": "tool_error", "lease_s": 9, "match": {"path": "/mcp"}},
        "^match.tool is missing: tool_error acts on calls",
    ),
    ({"kind": "tool_rate_limited", "lease_s": 9, "retry_after_s": -1}, "^retry_after_s must be at least 0, got -1"),
    ({"kind": "tool_slow", "lease_s": 9, "delay_s": 0}, "^delay_s must be greater than 0, got 0"),
    ({"kind": "tool_slow", "lease_s": 9, "delay_s": 1, "match": {}}, "^match.tool is missing: tool_slow acts on calls"),
    ({"kind": "tool_lost_answer", "lease_s": 9, "then": "rst"}, "^then must be one of close, hang, got 'rst'"),
    ({"kind": "tool_injected_text", "lease_s": 9, "text": ""}, "^text must be a text that is not empty, got ''"),
    ({"kind": "reset", "lease_s": 9, "after_bytes": -1}, "^after_bytes must be at least 0, got -1"),
]


@pytest.mark.parametrize(("data", "message"), WRONG, ids=[message[1:40] for _, message in WRONG])
def test_bad_input_is_one_clear_error(data, message):
    with pytest.raises(InvalidValueError, match=message):
        parse(data)


def test_the_readme_lists_each_kind_with_its_options():
    common = {"share", "match"}
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", README.read_text(), re.MULTILINE)
    listed = {kind: set(re.findall(r"`(\w+)(?:=[^`]*)?`", cell)) for kind, cell in rows}

    assert listed == {kind: {field.name for field in fields(made)} - common for kind, made in KINDS.items()}


# Selection


@pytest.mark.parametrize(
    ("match", "request_head", "request_body", "matches"),
    [
        ({}, head(), b"", True),
        ({}, head(method="GET"), b"", False),
        ({"method": "*"}, head(method="GET"), b"", True),
        ({"method": "get"}, head(method="GET"), b"", True),
        ({"path": "/v1/*"}, head(), b"", True),
        ({"path": "/v1/*"}, head("/api/chat"), b"", False),
        ({"path": "*/completions"}, head("/v1/chat/completions?beta=/x"), b"", True),
        ({"header": "X-Tenant: a*"}, head(x_tenant="acme"), b"", True),
        ({"header": "x-tenant: a*"}, head(x_tenant="beta"), b"", False),
        ({"header": "x-tenant: a*"}, head(), b"", False),
        ({"model": "m-*"}, head(), body(model="m-1"), True),
        ({"model": "m-*"}, head(), body(model="n-1"), False),
        ({"model": "*"}, head(), body(model=3), False),
        ({"model": "*"}, head(), b"not JSON", False),
        ({"tool": "ref*"}, head("/mcp"), CALL, True),
        ({"tool": "ref*", "path": "/mcp"}, head("/mcp"), CALL, True),
        ({"tool": "mail"}, head("/mcp"), CALL, False),
        ({"tool": "*"}, head("/mcp"), b"[" + CALL + b"]", False),
        ({"tool": "*"}, head("/mcp", "GET"), CALL, False),
        ({"tool": "*"}, head("/mcp"), CALL.replace(b"tools/call", b"tools/list"), False),
        ({"tool": "*"}, head("/mcp"), CALL.replace(b"2.0", b"1.0"), False),
        ({"tool": "*"}, head("/mcp"), CALL.replace(b'"refund"', b"7"), False),
        ({"tool": "*"}, head("/mcp"), body(jsonrpc="2.0", method="tools/call", params=["refund"]), False),
        ({"model": "*"}, head(), b"[1]", False),
        ({"model": "*"}, head(), b"[" * 100_000, False),
        ({"model": "*"}, head(), b"\xff", False),
        ({"streaming": True}, head(), body(stream=True), True),
        ({"streaming": True}, head(), body(stream=False), False),
        ({"streaming": True}, head(), body(model="m"), False),
        ({"streaming": False}, head(), body(model="m"), True),
        ({"streaming": True}, head("/api/chat"), body(model="m"), True),
        ({"streaming": True}, head("/api/generate"), body(model="m"), True),
        ({"streaming": False}, head("/api/generate"), body(model="m", stream=False), True),
        ({"streaming": True}, head("/generate_stream"), body(inputs="a"), True),
        ({"streaming": True}, head("/generate"), body(inputs="a"), False),
        ({"streaming": True, "model": "m"}, head(), body(model="n", stream=True), False),
        ({"streaming": True, "model": "m"}, head(), body(model="m", stream=True), True),
    ],
)
def test_a_request_is_selected_by_all_conditions(match, request_head, request_body, matches):
    assert Match(**match).matches(request_head, request_body) is matches


@pytest.mark.parametrize(
    ("match", "needs"),
    [({}, False), ({"header": "a: b"}, False), ({"model": "*"}, True), ({"streaming": False}, True)],
)
def test_only_model_and_streaming_need_the_body(match, needs):
    assert Match(**match).needs_body is needs


# Decision


@given(st.integers(0, 2**64 - 1), st.floats(0.05, 0.95))
def test_the_chosen_share_is_within_binomial_bounds(seed, share):
    count = 2000
    chosen = sum(is_chosen(seed, "flaky", f"r-{i}", 1, share) for i in range(count))

    # Six standard deviations: one false alarm in 5e8 examples.
    assert abs(chosen - share * count) <= 6 * math.sqrt(count * share * (1 - share))


@given(st.integers(0, 2**64 - 1), st.text(), st.integers(1, 100), st.floats(0.01, 1.0))
def test_the_same_request_gets_the_same_decision_and_a_larger_share_keeps_it(seed, request_id, nth, share):
    chosen = is_chosen(seed, "stall", request_id, nth, share)

    assert is_chosen(seed, "stall", request_id, nth, share) is chosen
    assert is_chosen(seed, "stall", request_id, nth, 1.0)
    assert not chosen or is_chosen(seed, "stall", request_id, nth, min(1.0, share * 1.5))


@pytest.mark.parametrize(
    "other",
    [
        {"nth": 2},
        {"kind": "flaky"},
        {"seed": 8},
    ],
    ids=["seen again", "another kind", "another seed"],
)
def test_another_identity_is_decided_independently(other):
    count = 4000
    same = {"seed": 7, "kind": "stall", "nth": 1}
    both = sum(
        is_chosen(request_id=f"r-{i}", share=0.5, **same)
        and is_chosen(request_id=f"r-{i}", share=0.5, **(same | other))
        for i in range(count)
    )

    assert abs(both - count / 4) <= 6 * math.sqrt(count * 0.25 * 0.75)


def test_the_decisions_of_a_seed_never_change():
    assert "".join(str(int(is_chosen(7, "stall", f"r-{i}", 1, 0.5))) for i in range(24)) == "101110000111011001110101"


# Answers instead of the service


@pytest.mark.parametrize(
    ("data", "status", "headers", "kind", "reason"),
    [
        ({"kind": "flaky"}, 503, {}, "server_error", "Service Unavailable"),
        ({"kind": "flaky", "status": 429, "retry_after_s": 2}, 429, {"retry-after": "2"}, "rate_limit_error", "Too Many Requests"),
        ({"kind": "flaky", "status": 529}, 529, {}, "overloaded_error", "Overloaded"),
        ({"kind": "flaky", "status": 404}, 404, {}, "invalid_request_error", "Not Found"),
        ({"kind": "flaky", "status": 599}, 599, {}, "server_error", "Error"),
        ({"kind": "slow_error", "delay_s": 0.5}, 500, {}, "server_error", "Internal Server Error"),
    ],
)  # fmt: skip
def test_an_error_instead_of_an_answer_has_the_format_of_openai(data, status, headers, kind, reason):
    made = parse({"lease_s": 30, **data}).fault
    assert isinstance(made, faults.AnswerFault)
    substitute = made.answer(head(), b"")

    assert (substitute.status, substitute.reason) == (status, reason)
    assert dict(substitute.headers) == {"content-type": "application/json"} | headers
    assert substitute.delay_s == data.get("delay_s", 0.0)
    assert json.loads(substitute.body) == {
        "error": {"message": f"{reason} (injected by the fault agent)", "type": kind, "param": None, "code": status}
    }
