"""Mid-stream migration between replicas that continue answers."""

import asyncio
import json
from typing import Any

import pytest
import uvloop
from aiohttp import web
from support.lab_api_world import DONE, Behaviour, World, answers, ask, hangs, in_world, sends, world
from support.waiting import until_async

PIECES = ["the ", "quick ", "brown ", "\U0001f98a ", "jumps"]
ON = {
    "LAB_MIGRATION": "on", "LAB_EJECT_MIN_REQUESTS": "100000", "LAB_RETRY_BURST": "1000", "LAB_GAP_TIMEOUT_S": "5",
}  # fmt: skip


def event(name: str, delta: dict[str, Any] | None, finish: str | None = None, **more: Any) -> bytes:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    body = {"id": name, "object": "chat.completion.chunk", "created": 7, "model": "m", "choices": choices, **more}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def stream(name: str, begun: str = "", *, usage: bool = False, pieces: list[str] = PIECES) -> list[bytes]:
    """The events of an answer, or of its rest after what has begun."""
    told = 0
    while begun:
        begun = begun.removeprefix(pieces[told])
        told += 1
    rest = [event(name, {"role": "assistant", "content": ""})]
    rest += [event(name, {"content": piece}) for piece in pieces[told:]]
    rest.append(event(name, {}, "stop"))
    counted = {"prompt_tokens": 10 + told, "completion_tokens": len(pieces) - told, "total_tokens": 10 + len(pieces)}
    return [*rest, *([event(name, None, usage=counted)] if usage else [])]


def continues(name: str, *, upto: int | None = None, then: bytes = DONE, end: str = "end") -> Behaviour:
    """Answer, or continue an answer. `upto` events later comes `then`, and the end."""

    async def behave(request: web.Request) -> web.StreamResponse:
        asked = json.loads(await request.read())
        begun = ""
        if asked.get("continue_final_message"):
            assert asked["add_generation_prompt"] is False
            begun = asked["messages"][-1]["content"]
        events = stream(name, begun, usage="stream_options" in asked)
        return await sends(*events[:upto], then, then=end)(request)

    return behave


def decoded(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(part[6:]) for part in body.split(b"\n\n") if part.startswith(b"data: {")]


