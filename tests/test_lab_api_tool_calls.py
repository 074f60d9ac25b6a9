"""Tool calls pass the gateway unchanged, and no replica continues or repeats one."""

import asyncio
import json
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

import uvloop
from aiohttp import web
from support.cutter import Cut, cutting
from support.lab_api_world import DONE, MODEL, Answer, World, answers, hangs, in_world, sends, world
from support.lab_engine_world import world as engine

ON = {
    "LAB_MIGRATION": "on", "LAB_EJECT_MIN_REQUESTS": "100000", "LAB_RETRY_BURST": "1000", "LAB_GAP_TIMEOUT_S": "5",
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


WAYS = ("end", "reset", "hang")


def _due(cut: int, way: str) -> tuple[bytes, int, str]:
    """Events, attempts and outcome of a stream that is cut after `cut` events."""
    if cut < 2:  # no token: the client sees nothing of the failed attempt
        return WHOLE, 2, "ok"
    if cut < len(STREAM):
        return b"".join(STREAM[:cut]), 1, "stall_timeout" if way == "hang" else "truncated"
    return WHOLE, 1, "ok"


@in_world(**ON | {"LAB_TTFT_TIMEOUT_S": "1.5", "LAB_GAP_TIMEOUT_S": "1.5"})
async def test_a_stream_cut_in_a_tool_call_is_reported_and_one_cut_after_it_is_ended(it: World) -> None:
    attempts: Counter[str] = Counter()
    cases = [(cut, way) for cut in range(len(STREAM) + 1) for way in WAYS]

    async def behave(request: web.Request) -> web.StreamResponse:
        """Cut the first answer to each request. Its user names the cut."""
        name = json.loads(await request.read())["messages"][0]["content"]
        attempts[name] += 1
        cut, way = name.split()
        first = attempts[name] == 1
        return await (sends(*STREAM[: int(cut)], then=way) if first else sends(*STREAM, DONE))(request)

    async def seen(cut: int, way: str) -> tuple[bytes, int, str]:
        name = f"{cut} {way}"
        answer = await it.chat(ask(messages=[{"role": "user", "content": name}]))
        if answer.complete:
            return answer.body, attempts[name], "ok"
        return answer.body.rsplit(b"data: ", 1)[0], attempts[name], answer.error["code"]

    for model in it.models:
        model.behaviour = behave
    results = await asyncio.gather(*(seen(*case) for case in cases))

    assert dict(zip(cases, results, strict=True)) == {case: _due(*case) for case in cases}
    assert await it.outcomes() == dict(Counter(_due(*case)[2] for case in cases))


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


def _joined(answer: Answer) -> tuple[list[str], str]:
    """Ids, names and arguments of the calls, as a client joins them, and the text."""
    events = [json.loads(part[6:]) for part in answer.body.split(b"\n\n") if part.startswith(b"data: {")]
    deltas = [choice["delta"] for one in events for choice in one.get("choices", ())]
    calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
    ids = [call["id"] for call in calls if "id" in call]
    pieces = [call["function"].get("name", "") + call["function"].get("arguments", "") for call in calls]
    return [*ids, "".join(pieces)], "".join(delta.get("content") or "" for delta in deltas)


def test_engines_cut_at_any_byte_give_one_call_or_an_error_and_the_whole_text() -> None:
    """The text after the last result is continued, and a call is not."""
    seen: list[str] = []
    plan: dict[str, list[Cut]] = {}

    async def turn(it: World, order: int, at: int) -> list[dict[str, Any]]:
        """One call, cut at a byte, until it is whole. Returns the messages after it."""
        messages: list[dict[str, Any]] = [{"role": "user", "content": f"plan: refund {order}"}]
        plan[f"refund {order}"] = [Cut(at=at)]
        answer = await it.chat(ask(messages=messages, max_tokens=None))
        calls, text = _joined(answer)
        if not answer.complete:
            again = await it.chat(ask(messages=messages, max_tokens=None))
            whole = _joined(again)[0]
            if answer.error["code"] != "truncated" or not whole[-1].startswith(calls[-1]) or calls[:-1] != whole[:1]:
                seen.append(f"call cut at {at}: {answer.body!r}")
            calls = whole
        if len(calls) != 2 or calls[1] != f'refund{{"order": {order}}}' or text:
            seen.append(f"call cut at {at}: {calls} {text!r}")
        function = {"name": "refund", "arguments": calls[1].removeprefix("refund")}
        made = {"id": calls[0], "type": "function", "function": function}
        result = {"role": "tool", "tool_call_id": calls[0], "content": "refunded"}
        return [*messages, {"role": "assistant", "content": None, "tool_calls": [made]}, result]

    async def conversation(it: World, order: int, at: int) -> None:
        messages = await turn(it, order, at)
        plan[f"refund {order}"] = [Cut(at=at)]
        answer = await it.chat(ask(messages=messages, max_tokens=None))
        if not answer.complete or _joined(answer) != ([""], "done: 1 steps"):
            seen.append(f"text cut at {at}: {answer.body!r}")

    async def story() -> None:
        async with AsyncExitStack() as stack:
            fast = {"LAB_FIRST_TOKEN_S": "0.004", "LAB_TOKEN_GAP_S": "0.001"}
            engines = [await stack.enter_async_context(engine(**fast)) for _ in range(2)]
            cutters = [
                await stack.enter_async_context(cutting(int(one.url.rsplit(":", 1)[1]), plan)) for one in engines
            ]
            addresses = ",".join(f"model-{at}=http://127.0.0.1:{one.port}" for at, one in enumerate(cutters, 1))
            it = await stack.enter_async_context(world(LAB_REPLICAS=addresses, **ON))
            for number, at in enumerate(range(150, 1400, 75)):
                await conversation(it, 100 + number, at)
            outcomes = ("refused", "continued", "ended")
            counts = {outcome: await it.metric("llmlab_migrations_total", outcome=outcome) for outcome in outcomes}
            seen.extend(f"no cut was {outcome}" for outcome, count in counts.items() if not count)

    uvloop.run(story())

    assert seen == []
