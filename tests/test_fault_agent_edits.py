"""Edits of the fault agent, as the load generator's classifier sees them."""

import json
from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.stream_shapes import (
    END,
    SHAPES,
    STOP,
    A,
    B,
    captured,
    completed,
    line,
    ndjson,
    said,
    talk,
    tgi,
    thinking,
    tool,
)

from fault_agent.acts import Cut, Finish, Pause, Send
from fault_agent.faults import KINDS, StreamFault, parse
from fault_agent.faults.events import LONGEST_BODY, LONGEST_EVENT, EventStream, Lines, keep_alive_of
from fault_agent.messages import AnswerHead, RequestHead
from pytest_llmchaos.loadgen import classify
from pytest_llmchaos.loadgen.dialects import FORMATS

NEVER = 10**6  # tokens that no answer here has
LINES = ("ollama", "ollama-generate")
C = said({"content": "c"})
ROLE = said({"role": "assistant", "content": ""})
# Good answers of at least three tokens. The finish has an event of its own.
GOOD = {
    "chat": ("chat", [ROLE, A, B, C, STOP, END], 3),
    "chat, CRLF": ("chat", [e.replace(b"\n", b"\r\n") for e in (ROLE, A, B, C, STOP, END)], 3),
    "chat, CR": ("chat", [e.replace(b"\n", b"\r") for e in (ROLE, A, B, C, STOP, END)], 3),
    "chat, comments and fields": (
        "chat",
        [b": ping\n\n", b"id: 1\nevent: message\n" + ROLE, A, b": ping\n\n", b"id: 2\n" + B, C, STOP, END],
        3,
    ),
    "chat, several data lines": ("chat", [ROLE, *(e.replace(b', "', b',\ndata: "') for e in (A, B, C, STOP)), END], 3),
    "chat, reasoning": ("chat", thinking("reasoning_content"), 3),
    "chat, tool call": (
        "chat",
        [tool("", id="call_1", type="function"), tool('{"x":'), tool("1}"), said(finish="tool_calls"), END],
        3,
    ),
    "chat, usage": (
        "chat",
        [said({"role": "assistant", "content": "a"}, usage=None), B, C, STOP, line({"choices": [], "usage": {}}), END],
        3,
    ),
    "completions": (
        "completions",
        [completed("a"), completed("b"), completed("c"), completed("", "stop"), END],
        3,
    ),
    "Ollama completions, captured": ("completions", captured("ollama-completions.sse"), 6),
    "Ollama, captured": ("ollama", captured("ollama-chat.ndjson"), 6),
    "Ollama, thinking": (
        "ollama",
        [talk(content="", thinking="hm"), talk(content="a"), talk(content="b"), talk(content="", done=True)],
        3,
    ),
    "Ollama generate, captured": ("ollama-generate", captured("ollama-generate.ndjson"), 6),
    "TGI": (
        "tgi",
        [tgi("<s>", special=True), tgi("a"), tgi("b"), tgi("c"), tgi("</s>", "abc", "eos_token", special=True)],
        3,
    ),
}
LAST_WITH_FINISH = {
    "chat": ("chat", [ROLE, A, B, said({"content": "c"}, "stop"), END], 3),
    "completions": ("completions", [completed("a"), completed("b"), completed("c", "stop"), END], 3),
    "Ollama": ("ollama", [talk(content="a"), talk(content="b"), talk(content="c", done=True, reason="stop")], 3),
    "TGI": ("tgi", [tgi("a"), tgi("b"), tgi("c", "abc", "length")], 3),
}
EDITS = {
    "late_first_token": {"delay_s": 1.5},
    "stall": {"after_tokens": 1},
    "stall for a time": {"after_tokens": 1, "for_s": 2, "keep_alive_s": 0.5},
    "truncate": {"after_tokens": 1},
    "truncate, false stop": {"after_tokens": 1, "how": "false_stop"},
    "truncate, mid event": {"after_tokens": 1, "how": "mid_event"},
    "inband_error": {"after_tokens": 1},
    "malformed": {"after_tokens": 1},
    "duplicate": {"after_tokens": 1},
    "reorder": {"after_tokens": 1},
    "slow_drip": {"every_s": 0.01, "bytes_per_piece": 7},
    "wrong_model": {"model": 'ot"her'},
    "empty_answer": {},
    "hold": {},
    "hold, answered": {"event": "answered"},
}
COUNTING = [name for name, given in EDITS.items() if "after_tokens" in given]


