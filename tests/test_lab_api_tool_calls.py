"""Tool calls pass the gateway unchanged, and no replica continues or repeats one."""

import asyncio
import json
from typing import Any

import uvloop
from support.lab_api_world import DONE, MODEL, Answer, World, answers, hangs, in_world, sends, world

ON = {
    "LAB_MIGRATION": "on", "LAB_EJECT_MIN_REQUESTS": "100000", "LAB_RETRY_BURST": "1000", "LAB_GAP_TIMEOUT_S": "0.2",
}  # fmt: skip
CALL = {"id": "call_1", "type": "function", "function": {"name": "refund", "arguments": '{"order": 17}'}}
TOOLS = [{"type": "function", "function": {"name": "refund", "parameters": {"type": "object"}}}]
TURNS: list[dict[str, Any]] = [
    {"role": "user", "content": "plan: refund 17; refund 18"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "refunded"},
]


def ask(**more: Any) -> dict[str, Any]:
    return {"model": MODEL, "stream": True, "messages": TURNS, "tools": TOOLS, "max_tokens": 3, **more}


def event(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    body = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 7, "model": MODEL, "choices": choices}
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


def of_call(arguments: str, finish: str | None = None) -> bytes:
    return event({"tool_calls": [{"index": 0, "function": {"arguments": arguments}}]}, finish)


STREAM = [
    event({"role": "assistant", "content": ""}),
    event({"tool_calls": [{"index": 0, "id": "call_2", "type": "function", "function": {"name": "refund"}}]}),
    of_call('{"order'),
    of_call('": 18}', "tool_calls"),
]
WHOLE = b"".join([*STREAM, DONE])


@in_world(**ON)
async def test_a_request_with_tools_and_its_answer_pass_byte_for_byte(it: World) -> None:
    message = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    answer = {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    for stream, choice in ((True, "auto"), (True, "required"), (False, "auto")):
        body = json.dumps(ask(stream=stream, tool_choice=choice, parallel_tool_calls=False)).encode()
        for model in it.models:
            model.behaviour = sends(*STREAM, DONE) if stream else answers(200, answer)
            model.asked.clear()
        passed = await it.chat(body)

        assert (passed.status, [asked for model in it.models for asked in model.asked]) == (200, [body])
        assert passed.body == (WHOLE if stream else json.dumps(answer).encode())
    assert await it.outcomes() == {"ok": 3}


def _wrong_after(cut: int, way: str, answer: Answer, asked: list[int], outcome: str) -> list[str]:
    """Each difference between a stream cut after `cut` events and its due form."""
    sent = b"".join(STREAM[:cut])
    if cut < 2:  # no token: the client sees nothing of the failed attempt
        due = (WHOLE, [1, 1], "ok")
    elif cut < len(STREAM):
        due = (sent, [1, 0], {"hang": "stall_timeout"}.get(way, "truncated"))
    else:
        due = (WHOLE, [1, 0], "ok")
    body = answer.body if due[2] == "ok" else answer.body.rsplit(b"data: ", 1)[0]
    seen = (body, asked, "ok" if answer.complete else answer.error["code"])
    return [] if (seen, outcome) == (due, due[2]) else [f"{way} after {cut}: expected {due}, got {seen} as {outcome}"]


def test_a_stream_cut_in_a_tool_call_is_reported_and_one_cut_after_it_is_ended() -> None:
    failures: list[str] = []

    async def story(cut: int, way: str) -> None:
        async with world(**ON | {"LAB_TTFT_TIMEOUT_S": "0.2"}) as it:
            it.models[0].behaviour = sends(*STREAM[:cut], then=way)
            it.models[1].behaviour = sends(*STREAM, DONE)
            answer = await it.chat(ask())
            asked = [len(model.asked) for model in it.models]
            (outcome,) = await it.outcomes()
            failures.extend(_wrong_after(cut, way, answer, asked, outcome))

    async def stories() -> None:
        await asyncio.gather(*(story(cut, way) for cut in range(len(STREAM) + 1) for way in ("end", "reset", "hang")))

    uvloop.run(stories())

    assert failures == []


@in_world(**ON | {"LAB_HEDGING": "on", "LAB_HEDGE_MIN_S": "0.05"})
async def test_the_first_event_of_a_call_is_a_first_token_for_a_hedge(it: World) -> None:
    for model in it.models:
        model.behaviour = sends(*STREAM, DONE)
    assert all(answer.body == WHOLE for answer in await asyncio.gather(*(it.chat(ask()) for _ in range(20))))
    it.models[0].behaviour = hangs
    it.models[0].asked.clear()
    late = [await it.chat(ask()) for _ in range(2)]
    hung = len(it.models[0].asked)

    assert [answer.body for answer in late] == [WHOLE, WHOLE]
    assert await it.metric("llmlab_hedges_total", replica="model-2", outcome="won") == hung > 0
    assert await it.metric("gen_ai_server_time_to_first_token_seconds_count") == 22
