"""The client's outcome for streams of model servers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.stream_shapes import DIALECTS, PLAIN, SHAPES, A, said

from pytest_llmchaos.loadgen import classify
from pytest_llmchaos.loadgen.dialects import FORMATS
from pytest_llmchaos.loadgen.event_stream import EventReader
from pytest_llmchaos.loadgen.wire import Answer

EXPECTED = classify.Expected("a ", "m")
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


def received(pieces, *, any_channel=True, dialect="chat"):
    """The answer to these pieces. Its times are counted in bytes of the body."""
    answer = Answer(any_channel=any_channel, dialect=dialect)
    answer.take(HEAD, 0.0, stream=True)
    at = 0
    for piece in pieces:
        at += len(piece)
        if answer.take(piece, float(at), stream=True):
            return answer
    answer.take(b"", float(at), stream=True)
    return answer


def judged(pieces, dialect="chat"):
    answer = received(pieces, dialect=dialect)
    return (answer.ended, *FORMATS[dialect].of_stream(bytes(answer.body), None))


@pytest.mark.parametrize("name", SHAPES)
def test_a_stream_gets_the_verdict_that_its_server_meant(name):
    shape = SHAPES[name]

    assert judged([shape.body], shape.dialect) == ("complete", shape.outcome, shape.tokens)


@pytest.mark.parametrize("name", SHAPES)
def test_the_first_token_is_the_first_of_any_channel_or_of_content_only(name):
    shape = SHAPES[name]
    bytewise = [shape.body[i : i + 1] for i in range(len(shape.body))]
    content = shape.first if shape.first_content == -1 else shape.first_content

    assert received(bytewise, dialect=shape.dialect).first_s == shape.end_of(shape.first)
    assert received(bytewise, any_channel=False, dialect=shape.dialect).first_s == shape.end_of(content)


@pytest.mark.parametrize("name", SHAPES)
def test_the_place_of_a_split_changes_nothing(name):
    shape = SHAPES[name]
    body, first = shape.body, shape.end_of(shape.first)
    for cut in range(1, len(body)):
        pieces = [body[:cut], body[cut:]]
        seen_s = None if first is None else cut if first <= cut else len(body)

        assert judged(pieces, shape.dialect) == ("complete", shape.outcome, shape.tokens), pieces
        assert received(pieces, dialect=shape.dialect).first_s == seen_s, pieces


@pytest.mark.parametrize("name", [name for name, shape in DIALECTS.items() if shape.outcome == "ok"])
def test_a_good_answer_is_over_with_its_last_event_and_not_before(name):
    shape = SHAPES[name]
    answer = Answer(dialect=shape.dialect)
    answer.take(HEAD, 0.0, stream=True)
    over = [answer.take(event, 1.0, stream=True) for event in shape.events]

    assert over == [False] * (len(over) - 1) + [True]


@given(st.sampled_from(list(SHAPES.values())), st.data())
def test_the_verdict_does_not_depend_on_how_a_stream_is_split(shape, data):
    body = shape.body
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=20)))
    pieces = [piece for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True) if (piece := body[a:b])]

    assert judged(pieces, shape.dialect) == ("complete", shape.outcome, shape.tokens)


@pytest.mark.parametrize(
    ("text", "data"),
    [
        (b"data: YHOO\ndata: +2\ndata: 10\n\n", [b"YHOO\n+2\n10"]),
        (b": test\n\ndata: 1\nid: 1\n\ndata:2\nid\n\ndata:  3\n\n", [b"1", b"2", b" 3"]),
        (b"data\n\ndata\ndata\n\ndata:", [b"\n"]),
        (b"data:test\n\ndata: test\n\n", [b"test", b"test"]),
        (b"data: a\r\ndata: b\r\rdata: c\n\r\n", [b"a\nb", b"c"]),
        (b"\n\n\ndata: a\n\n\n\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data: a\n", []),
        (b"\xef\xbb", []),
    ],
    ids=[
        "lines are joined",
        "one space is removed",
        "no data",
        "same",
        "line ends",
        "blank lines",
        "no end",
        "half a mark",
    ],
)
def test_events_are_read_as_in_the_standards_examples(text, data):
    bytewise = EventReader()

    assert [event.data for event in EventReader().feed(text)] == data
    assert [e.data for i in range(len(text)) for e in bytewise.feed(text[i : i + 1])] == data


def test_the_reader_does_not_wait_for_data_after_the_end():
    answer = Answer()
    answer.take(HEAD, 0.0, stream=True)

    assert not answer.take(b"".join(PLAIN[:-1]), 1.0, stream=True)
    assert answer.take(PLAIN[-1], 2.0, stream=True)
    assert (answer.ended, answer.end_s) == ("complete", 2.0)


def test_a_comment_is_no_progress_and_an_event_in_pieces_counts_when_complete():
    answer = Answer()
    answer.take(HEAD, 0.0, stream=True)
    for piece, at_s in ((A, 1.0), (b": ping\n\n", 2.0), (A[:20], 3.0), (A[20:], 5.0), (b": data: x\n\n", 6.0)):
        answer.take(piece, at_s, stream=True)

    assert (answer.first_s, answer.last_s, answer.max_gap_s) == (1.0, 5.0, 4.0)


def test_the_wait_for_a_usage_is_no_gap_and_the_usage_no_token():
    bodies = {
        "chat": (A, b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'),
        "completions": (
            b'data: {"choices":[{"text":"a"}]}\n\n',
            b'data: {"choices":[{"text":"","finish_reason":"stop"}]}\n\n',
        ),
    }
    counts = b'"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'
    usages = {
        "compact": b'data: {"choices":[],' + counts,
        "choices last": b'data: {"usage":{"prompt_tokens":3},"choices":[]}\n\n',
        "with blanks": b'data: {"choices": [], ' + counts.replace(b":", b": "),
        "with a choice": b'data: {"choices":[{"delta":{"content":""},"text":"","finish_reason":null}],' + counts,
    }
    wrong = {}
    for dialect, (token, finish) in bodies.items():
        for name, usage in usages.items():
            answer = Answer(dialect=dialect)
            answer.take(HEAD, 0.0, stream=True)
            arrivals = (
                (usage, 0.5),
                (token, 1.0),
                (token, 2.0),
                (finish, 2.5),
                (usage, 9.0),
                (b"data: [DONE]\n\n", 9.25),
            )
            over = [answer.take(piece, at_s, stream=True) for piece, at_s in arrivals]
            seen = (answer.first_s, answer.max_gap_s, answer.end_s, over.index(True), answer.ended)
            verdict = FORMATS[dialect].of_stream(bytes(answer.body), None)
            if (seen, verdict) != ((1.0, 1.0, 9.25, 5, "complete"), ("ok", 2)):
                wrong[dialect, name] = seen, verdict
            # With tokens after it, as in a stream with a usage in every event.
            stream = received([token, usage, token, b"data: [DONE]\n\n"], dialect=dialect)
            assert stream.max_gap_s == len(usage + token), name
    assert wrong == {}

    for piece in (
        b'data: {"choices":[],"usage":{\n\n',
        b'data: {"choices":[{"delta":{"content":"a"}}],"usage":{}}\n\n',
    ):
        assert received([A, piece]).max_gap_s == len(piece)  # neither is a usage alone


@pytest.mark.parametrize("reason", classify.FINISH_REASONS)
def test_a_whole_answer_is_judged_by_the_same_finish_reasons(reason):
    body = b'{"choices":[{"message":{"content":"a"},"finish_reason":"%b"}]}' % reason.encode()

    assert classify.of_whole(body).outcome == classify.FINISH_REASONS[reason]


@pytest.mark.parametrize(
    ("message", "outcome"),
    [
        (b'{"content":"a "}', "ok"),
        (b'{"content":"a ","reasoning":"hm"}', "corrupted"),
        (b'{"content":"a ","tool_calls":[{"id":"x"}]}', "corrupted"),
        (b'{"content":""}', "truncated"),
        (b'{"content":"b "}', "corrupted"),
        (b'{"content":"a a "}', "corrupted"),
    ],
    ids=["right", "a second channel", "a tool call", "nothing", "of another request", "twice"],
)
def test_a_known_answer_allows_no_other_text_in_any_channel(message, outcome):
    whole = b'{"choices":[{"message":%b,"finish_reason":"stop"}]}' % message
    stream = b'data: {"choices":[{"delta":%b,"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n' % message

    assert classify.of_whole(whole, EXPECTED).outcome == outcome
    assert classify.of_stream(stream, EXPECTED).outcome == outcome


@pytest.mark.parametrize(
    ("names", "outcome"),
    [
        ([{}, {}], "ok"),
        ([{"id": "c-1", "model": "m"}] * 2, "ok"),
        ([{"id": "", "model": ""}, {"id": "c-1", "model": "m"}], "ok"),
        ([{"id": "c-1", "model": "m"}, {"id": "c-2", "model": "m"}], "corrupted"),
        ([{"id": "c-1", "model": "m-large"}] * 2, "corrupted"),
    ],
    ids=["without names", "one answer", "a chunk without names", "two answers in one", "another model"],
)
def test_a_known_answer_must_be_one_answer_of_the_requested_model(names, outcome):
    stream = said({"content": "a "}, **names[0]) + said(finish="stop", **names[1]) + b"data: [DONE]\n\n"

    assert classify.of_stream(stream, EXPECTED).outcome == outcome
    assert classify.of_stream(stream).outcome == "ok"


def test_an_answer_of_another_model_is_corrupted_if_the_answer_is_known():
    body = b'{"model":"m-large","choices":[{"message":{"content":"a "},"finish_reason":"stop"}]}'

    assert classify.of_whole(body, EXPECTED).outcome == "corrupted"
    assert classify.of_whole(body).outcome == "ok"