def head_of(dialect="chat", status=200, **headers):
    media = "application/json" if dialect == "whole" else FORMATS[dialect].media_type
    request = RequestHead(method="POST", path="/", version="1.1", headers=())
    pairs = (("content-type", f"{media}; charset=utf-8"), *headers.items())
    return AnswerHead(status=status, headers=tuple((n.replace("_", "-"), v) for n, v in pairs), request=request)


def fault(name, **more):
    kind = name.split(",")[0].split(" ")[0]
    made = parse({"kind": kind, "lease_s": 30, **EDITS.get(name, {}), **more}).fault
    assert isinstance(made, StreamFault)
    return made


def edit(made, pieces, dialect="chat"):
    """The joined acts, and how often the fault was really done."""
    hits = []
    editor = made.editor(head_of(dialect), lambda: hits.append(1))
    acts = [act for piece in pieces for act in editor.feed(piece)] + editor.end()
    return joined(acts), len(hits)


def joined(acts):
    """Acts with neighbouring Sends as one."""
    found = []
    for is_send, group in groupby(acts, lambda act: isinstance(act, Send)):
        if is_send:
            found.append(Send(b"".join(act.data for act in group)))
        else:
            found += group
    assert Send(b"") not in found
    return found


def sent(acts):
    return b"".join(act.data for act in acts if isinstance(act, Send))


def judged(acts, dialect, expected=None):
    return FORMATS[dialect].of_stream(sent(acts), expected)


def values(body, dialect):
    """The JSON objects of a stream."""
    events = FORMATS[dialect].reader().feed(body)
    return [json.loads(event.data) for event in events if event.data.startswith(b"{")]


def tokens_of(body, dialect):
    """The texts of a stream, without those of finished events."""
    found = []
    for value in values(body, dialect):
        for choice in value.get("choices", ()):
            delta = choice.get("delta") or {}
            found += [choice.get("text"), *map(delta.get, ("content", "reasoning_content", "tool_calls"))]
        message = value.get("message") or {}
        token = value.get("token") or {}
        found.append(message.get("content") or message.get("thinking") or value.get("response"))
        found.append(None if token.get("special") else token.get("text"))
    return [text for text in found if text]


def good(cases=GOOD):
    return pytest.mark.parametrize(("dialect", "events", "tokens"), cases.values(), ids=cases)


@good(GOOD | {f"{name}, last with finish": case for name, case in LAST_WITH_FINISH.items()})
def test_the_answers_here_are_good_and_have_these_tokens(dialect, events, tokens):
    assert FORMATS[dialect].of_stream(b"".join(events), None) == ("ok", tokens)


# Each fault, as a client sees it


def test_every_kind_of_a_stream_is_tested_here():
    streams = {kind for kind, made in KINDS.items() if issubclass(made, StreamFault)}
    # test_fault_agent_tool_calls.py and test_fault_agent_stale.py have the others.
    kinds = {kind for kind in streams if not kind.startswith(("tool_", "stale_"))}

    assert {fault(name).kind for name in EDITS} == kinds


@good()
@pytest.mark.parametrize("after", [0, 1, 2])
@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("truncate", "truncated"),
        ("truncate, mid event", "truncated"),
        ("truncate, false stop", "ok"),
        ("inband_error", "inband_error"),
    ],
)
def test_a_broken_answer_has_its_outcome_and_the_tokens_before_the_break(
    name, outcome, *, after, dialect, events, tokens
):
    whole = b"".join(events)
    acts, hits = edit(fault(name, after_tokens=after), [whole], dialect)

    assert hits == 1
    assert acts[-1] == Finish()
    assert judged(acts, dialect) == (outcome, after)
    assert tokens_of(sent(acts), dialect) == tokens_of(whole, dialect)[:after]


@good()
@pytest.mark.parametrize("name", ["truncate", "truncate, mid event", "inband_error", "malformed", "stall"])
def test_an_answer_can_break_between_its_last_token_and_its_finish(name, dialect, events, tokens):
    acts, hits = edit(fault(name, after_tokens=tokens), [b"".join(events)], dialect)
    outcome = {"inband_error": "inband_error", "malformed": "corrupted", "stall": "ok"}.get(name, "truncated")

    assert hits == 1
    assert judged(acts, dialect) == (outcome, tokens)


