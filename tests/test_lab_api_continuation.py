"""Continuation of a cut answer, with the events of real servers."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.stream_shapes import SHAPES, USAGE, A, B, chunk, line, said, tool

from lab_api.ask import Ask
from lab_api.continuation import rest_of
from lab_api.emitted import NotContinuableError, read
from lab_api.rewriting import Rewriter

ROLE = said({"role": "assistant", "content": ""})
EMPTY = said({"content": ""})
MESSAGES = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]
# Shapes whose events are whole text answers. The rest has other channels or is broken.
PLAIN = [
    *("OpenAI", "OpenAI, cut by max_tokens", "Azure", "vLLM", "SGLang", "llama.cpp", "Ollama", "LiteLLM"),
    *("an empty finish reason", "several data lines", "other fields", "text that looks like an end"),
]
REFUSED = {
    "OpenAI, refusal": "refusal",
    "OpenAI, tool call": "tool_calls",
    "OpenAI, function call": "function_call",
    "vLLM, reasoning": "reasoning",
    "SGLang, reasoning": "reasoning_content",
    "half an emoji": "inside a character",
}


def ask(**more: Any) -> Ask:
    return Ask(body=json.dumps({"model": "m", "stream": True, "messages": MESSAGES, **more}).encode(), stream=True)


def sent(asked: Ask | None) -> dict[str, Any]:
    assert asked is not None
    return dict(json.loads(asked.body))


def decoded(events: bytes) -> list[dict[str, Any]]:
    bodies = [b"".join(part[5:].strip() for part in event.split(b"\n") if part.startswith(b"data:"))
              for event in events.split(b"\n\n")]  # fmt: skip
    return [json.loads(body) for body in bodies if body and body != b"[DONE]"]


def text_of(events: bytes) -> str:
    deltas = [choice.get("delta") or {} for event in decoded(events) for choice in event["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)


def forwarded(events: list[bytes]) -> list[bytes]:
    """The data events of a shape, which the gateway forwards."""
    return [event for event in events if b"[DONE]" not in event[:20] and decoded(event)]


def reason_of(asked: Ask, *events: bytes) -> str:
    with pytest.raises(NotContinuableError) as caught:
        rest_of(asked, b"".join(events))
    return str(caught.value)


@pytest.mark.parametrize("name", PLAIN)
def test_the_rest_of_every_servers_answer_is_requested_wherever_it_is_cut(name: str) -> None:
    events = forwarded(SHAPES[name].events)
    for cut in range(1, len(events) + 1):
        before = b"".join(events[:cut])
        if not text_of(before):
            continue
        rest = rest_of(ask(max_tokens=50, temperature=0.5, x_unknown={"a": 1}), before)
        if any(choice.get("finish_reason") for event in decoded(before) for choice in event["choices"]):
            assert (rest.ask, rest.end) == (None, b"")
            continue

        tokens = sum(bool(text_of(event)) for event in events[:cut])
        assert sent(rest.ask) == {
            "model": "m", "stream": True, "temperature": 0.5, "x_unknown": {"a": 1}, "max_tokens": 50 - tokens,
            "messages": [*MESSAGES, {"role": "assistant", "content": text_of(before)}],
            "continue_final_message": True, "add_generation_prompt": False,
        }  # fmt: skip


@pytest.mark.parametrize("second", PLAIN)
@pytest.mark.parametrize("first", PLAIN)
def test_any_servers_rest_reads_as_the_end_of_any_servers_answer(first: str, second: str) -> None:
    begun = [event for event in forwarded(SHAPES[first].events) if text_of(event)][:1]
    opening = forwarded(SHAPES[first].events)
    opening = opening[: opening.index(begun[0]) + 1]
    rest = forwarded(SHAPES[second].events)
    other = [event.replace(b"chatcmpl-1", b"another") for event in rest]
    rewriter = Rewriter(read(b"".join(opening)))
    rewritten = b"".join(map(rewriter, other))
    whole = b"".join(opening) + rewritten

    assert text_of(whole) == text_of(begun[0]) + text_of(b"".join(rest))
    assert {event["id"] for event in decoded(rewritten)} == {"chatcmpl-1"}
    roles = [choice["delta"] for event in decoded(rewritten) for choice in event["choices"] if choice.get("delta")]
    assert not any("role" in delta for delta in roles)
    finishes = [choice.get("finish_reason") for event in decoded(whole) for choice in event["choices"]]
    assert sum(map(bool, finishes)) == 1


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_text_alone_is_not_continued(name: str) -> None:
    events = [event for event in forwarded(SHAPES[name].events) if b'"finish_reason": "' not in event]

    assert REFUSED[name] in reason_of(ask(), *events[:2], *events[2:3])


def test_a_tool_call_is_never_continued_and_ends_without_a_request_once_it_is_finished() -> None:
    call = [said({"role": "assistant", "content": None}), tool("", id="call_1", type="function"), tool('{"x":1}')]
    for cut in (2, 3):
        assert reason_of(ask(max_tokens=cut - 1), A, *call[:cut]) == "its events have tool_calls"
    rest = rest_of(ask(), b"".join([*call, said(finish="tool_calls")]))

    assert (rest.ask, rest.end) == (None, b"")


REQUESTS = {
    "logprobs": {"logprobs": True},
    "a schema": {"response_format": {"type": "json_object"}},
    "a guided choice": {"guided_choice": ["yes", "no"]},
    "a grammar": {"grammar": "root ::= x"},
    "structured outputs": {"structured_outputs": {"regex": "x"}},
    "an echo": {"echo": True},
    "a tool that must be called": {"tool_choice": "required"},
    "a named tool": {"tool_choice": {"type": "function", "function": {"name": "f"}}},
    "two choices": {"n": 2},
}


@pytest.mark.parametrize("case", REQUESTS)
def test_a_request_whose_effect_would_not_survive_the_cut_is_not_continued(case: str) -> None:
    assert f"its request has {next(iter(REQUESTS[case]))}" == reason_of(ask(**REQUESTS[case]), A)


def test_requests_without_such_effects_are_continued() -> None:
    more = {"logprobs": False, "response_format": {"type": "text"}, "n": 1, "guided_json": None, "tool_choice": "auto"}

    assert sent(rest_of(ask(seed=1, temperature=1, **more), A).ask)["seed"] == 1


@pytest.mark.parametrize("case", ["logprobs", "a second choice", "parts", "garbage", "a list"])
def test_events_that_cannot_be_taken_over_are_not_continued(case: str) -> None:
    event, reason = {
        "logprobs": (chunk([{"index": 0, "delta": {"content": "a"}, "logprobs": {"content": []}}]), "logprobs"),
        "a second choice": (chunk([{"index": 1, "delta": {"content": "a"}}]), "more than one choice"),
        "parts": (said({"content": [{"type": "text", "text": "a"}]}), "not text"),
        "garbage": (b"data: {x}\n\n", "not JSON"),
        "a list": (line([]), "not a JSON object"),
    }[case]

    assert reason in reason_of(ask(), A, event)


def test_halves_of_a_character_in_two_events_are_one_character() -> None:
    halves = [line({"choices": [{"index": 0, "delta": {"content": half}}]}) for half in ("\ud83d", "\ude00")]

    assert read(b"".join(halves)).text == "\U0001f600"
    assert reason_of(ask(), A, halves[0]) == "it was cut inside a character"


def test_a_token_without_text_counts_only_when_text_follows() -> None:
    assert read(ROLE + A + EMPTY + B + EMPTY + EMPTY).tokens == 3
    assert read(ROLE + A + said({}) + said(None, None)).tokens == 1


def test_the_servers_own_count_goes_before_the_number_of_events() -> None:
    events = said({"content": "a b c"}, usage={"prompt_tokens": 7, "completion_tokens": 3})
    emitted = read(ROLE + events)

    assert (emitted.tokens, emitted.prompt_tokens, emitted.counted) == (3, 7, False)


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "n_predict"])
def test_a_limit_counts_what_was_emitted(name: str) -> None:
    assert sent(rest_of(ask(**{name: 10}), A + B).ask)[name] == 8


def test_no_limit_stays_no_limit_and_a_least_length_shrinks() -> None:
    body = sent(rest_of(ask(n_predict=-1, max_tokens=None, min_tokens=1), A + B).ask)

    assert (body["n_predict"], body["max_tokens"], body["min_tokens"]) == (-1, None, 0)


def test_an_answer_with_all_its_tokens_gets_the_end_that_it_lacks() -> None:
    rest = rest_of(ask(max_tokens=2), ROLE + A + B)
    (end,) = decoded(rest.end)

    assert rest.ask is None
    assert end["id"] == "chatcmpl-1"
    assert end["choices"] == [{"index": 0, "delta": {}, "finish_reason": "length"}]


@pytest.mark.parametrize("events", [[ROLE, A, said(finish="stop")], [ROLE, A, B]], ids=["finished", "at its limit"])
def test_an_answer_that_lacks_only_its_usage_is_not_made_up(events: list[bytes]) -> None:
    asked = ask(max_tokens=2, stream_options={"include_usage": True})

    assert "usage is missing" in reason_of(asked, *events)
    assert rest_of(asked, b"".join([*events, USAGE])).ask is None


def test_a_clients_own_partial_answer_grows() -> None:
    own = [*MESSAGES, {"role": "assistant", "content": "well, "}]
    body = sent(rest_of(ask(messages=own, continue_final_message=True, add_generation_prompt=False), A + B).ask)

    assert body["messages"] == [*MESSAGES, {"role": "assistant", "content": "well, ab"}]


@pytest.mark.parametrize("more", [{}, {"continue_final_message": True}], ids=["without its word", "in parts"])
def test_an_assistants_last_message_that_servers_read_differently_is_not_continued(more: dict[str, Any]) -> None:
    last = {"role": "assistant", "content": [{"type": "text", "text": "x"}] if more else "x"}

    assert "last message" in reason_of(ask(messages=[*MESSAGES, last], **more), A)


def test_usage_is_that_of_one_request() -> None:
    details = {"cached_tokens": 12, "audio_tokens": 0}
    counted = {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17, "prompt_tokens_details": details}
    rewriter = Rewriter(read(ROLE + A + B))
    (event,) = decoded(rewriter(chunk([], usage=counted)))

    assert event["usage"] == {
        "prompt_tokens": 10, "completion_tokens": 7, "total_tokens": 17,
        "prompt_tokens_details": {"cached_tokens": 10, "audio_tokens": 0},
    }  # fmt: skip


def test_a_prompt_that_the_first_replica_counted_keeps_its_count() -> None:
    rewriter = Rewriter(read(said({"content": "a"}, usage={"prompt_tokens": 9, "completion_tokens": 2})))
    events = said({"content": "b"}, usage={"prompt_tokens": 12, "completion_tokens": 1})
    (event,) = decoded(rewriter(events))

    assert event["usage"] == {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}


@pytest.mark.parametrize("usage", [{"prompt_tokens": "many"}, {}])
def test_an_invalid_usage_is_left_alone(usage: dict[str, Any]) -> None:
    (event,) = decoded(Rewriter(read(A))(chunk([], usage=usage)))

    assert event["usage"] == usage


def test_an_echo_of_the_partial_answer_is_not_doubled() -> None:
    begun = "one two three four "
    rewriter = Rewriter(read(ROLE + b"".join(said({"content": f"{word} "}) for word in begun.split())))

    assert text_of(rewriter(ROLE + said({"content": f"{begun}five "}) + said({"content": begun}))) == f"five {begun}"


@pytest.mark.parametrize(
    ("tokens", "first"), [(("a", "a"), "aab"), (("ha ",) * 3, "ha ha ha ha "), (("\n",) * 8, "\n" * 8)]
)
def test_a_short_beginning_that_comes_again_may_be_a_repetition(tokens: tuple[str, ...], first: str) -> None:
    rewriter = Rewriter(read(ROLE + b"".join(said({"content": token}) for token in tokens)))
    with pytest.raises(NotContinuableError, match="an echo or a repetition"):
        rewriter(said({"content": first}))


def test_a_repeated_token_is_no_echo() -> None:
    rewriter = Rewriter(read(ROLE + A))

    assert text_of(rewriter(ROLE + A + A)) == "aa"


def test_a_rest_that_begins_another_answer_is_refused() -> None:
    rewriter = Rewriter(read(ROLE + A))
    with pytest.raises(NotContinuableError, match="reasoning"):
        rewriter(ROLE + said({"reasoning": "hm"}))


def test_a_call_after_the_text_is_forwarded() -> None:
    rewriter = Rewriter(read(ROLE + A))
    calls = rewriter(said({"role": "assistant", "content": None}) + tool("{}", id="call_1"))

    assert [event["choices"][0]["delta"].get("tool_calls", [{}])[0].get("id") for event in decoded(calls)] == ["call_1"]


@given(st.lists(st.text(min_size=1, max_size=5), min_size=2, max_size=12), st.data())
def test_an_answer_cut_twice_arrives_once(pieces: list[str], data: st.DataObject) -> None:
    """The second cut is in a stream that was rewritten itself."""
    cuts = sorted(data.draw(st.lists(st.integers(1, len(pieces) - 1), min_size=2, max_size=2)))

    def stream(at: int, name: str) -> bytes:
        new = [said({"content": piece}, id=name) for piece in pieces[at:]]
        counted = {"prompt_tokens": 10 + at, "completion_tokens": len(new)}
        return b"".join([said({"role": "assistant", "content": ""}, id=name), *new, chunk([], id=name, usage=counted)])

    def upto(events: bytes, tokens: int) -> bytes:
        kept = [event + b"\n\n" for event in events.split(b"\n\n") if event]
        texts = [index for index, event in enumerate(kept) if text_of(event)]
        return b"".join(kept[: texts[tokens - 1] + 1]) if tokens else b""

    client = upto(stream(0, "one"), cuts[0])
    client += upto(Rewriter(read(client))(stream(cuts[0], "two")), cuts[1] - cuts[0])
    client += Rewriter(read(client))(stream(cuts[1], "three"))

    events = decoded(client)
    assert text_of(client) == "".join(pieces)
    assert {event["id"] for event in events} == {"one"}
    assert sum("role" in choice["delta"] for event in events for choice in event["choices"]) == 1
    assert events[-1]["usage"] == {
        "prompt_tokens": 10,
        "completion_tokens": len(pieces),
        "total_tokens": 10 + len(pieces),
    }