def text_of(answer: Any) -> str:
    deltas = [choice["delta"] for one in decoded(answer.body) for choice in one["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)


WAYS = {
    "a clean end": (b"", "end", "truncated"),
    "a reset": (b"", "reset", "truncated"),
    "half an event": (event("one", {"content": "half"})[:-9], "reset", "truncated"),
    "half a character": (event("one", {"content": "\U0001f98a"})[:-8], "end", "truncated"),
    "a stall": (b"", "hang", "stall_timeout"),
    "an error": (b'data: {"error": {"message": "boom"}}\n\n', "end", "inband_error"),
    "an abort": (event("one", {"content": ""}, "abort"), "end", "inband_error"),
    "garbage": (b"data: {garbage\n\n", "end", "corrupted"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_stream_cut_after_any_token_reaches_its_client_whole(way: str) -> None:
    then, end, reason = WAYS[way]
    usual = {"LAB_GAP_TIMEOUT_S": "0.1"} if way == "a stall" else {}

    async def story() -> None:
        async with world(**ON | usual) as it:
            for told in range(1, len(PIECES) + 1):
                it.models[0].behaviour = continues("one", upto=1 + told, then=then, end=end)
                it.models[1].behaviour = continues("two")
                it.replica(0).turn, it.replica(1).turn = 0, 1
                answer = await it.chat(ask(stream_options={"include_usage": True}, max_tokens=50, seed=3))

                assert answer.complete, (told, answer.body)
                events = decoded(answer.body)
                deltas = [choice for one in events for choice in one["choices"]]
                assert [piece for one in deltas if (piece := one["delta"].get("content"))] == PIECES
                assert [one["delta"]["role"] for one in deltas if "role" in one["delta"]] == ["assistant"]
                assert [one["finish_reason"] for one in deltas if one["finish_reason"]] == ["stop"]
                assert {one["id"] for one in events} == {"one"}
                assert events[-1]["usage"] == {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
                asked = json.loads(it.models[1].asked[-1])
                assert (asked["max_tokens"], asked["seed"]) == (50 - told, 3)
                assert answer.headers["x-llmlab-replica"] == "model-1"
            count = len(PIECES)
            assert await it.outcomes() == {"ok": count}
            assert await it.failures() == {("model-1", reason): count}
            assert await it.metric("llmlab_upstream_attempts_total", replica="model-2", reason="migration") == count
            assert await it.metric("llmlab_migrations_total", outcome="continued") == count
            assert await it.metric("llmlab_migrations_total") == count
            assert await it.metric("llmlab_wasted_tokens_total") == 0
            assert (it.replica(0).in_flight, it.replica(1).in_flight) == (0, 0)

    uvloop.run(story())


def broken(answer: Any, outcome: str = "truncated") -> bool:
    """True for an answer that reports the first replica's cut, and nothing else."""
    return (
        answer.error["code"] == outcome
        and "model-1" in answer.error["message"]
        and b"[DONE]" not in answer.body
        and answer.text == "the quick "
    )


CUT = continues("one", upto=3, then=b"", end="reset")


@pytest.mark.parametrize(
    "env",
    [
        pytest.param({"LAB_ATTEMPTS_MAX": "1"}, id="no attempt left"),
        pytest.param({"LAB_RETRY_BURST": "0", "LAB_RETRY_RATIO": "0"}, id="no budget left"),
        pytest.param({"replicas": "1"}, id="no other replica"),
    ],
)
def test_without_an_attempt_a_budget_or_a_replica_a_cut_is_reported(env: dict[str, str]) -> None:
    async def story() -> None:
        replicas = int(env.pop("replicas", "2"))
        async with world(replicas, **ON | env) as it:
            it.models[0].behaviour = CUT

            assert broken(await it.chat())
            assert await it.metric("llmlab_migrations_total", outcome="denied") == 1
            assert sum(len(model.asked) for model in it.models) == 1
            assert await it.metric("llmlab_wasted_tokens_total", reason="truncated") == 3

    uvloop.run(story())


@in_world(**ON | {"LAB_RETRY_BUDGET": "off", "LAB_RETRY_BURST": "0", "LAB_RETRY_RATIO": "0"})
async def test_without_a_budget_at_all_every_cut_is_migrated(it: World) -> None:
    it.models[0].behaviour = CUT
    it.models[1].behaviour = continues("two")

    assert (await it.chat()).complete


@pytest.mark.parametrize(
    ("rest", "failure"),
    [
        pytest.param(answers(400, {"error": {"message": "cannot set both"}}), None, id="a refusal"),
        pytest.param(answers(500), "upstream_5xx", id="a failure"),
        pytest.param(hangs, "ttft_timeout", id="nothing"),
        pytest.param(sends(then="reset"), "truncated", id="a reset"),
        pytest.param(
            sends(event("two", {"role": "assistant"}), event("two", {"reasoning": "hm"})),
            "corrupted",
            id="another answer",
        ),
    ],
)
def test_a_rest_that_does_not_come_leaves_the_report_of_the_cut(
    rest: Behaviour, failure: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        async with world(**ON | {"LAB_TTFT_TIMEOUT_S": "0.3"}) as it:
            it.models[0].behaviour = CUT
            it.models[1].behaviour = rest

            assert broken(await it.chat())
            assert await it.metric("llmlab_migrations_total", outcome="failed") == 1
            assert await it.outcomes() == {"truncated": 1}
            expected = {("model-1", "truncated"): 1}
            assert await it.failures() == expected | ({("model-2", failure): 1} if failure else {})
            (logged,) = [record for record in caplog.records if record.message == "request failed"]
            assert (vars(logged)["replica"], vars(logged)["attempts"]) == ("model-1", 2)
            assert await it.metric("llmlab_wasted_tokens_total", reason="truncated") == 3
            assert (it.replica(0).in_flight, it.replica(1).in_flight) == (0, 0)

    uvloop.run(story())


@pytest.mark.parametrize(
    ("body", "env", "events"),
    [
        pytest.param({"logprobs": True}, {}, [], id="by its request"),
        pytest.param({}, {"LAB_MIGRATION_MAX_BYTES": "400"}, [], id="by its length"),
        pytest.param({}, {}, [event("one", {"reasoning": "hm"})], id="by its channels"),
    ],
)
def test_an_answer_that_no_replica_can_continue_is_not_migrated(
    body: dict[str, Any], env: dict[str, str], events: list[bytes]
) -> None:
    async def story() -> None:
        async with world(**ON | env) as it:
            for model in it.models:
                model.behaviour = sends(*stream("one")[:3], *events, then="reset")
            answer = await it.chat(ask(**body))

            assert answer.error["code"] == "truncated"
            assert await it.metric("llmlab_migrations_total", outcome="refused") == 1
            assert sum(len(model.asked) for model in it.models) == 1

    uvloop.run(story())


@pytest.mark.parametrize(
    ("events", "body"),
    [
        pytest.param(stream("one"), {}, id="after its finish_reason"),
        pytest.param(stream("one")[:-1], {"max_tokens": len(PIECES)}, id="after its last token"),
        pytest.param(stream("one", usage=True), {"stream_options": {"include_usage": True}}, id="after its usage"),
    ],
)
def test_an_answer_of_which_only_the_end_is_missing_gets_it_without_a_request(
    events: list[bytes], body: dict[str, Any]
) -> None:
    async def story() -> None:
        async with world(**ON) as it:
            it.models[0].behaviour = sends(*events, then="reset")
            answer = await it.chat(ask(**body))

            assert answer.complete
            finishes = [choice["finish_reason"] for one in decoded(answer.body) for choice in one["choices"]]
            assert finishes[-1] == ("length" if "max_tokens" in body else "stop")
            assert await it.metric("llmlab_migrations_total", outcome="ended") == 1
            assert await it.outcomes() == {"ok": 1}
            assert await it.failures() == {("model-1", "truncated"): 1}
            assert it.models[1].asked == []

    uvloop.run(story())


@in_world(**ON)
async def test_an_error_after_the_finish_reason_is_still_reported(it: World) -> None:
    it.models[0].behaviour = sends(*stream("one"), b'data: {"error": {"message": "boom"}}\n\n')
    answer = await it.chat()

    assert answer.error["code"] == "inband_error"
    assert await it.metric("llmlab_migrations_total", outcome="refused") == 1


@in_world(replicas=3, **ON | {"LAB_ATTEMPTS_MAX": "3"})
async def test_a_stream_cut_twice_is_whole(it: World) -> None:
    it.models[0].behaviour = CUT
    it.models[1].behaviour = continues("two", upto=2, then=event("two", {"content": "br"})[:-5], end="reset")
    it.models[2].behaviour = continues("three")
    answer = await it.chat(ask(stream_options={"include_usage": True}))

    assert (answer.complete, {one["id"] for one in decoded(answer.body)}) == (True, {"one"})
    assert text_of(answer) == "".join(PIECES)
    assert decoded(answer.body)[-1]["usage"]["completion_tokens"] == len(PIECES)
    assert [len(model.asked) for model in it.models] == [1, 1, 1]
    assert await it.metric("llmlab_migrations_total", outcome="continued") == 2
    assert await it.failures() == {("model-1", "truncated"): 1, ("model-2", "truncated"): 1}


@in_world(**ON)
async def test_a_second_cut_without_an_attempt_left_is_the_one_reported(it: World) -> None:
    it.models[0].behaviour = CUT
    it.models[1].behaviour = continues("two", upto=2, then=b"", end="reset")
    answer = await it.chat()

    assert (answer.error["code"], "model-2" in answer.error["message"]) == ("truncated", True)
    assert answer.text == "the quick brown "
    assert await it.metric("llmlab_wasted_tokens_total", reason="truncated") == 4


@in_world(**ON)
async def test_the_silence_of_a_cut_counts_as_a_gap_and_not_as_a_first_token(it: World) -> None:
    async def late(request: web.Request) -> web.StreamResponse:
        await until_async(lambda: it.models[0].cancelled == 0 and it.replica(0).in_flight == 0, "the cut is booked")
        await asyncio.sleep(0.25)
        return await continues("two")(request)

    it.models[0].behaviour = CUT
    it.models[1].behaviour = late
    answer = await it.chat()

    assert answer.complete
    assert 0.25 <= await it.metric("llmlab_stream_max_gap_seconds_sum") < 5
    assert await it.metric("gen_ai_server_time_to_first_token_seconds_sum", error_type="") < 0.25
    assert await it.metric("gen_ai_server_time_to_first_token_seconds_count") == 1


@in_world(**ON | {"LAB_KEEPALIVE_S": "0.05", "LAB_GAP_TIMEOUT_S": "0.3"})
async def test_keep_alive_comments_during_a_stall_are_no_part_of_the_answer(it: World) -> None:
    it.models[0].behaviour = continues("one", upto=3, then=b"", end="hang")
    it.models[1].behaviour = continues("two")
    answer = await it.chat()

    assert answer.complete
    assert b": keep-alive\n\n" in answer.body
    assert text_of(answer) == "".join(PIECES)


@in_world(**ON)
async def test_an_echo_of_the_partial_answer_reaches_no_client(it: World) -> None:
    """A longer one: a short one may be a repetition."""

    async def echoes(request: web.Request) -> web.StreamResponse:
        begun = json.loads(await request.read())["messages"][-1]["content"]
        head, *rest = stream("two", begun)
        return await sends(head, event("two", {"content": begun}), *rest, DONE)(request)

    it.models[0].behaviour = continues("one", upto=5, then=b"", end="reset")
    it.models[1].behaviour = echoes
    answer = await it.chat()

    assert answer.complete
    assert answer.body.count(b'"quick ') == 1


@in_world(**ON)
async def test_a_client_that_leaves_ends_its_request_everywhere(it: World) -> None:
    it.models[0].behaviour = CUT
    it.models[1].behaviour = hangs
    async with it.post() as response:
        await response.content.readuntil(b"quick ")
        await until_async(lambda: len(it.models[1].asked) == 1, "the rest is requested")
        response.close()

    await until_async(lambda: it.models[1].cancelled == 1, "the rest is cancelled upstream")
    await until_async(lambda: it.replica(1).in_flight == 0, "its place is free")
    assert await it.outcomes() == {"client_cancelled": 1}
    assert await it.metric("llmlab_migrations_total") == 0


def cut_later(cut: asyncio.Event) -> Behaviour:
    """Two tokens, then a reset as soon as the event is set."""

    async def behave(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"".join(stream("one")[:3]))
        await cut.wait()
        assert request.transport is not None
        request.transport.abort()
        return response

    return behave


@in_world(**ON)
async def test_a_gateway_that_shuts_down_migrates_nothing(it: World) -> None:
    cut = asyncio.Event()
    it.models[0].behaviour = cut_later(cut)
    async with it.post() as response:
        await response.content.readuntil(b"quick ")
        it.gateway.draining = True
        cut.set()
        rest = await response.read()

    assert b'"code": "truncated"' in rest
    assert it.models[1].asked == []
    assert await it.metric("llmlab_migrations_total") == 0


@in_world(**ON | {"LAB_CANCEL": "off"})
async def test_nothing_is_migrated_for_a_client_who_left_unnoticed(it: World) -> None:
    cut = asyncio.Event()
    it.models[0].behaviour = cut_later(cut)
    async with it.post() as response:
        await response.content.readuntil(b"quick ")
        (exchange,) = it.gateway.board.exchanges
        response.close()
    await it.get("/healthz")  # the gateway has seen the disconnect before a later request
    cut.set()
    await until_async(lambda: exchange not in it.gateway.board.exchanges, "the request has ended")

    assert it.models[1].asked == []
    assert await it.metric("llmlab_migrations_total") == 0


@in_world(**ON | {"LAB_HEDGING": "on"})
async def test_a_cut_stream_is_migrated_with_hedging_on(it: World) -> None:
    it.models[0].behaviour = CUT
    it.models[1].behaviour = continues("two")

    assert (await it.chat()).complete