@good()
@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_false_stop_is_complete_in_each_field(after, dialect, events, tokens):
    acts, _ = edit(fault("truncate, false stop", after_tokens=after), [b"".join(events)], dialect)
    last = values(sent(acts), dialect)[-1]

    if dialect == "tgi":
        details = {"finish_reason": "eos_token", "generated_tokens": after, "seed": None}
        assert (last["generated_text"], last["details"]) == ("abc"[:after], details)
    elif dialect in LINES:
        assert (last["done"], last["done_reason"]) == (True, "stop")
    else:
        assert [choice["finish_reason"] for choice in last["choices"]] == ["stop"]
        assert not last.get("usage")


@good()
def test_an_answer_of_just_as_many_tokens_gets_no_false_stop(dialect, events, tokens):
    whole = b"".join(events)

    assert edit(fault("truncate, false stop", after_tokens=tokens), [whole], dialect) == ([Send(whole)], 0)


@good()
@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_malformed_event_is_corrupted_and_the_rest_passes(after, dialect, events, tokens):
    whole = b"".join(events)
    acts, hits = edit(fault("malformed", after_tokens=after), [whole], dialect)
    (body,) = acts

    assert hits == 1
    assert judged(acts, dialect) == ("corrupted", tokens - 1)
    assert len(body.data) < len(whole)
    assert body.data.endswith(events[-1])


@good()
@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_duplicated_token_comes_twice(after, dialect, events, tokens):
    whole = b"".join(events)
    acts, hits = edit(fault("duplicate", after_tokens=after), [whole], dialect)
    texts = tokens_of(whole, dialect)

    assert hits == 1
    assert judged(acts, dialect) == ("ok", tokens + 1)
    assert tokens_of(sent(acts), dialect) == [*texts[: after + 1], *texts[after:]]


@good()
@pytest.mark.parametrize("after", [0, 1])
def test_a_reordered_token_comes_after_the_next_one(after, dialect, events, tokens):
    whole = b"".join(events)
    acts, hits = edit(fault("reorder", after_tokens=after), [whole], dialect)
    texts = tokens_of(whole, dialect)

    assert hits == 1
    assert judged(acts, dialect) == ("ok", tokens)
    assert sorted(sent(acts)) == sorted(whole)
    assert tokens_of(sent(acts), dialect) == [*texts[:after], texts[after + 1], texts[after], *texts[after + 2 :]]


@good()
def test_a_wrong_model_is_in_each_event_and_other_bytes_stay(dialect, events, tokens):
    whole = b"".join(events)
    acts, hits = edit(fault("wrong_model"), [whole], dialect)
    renamed = sent(acts)

    assert judged(acts, dialect) == ("ok", tokens)
    if dialect == "tgi":
        assert (renamed, hits) == (whole, 0)
        return
    assert hits == 1
    assert {value["model"] for value in values(renamed, dialect) if "model" in value} == {'ot"her'}
    old = next(value["model"] for value in values(whole, dialect) if "model" in value)
    if b',\ndata: "' not in whole:  # several lines of data become one
        assert renamed.replace(b'"ot\\"her"', json.dumps(old).encode()) == whole


@good(GOOD | {f"{name}, last with finish": case for name, case in LAST_WITH_FINISH.items()})
def test_an_empty_answer_ends_well_without_a_token(dialect, events, tokens):
    acts, hits = edit(fault("empty_answer"), [b"".join(events)], dialect)

    assert hits == 1
    assert judged(acts, dialect) == ("ok", 0)
    assert tokens_of(sent(acts), dialect) == []
    # Only the first token is left, and one with the finish.
    assert len(values(b"".join(events), dialect)) - len(values(sent(acts), dialect)) in (tokens - 1, tokens - 2)
    assert not any(value.get("generated_text") for value in values(sent(acts), dialect))


@good()
@pytest.mark.parametrize("after", [0, 1, 2])
@pytest.mark.parametrize(
    ("name", "pause"), [("stall", Pause(None)), ("stall for a time", Pause(2, 0.5)), ("late_first_token", Pause(1.5))]
)
def test_a_pause_comes_before_the_next_token_and_no_byte_changes(name, pause, *, after, dialect, events, tokens):
    whole = b"".join(events)
    after, more = (0, {}) if name == "late_first_token" else (after, {"after_tokens": after})
    acts, hits = edit(fault(name, **more), [whole], dialect)
    place = acts.index(pause)

    assert hits == 1
    assert sent(acts) == whole
    assert len(tokens_of(sent(acts[:place]), dialect)) == after
    assert len(tokens_of(acts[place + 1].data, dialect)) == len(tokens_of(whole, dialect)) - after


