"""The engine goes on with a partial answer at its next token."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.lab_engine_world import MODEL, World, world

from lab_engine import chat, tokens

QUESTION = {"role": "user", "content": "what is the time?"}
CONTINUED = {"continue_final_message": True, "add_generation_prompt": False}


def parsed(messages: list[dict[str, Any]], *, room: int = 8192, **more: Any) -> chat.ChatRequest:
    body = {"model": MODEL, "messages": messages, **more}
    return chat.parse(json.dumps(body).encode(), model=MODEL, max_model_tokens=room)


def continued(prefix: str, **more: Any) -> chat.ChatRequest:
    return parsed([QUESTION, {"role": "assistant", "content": prefix}], **CONTINUED, **more)


def pieces(request: chat.ChatRequest) -> list[str]:
    """The text of each new token."""
    text = tokens.AnswerText(request.prompt)
    return [request.piece(text, index) for index in range(request.answer_tokens)]


def limits(most: int, emitted: int) -> dict[str, int]:
    """The limit that is left of one of `most` tokens, 0 for none."""
    return {"max_tokens": most - emitted} if most else {}


@given(st.integers(0, 40), st.integers(0, 300), st.one_of(st.none(), st.integers(0, 5)))
@example(0, 1, None)
@example(12, 12, None)
def test_an_answer_cut_anywhere_and_continued_is_the_answer_that_was_not_cut(most: int, cut: int, seed: int) -> None:
    more = {} if seed is None else {"seed": seed}
    whole = parsed([QUESTION], **limits(most, 0), **more)
    answer = pieces(whole)
    cut %= len(answer)
    rest = continued("".join(answer[:cut]), **limits(most, cut), **more)

    assert pieces(rest) == answer[cut:]
    assert rest.finish_reason == whole.finish_reason
    assert rest.prompt_tokens == whole.prompt_tokens + cut
    assert rest.answer_tokens == whole.answer_tokens - cut
    assert rest.rendered == whole.rendered


@given(st.integers(0, 200), st.integers(1, 30), st.integers(0, 300), st.booleans())
@example(0, 1, 0, True)
@example(69, 1, 9, True)
@example(69, 9, 8, True)
def test_a_stop_string_ends_the_answer_at_the_same_place_after_a_cut(
    at: int, width: int, cut: int, limited: bool
) -> None:
    stop = tokens.answer(QUESTION["content"], 40)[at : at + width]
    most = 30 if limited else 0
    whole = parsed([QUESTION], stop=stop, **limits(most, 0))
    answer = pieces(whole)
    # A client cannot return a token without text, so its copy ends before that.
    told = 1 + max((index for index, piece in enumerate(answer) if piece), default=-1)
    cut = min(cut, told) if told < len(answer) else cut % len(answer)
    rest = continued("".join(answer[:cut]), stop=stop, **limits(most, cut))

    assert "".join(answer[:cut] + pieces(rest)) == "".join(answer)
    assert rest.finish_reason == whole.finish_reason
    assert cut + rest.answer_tokens == whole.answer_tokens


@given(st.text(max_size=60))
@example("x" * 13)
@example("ß✓")
def test_any_other_text_is_continued_at_the_character_that_follows_it(prefix: str) -> None:
    rest = continued(prefix, max_tokens=3)
    whole = tokens.answer(QUESTION["content"], 20)

    said = "".join(pieces(rest))
    assert said == whole[len(prefix) : len(prefix) + len(said)]
    assert (len(prefix) + len(said)) % tokens.TOKEN_CHARACTERS == 0
    assert rest.answer_tokens == 3
    assert rest.prompt_tokens == parsed([QUESTION]).prompt_tokens + -(-len(prefix) // 7)


@pytest.mark.parametrize("beyond", [0, 1, 30])
def test_an_answer_that_the_model_had_ended_ends_at_once(beyond: int) -> None:
    own = parsed([QUESTION]).answer_tokens
    rest = continued(tokens.answer(QUESTION["content"], own + beyond))

    assert pieces(rest) == [""]
    assert rest.finish_reason == "stop"


def test_the_last_character_of_an_ended_answer_still_follows() -> None:
    own = parsed([QUESTION]).answer_tokens
    rest = continued(tokens.answer(QUESTION["content"], own)[:-1])

    assert (pieces(rest), rest.finish_reason) == ([" "], "stop")


def test_a_partial_answer_leaves_as_much_room_in_the_context_as_it_took() -> None:
    fits = parsed([QUESTION]).prompt_tokens + 100
    rest = parsed(
        [QUESTION, {"role": "assistant", "content": tokens.answer(QUESTION["content"], 60)}],
        room=fits, max_tokens=40, **CONTINUED,
    )  # fmt: skip

    assert rest.answer_tokens == 40


def test_an_assistants_last_message_without_the_field_is_answered_anew() -> None:
    answered = parsed([QUESTION, {"role": "assistant", "content": "noon"}], max_tokens=3)

    assert "".join(pieces(answered)) == tokens.answer(QUESTION["content"], 3)
    assert answered.prompt_tokens > parsed([QUESTION], max_tokens=3).prompt_tokens


def test_a_continued_stream_has_only_the_new_tokens_and_counts_them() -> None:
    async def scenario(lab: World) -> None:
        messages = [QUESTION, {"role": "assistant", "content": tokens.answer(QUESTION["content"], 5)}]
        events = await lab.events(messages=messages, max_tokens=3, stream_options={"include_usage": True}, **CONTINUED)
        whole = await lab.events(messages=[QUESTION], max_tokens=8, stream_options={"include_usage": True})

        said = [event["choices"][0]["delta"].get("content") for event in events[:-2]]
        assert "".join(said) == tokens.answer(QUESTION["content"], 8)[5 * 7 :]
        assert events[-3]["choices"][0]["finish_reason"] == "length"
        assert events[-2]["usage"]["prompt_tokens"] == whole[-2]["usage"]["prompt_tokens"] + 5
        assert events[-2]["usage"]["completion_tokens"] == 3
        assert events[-2]["usage"]["total_tokens"] == whole[-2]["usage"]["total_tokens"]

    asyncio.run(_within(scenario))


def test_a_partial_answer_is_computed_before_the_first_new_token() -> None:
    async def scenario(lab: World) -> None:
        for prefix_tokens in (0, 400):
            prefix = tokens.answer(QUESTION["content"], prefix_tokens)
            await lab.events(messages=[QUESTION, {"role": "assistant", "content": prefix}], max_tokens=1, **CONTINUED)
        stats = lab.engine.scheduler.stats

        assert stats.prompt_tokens == 400 + 2 * parsed([QUESTION]).prompt_tokens

    asyncio.run(_within(scenario))


async def _within(scenario: Any) -> None:
    async with world() as lab:
        await scenario(lab)