@good(LAST_WITH_FINISH)
@pytest.mark.parametrize(
    ("name", "outcome"), [("truncate", "truncated"), ("truncate, false stop", "ok"), ("inband_error", "inband_error")]
)
def test_a_last_token_with_the_finish_is_replaced_as_a_whole(name, outcome, dialect, events, tokens):
    acts, hits = edit(fault(name, after_tokens=2), [b"".join(events)], dialect)

    assert hits == 1
    assert judged(acts, dialect) == (outcome, 2)


@good(LAST_WITH_FINISH)
@pytest.mark.parametrize(("name", "after"), [("duplicate", 2), ("reorder", 1)])
def test_a_last_token_with_the_finish_is_neither_duplicated_nor_reordered(name, after, dialect, events, tokens):
    whole = b"".join(events)

    assert edit(fault(name, after_tokens=after), [whole], dialect) == ([Send(whole)], 0)


# The answers of the engine, which has only one right answer for each request

PROMPT, WORDS = "why", 8
RIGHT = classify.expected_of("sim", PROMPT, WORDS, "m")


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("truncate", "truncated"),
        ("truncate, false stop", "truncated"),
        ("truncate, mid event", "truncated"),
        ("inband_error", "inband_error"),
        ("malformed", "corrupted"),
        ("duplicate", "corrupted"),
        ("reorder", "corrupted"),
        ("wrong_model", "corrupted"),
        ("empty_answer", "truncated"),
        ("late_first_token", "ok"),
        ("stall", "ok"),
        ("slow_drip", "ok"),
    ],
)
def test_a_client_with_the_expected_answer_sees_more(name, outcome):
    words = RIGHT.text.split(" ")[:WORDS]
    body = b"".join([ROLE, *(said({"content": f"{word} "}) for word in words), STOP, END])
    assert FORMATS["chat"].of_stream(body, RIGHT) == ("ok", WORDS)

    assert judged(edit(fault(name), [body])[0], "chat", RIGHT).outcome == outcome


# Shapes of all servers, good and bad


def split(body, size):
    return [body[at : at + size] for at in range(0, len(body), size)]


@pytest.mark.parametrize("name", EDITS)
def test_acts_do_not_depend_on_pieces_of_one_byte(name):
    for shape_name, shape in SHAPES.items():
        made, body = fault(name), shape.body

        assert edit(made, split(body, 1), shape.dialect) == edit(made, [body], shape.dialect), shape_name


@pytest.mark.sampled(share=0.25, by="name")
@good()
@pytest.mark.parametrize("name", [name for name in EDITS if name != "slow_drip"])
def test_acts_do_not_depend_on_the_place_of_one_cut(name, dialect, events, tokens):
    made, body = fault(name), b"".join(events)
    whole = edit(made, [body], dialect)

    for cut in range(1, len(body)):
        assert edit(made, [body[:cut], body[cut:]], dialect) == whole, cut


@given(st.sampled_from(list(SHAPES.values())), st.sampled_from(list(EDITS)), st.data())
def test_acts_do_not_depend_on_the_places_of_many_cuts(shape, name, data):
    made, body = fault(name), shape.body
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=20)))
    pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]

    assert edit(made, pieces, shape.dialect) == edit(made, [body], shape.dialect)


# A stream of line ends, in which each cut is between two of them.
CRLF = st.lists(st.sampled_from([b"\r", b"\n", b"data: {}", A.strip(), b":"]), max_size=12).map(b"".join)


@given(CRLF, st.integers(1, 5), st.sampled_from([EventStream, Lines]))
@settings(max_examples=200)
def test_events_do_not_depend_on_pieces_and_lose_no_byte(text, size, make):
    whole, pieced = make(), make()
    events = whole.feed(text)
    in_pieces = [event for piece in split(text, size) for event in pieced.feed(piece)]

    assert in_pieces == events
    assert pieced.held == whole.held
    assert b"".join(events) + whole.take_rest() == text


@given(CRLF)
@settings(max_examples=200)
def test_events_have_the_data_that_the_load_generator_reads(text):
    stream, reader = EventStream(), FORMATS["chat"].reader()
    read = [stream.data_of(event) for event in [*stream.feed(text), stream.take_rest()]]
    last = [reader.feed(text), reader.unfinished()]
    expected = [event.data for event in [*last[0], *([last[1]] if last[1] else [])]]

    assert [data for data in read if data] == [data for data in expected if data]


@pytest.mark.parametrize("name", COUNTING)
def test_before_its_moment_an_editor_passes_each_complete_event_at_once(name):
    for shape_name, shape in SHAPES.items():
        hits, passed, at, ends = [], b"", 0, set()
        editor = fault(name, after_tokens=NEVER).editor(head_of(shape.dialect), lambda: hits.append(1))  # noqa: B023
        for event in shape.events[:-1]:
            at += len(event)
            ends.add(at)
        for place, piece in enumerate(split(shape.body, 1), start=1):
            passed += sent(editor.feed(piece))
            assert shape.body.startswith(passed), shape_name
            assert place not in ends or len(passed) == place, (shape_name, place)
        passed += sent(editor.end())

        assert (passed, hits) == (shape.body, []), shape_name


@pytest.mark.parametrize("name", ["late_first_token", "stall", "malformed", "duplicate", "reorder"])
def test_after_its_moment_an_editor_passes_each_byte_at_once(name):
    hits = []
    editor = fault(name).editor(head_of(), lambda: hits.append(1))
    for event in (ROLE, A, B, C):
        editor.feed(event)
    assert hits == [1]

    assert [sent(editor.feed(piece)) for piece in split(STOP, 1)] == split(STOP, 1)
    assert editor.end() == []


def test_events_between_two_reordered_tokens_pass_at_once():
    editor = fault("reorder", after_tokens=0).editor(head_of(), lambda: None)

    assert [sent(editor.feed(event)) for event in (ROLE, A, b": ping\n\n", B, C)] == [
        ROLE,
        b"",
        b": ping\n\n",
        B + A,
        C,
    ]


@pytest.mark.parametrize("name", EDITS)
def test_what_follows_a_finish_is_dropped_and_hits_are_counted_once(name):
    acts, hits = edit(fault(name), [ROLE, A, B, C, STOP, END, *(A for _ in range(5))])

    assert hits == 1
    assert Cut() not in acts
    assert Finish() not in acts[:-1]


@pytest.mark.parametrize("name", COUNTING)
def test_a_shorter_answer_is_not_hit(name):
    whole = b"".join([ROLE, A, B, STOP, END])

    assert edit(fault(name, after_tokens=3), [whole]) == ([Send(whole)], 0)


@pytest.mark.parametrize("name", COUNTING)
@pytest.mark.parametrize("last", [A.rstrip(), A.rstrip() + b"\n"])
def test_a_last_event_without_its_end_is_an_event(name, last):
    acts, hits = edit(fault(name, after_tokens=0), [ROLE, last])

    assert hits == (name != "reorder")
    assert name != "reorder" or sent(acts) == ROLE + last


def test_two_events_made_of_a_last_one_without_its_end_are_two():
    bare = ndjson({"message": {"content": "b"}, "done": False}).rstrip()
    first = talk(content="a")

    assert sent(edit(fault("duplicate", after_tokens=0), [bare], "ollama")[0]) == bare + b"\n" + bare
    assert sent(edit(fault("reorder", after_tokens=0), [first + bare], "ollama")[0]) == bare + b"\n" + first
    assert sent(edit(fault("inband_error", after_tokens=0), [A.rstrip()])[0]).endswith(b"}\n\ndata: [DONE]\n\n")


@pytest.mark.parametrize("name", [name for name in EDITS if name not in ("slow_drip", "wrong_model")])
@pytest.mark.parametrize("size", [1 << 16, 1 << 30])
def test_a_stream_passes_unchanged_from_an_event_that_is_too_long(name, size):
    long = said({"content": "x" * LONGEST_EVENT})
    body = b"".join([ROLE, long, A, B, C, STOP, END])

    assert edit(fault(name), split(body, size)) == ([Send(body)], 0)


@given(st.data())
def test_an_event_that_is_too_long_does_not_depend_on_pieces(data):
    size = LONGEST_EVENT - len(said({"content": ""})) + data.draw(st.integers(-2, 2))
    body = b"".join([A, said({"content": "x" * size}), B, C, STOP, END])
    cut = LONGEST_EVENT + len(A) + data.draw(st.integers(-3, 3))

    for name in ("truncate", "reorder", "wrong_model", "duplicate"):
        assert edit(fault(name), [body[:cut], body[cut:]]) == edit(fault(name), [body]), name


def test_comments_of_a_proxy_change_no_outcome():
    for shape_name, shape in SHAPES.items():
        keep_alive = keep_alive_of(head_of(shape.dialect))
        body = b"".join(keep_alive + event for event in shape.events)

        if "byte order mark" not in shape_name:
            assert FORMATS[shape.dialect].of_stream(body, None) == (shape.outcome, shape.tokens), shape_name


# Drips


@given(st.binary(max_size=60), st.integers(1, 9), st.integers(1, 9))
def test_a_drip_has_pieces_of_one_size_and_a_pause_between_two(body, size, piece):
    acts, hits = edit(fault("slow_drip", bytes_per_piece=size, every_s=0.25), split(body, piece))

    assert acts == [act for part in split(body, size) for act in (Pause(0.25), Send(part))][1:]
    assert hits == bool(body)


# Whole bodies


def whole(message=None, finish="stop", **more):
    choice = {
        "index": 0,
        "message": message or {"role": "assistant", "content": "one two  three"},
        "finish_reason": finish,
    }
    return json.dumps({"id": "c", "object": "chat.completion", "model": "m", "choices": [choice]} | more).encode()


WHOLE = {
    "chat": whole(),
    "completions": json.dumps(
        {"model": "m", "choices": [{"index": 0, "text": "one two  three", "finish_reason": "stop"}]}
    ).encode(),
    "Ollama": talk(content="one two  three", done=True, reason="stop"),
    "Ollama generate": ndjson({"model": "m", "response": "one two  three", "done": True, "done_reason": "stop"}),
    "TGI": json.dumps(
        {"generated_text": "one two  three", "details": {"finish_reason": "eos_token", "tokens": [{"text": "one"}]}}
    ).encode(),
}
whole_bodies = pytest.mark.parametrize("body", WHOLE.values(), ids=WHOLE)


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("truncate", "truncated"),
        ("truncate, false stop", "ok"),
        ("truncate, mid event", "corrupted"),
        ("inband_error", "inband_error"),
        ("malformed", "corrupted"),
        ("wrong_model", "ok"),
        ("empty_answer", "ok"),
        ("late_first_token", "ok"),
    ],
)
def test_a_whole_answer_has_its_outcome(name, outcome):
    acts, hits = edit(fault(name), split(whole(), 10), "whole")

    assert hits == 1
    assert classify.of_whole(sent(acts)).outcome == outcome


def content_of(body):
    value = json.loads(body)
    choice = (value.get("choices") or [{}])[0]
    message = choice.get("message") or value.get("message") or {}
    return next(
        text
        for text in (message.get("content"), choice.get("text"), value.get("response"), value.get("generated_text"))
        if text is not None
    )


@whole_bodies
@pytest.mark.parametrize("how", ["clean", "false_stop"])
def test_a_whole_answer_is_cut_after_some_words(how, body):
    acts, hits = edit(fault("truncate", after_tokens=2, how=how), [body], "whole")
    cut = sent(acts)

    assert hits == 1
    assert content_of(cut) == "one two"
    assert (b"stop" in cut or b"eos_token" in cut) == (how == "false_stop")


@pytest.mark.parametrize(
    ("how", "after", "is_hit"), [("clean", 3, True), ("false_stop", 3, False), ("clean", 4, False)]
)
def test_a_whole_answer_that_is_too_short_is_not_cut(how, after, is_hit):
    acts, hits = edit(fault("truncate", after_tokens=after, how=how), [whole()], "whole")

    assert hits == is_hit
    assert (acts == [Send(whole())]) is not is_hit


@whole_bodies
def test_a_whole_answer_becomes_an_error_or_empty(body):
    error = json.loads(sent(edit(fault("inband_error"), [body], "whole")[0]))
    empty = sent(edit(fault("empty_answer"), [body], "whole")[0])

    assert "error" in error
    assert isinstance(error["error"], dict) == ("choices" in json.loads(body))
    assert content_of(empty) == ""
    assert b'"one' not in empty


def test_a_whole_body_names_another_model_and_is_else_the_same():
    acts, _ = edit(fault("wrong_model", model="x"), [whole()], "whole")
    twice = b'{"nested": {"model": "m"}, ' + whole()[1:]

    assert sent(acts) == whole().replace(b'"model": "m"', b'"model": "x"')
    assert json.loads(sent(edit(fault("wrong_model", model="x"), [twice], "whole")[0])) == json.loads(twice) | {
        "model": "x"
    }
    assert edit(fault("wrong_model", model="m"), [whole()], "whole") == ([Send(whole())], 0)


@pytest.mark.parametrize("body", [b"", b"{}", b"[1]", b"oops", b'{"data": []}', b'{"choices": 3}', b'{"model": 3}'])
@pytest.mark.parametrize("name", ["truncate", "inband_error", "malformed", "wrong_model", "empty_answer"])
def test_a_body_that_is_no_answer_passes(name, body):
    assert edit(fault(name), split(body, 2), "whole") == ([Send(body)] if body else [], 0)


@pytest.mark.parametrize("name", ["late_first_token", "stall"])
def test_a_whole_body_waits_before_its_first_byte(name):
    acts, hits = edit(fault(name, **({"after_tokens": 0} if name == "stall" else {})), [b"", b"{", b"}"], "whole")

    assert hits == 1
    assert [type(act) for act in acts] == [Pause, Send]
    assert sent(acts) == b"{}"


@pytest.mark.parametrize("name", ["truncate", "inband_error", "malformed", "wrong_model", "empty_answer"])
def test_a_body_that_is_too_long_passes(name):
    body = whole({"content": "x" * LONGEST_BODY})

    assert edit(fault(name), split(body, 1 << 16), "whole") == ([Send(body)], 0)


# Answers that cannot be edited


@pytest.mark.parametrize("name", [name for name in EDITS if name != "slow_drip"])
@pytest.mark.parametrize(
    "head",
    [
        head_of(status=500),
        head_of(content_encoding="gzip"),
        AnswerHead(status=200, headers=(("content-type", "text/html"),), request=head_of().request),
        AnswerHead(status=200, headers=(), request=head_of().request),
    ],
    ids=["error", "compressed", "HTML", "no type"],
)
def test_other_answers_have_no_editor(name, head):
    assert fault(name).editor(head, lambda: None) is None
    assert keep_alive_of(head) == b""


@pytest.mark.parametrize("name", ["duplicate", "reorder", "stall"])
def test_some_faults_act_on_streams_only(name):
    assert fault(name).editor(head_of("whole"), lambda: None) is None


def test_a_drip_acts_on_each_good_answer():
    assert fault("slow_drip").editor(head_of(content_encoding="gzip"), lambda: None) is not None
    assert fault("slow_drip").editor(head_of(status=404), lambda: None) is None


# Hostile input

NAMES = st.sampled_from(
    sorted({"choices", "delta", "message", "text", "content", "tool_calls", "finish_reason", "done", "response"})
    + sorted({"token", "generated_text", "details", "model", "special", "thinking", "usage", "error"})
)
ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=12,
)


@pytest.mark.parametrize("dialect", ["chat", "ollama", "whole"])
@given(events=st.lists(ODD, min_size=1, max_size=4), size=st.integers(1, 50))
@settings(max_examples=40)
def test_odd_json_raises_no_error_and_passes_if_it_is_not_hit(dialect, events, size):
    frame = {"chat": b"data: %b\n\n", "ollama": b"%b\n", "whole": b"%b"}[dialect]
    body = b"".join(frame % json.dumps(event).encode() for event in events)
    for name in EDITS:
        if fault(name).editor(head_of(dialect), lambda: None) is None:
            continue
        acts, hits = edit(fault(name), [body], dialect)

        assert edit(fault(name), split(body, size), dialect) == (acts, hits)
        assert hits or sent(acts) == body


@pytest.mark.parametrize(
    "data", [b"[" * 100_000, b'{"a":' * 20_000, b'{"choices": "\xff"}', b'{"a": ' + b"9" * 5000 + b"}"]
)
@pytest.mark.parametrize("name", [name for name in EDITS if name != "slow_drip"])
def test_data_that_python_cannot_parse_passes(name, data):
    body = b"data: " + data + b"\n\n"

    assert sent(edit(fault(name), [body])[0]) == body
