"""Each reliability pattern of the gateway, switched on and off."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields

import pytest
import uvloop
from aiohttp import web
from support import virtual_time
from support.lab_api_world import DONE, World, answers, ask, chunk, good, hangs, sends, world
from support.waiting import until_async

from lab_api.outcomes import Outcome
from lab_api.pool import Pool
from lab_api.priority import HEADER
from lab_api.replica import Probed
from lab_api.settings import Admission, Ejection, Patterns, Probing, Shedding

SHOWN_BY_A_PROCESS = {"drain"}  # tests/processes/test_lab_api_process.py
ELSEWHERE = {
    "migration",
}
Observe = Callable[[str], Awaitable[object]]


@dataclass(frozen=True, kw_only=True)
class Shown:
    """An observation of a pattern, and its result with the switch on and off."""

    observe: Observe
    on: object
    off: object


SHOWN: dict[str, Shown] = {}


def shows(*, on: object, off: object) -> Callable[[Observe], Observe]:
    """Name an observation after its pattern. It gets `on` or `off`."""

    def decorate(observe: Observe) -> Observe:
        SHOWN[observe.__name__] = Shown(observe=observe, on=on, off=off)
        return observe

    return decorate


async def _occupy(it: World, count: int) -> list[asyncio.Future]:
    """Requests that are in flight or in the queue until they are cancelled."""
    for model in it.models:
        model.behaviour = hangs
    tasks = [asyncio.ensure_future(it.chat()) for _ in range(count)]
    pool = it.gateway.pool
    await until_async(
        lambda: (
            sum(replica.in_flight for replica in pool.replicas) + pool.queue_depth + sum(one.done() for one in tasks)
            == count
        ),
        "all requests have arrived",
    )
    return tasks


async def _late(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(0.15)
    return await good(request)


@shows(on=[429, 429], off=[])
async def queue(switched: str) -> object:
    async with world(replicas=1, LAB_QUEUE=switched, LAB_CONCURRENCY="1", LAB_QUEUE_MAX="1") as it:
        tasks = await _occupy(it, 4)
        refused = [task.result().status for task in tasks if task.done()]
        assert it.gateway.pool.queue_depth == 3 - len(refused)
        return refused


@shows(on="3", off=None)
async def retry_after(switched: str) -> object:
    async with world(replicas=1, LAB_RETRY_AFTER=switched, LAB_RETRY_AFTER_S="3") as it:
        it.models[0].behaviour = answers(429)
        answer = await it.chat()
        assert answer.status == 429
        return answer.headers.get("Retry-After")


@shows(on=200, off=502)
async def retry(switched: str) -> object:
    async with world(LAB_RETRY=switched) as it:
        it.models[0].behaviour = answers(500)
        return (await it.chat()).status


@shows(on=502, off=200)
async def retry_budget(switched: str) -> object:
    async with world(LAB_RETRY_BUDGET=switched, LAB_RETRY_BURST="0") as it:
        it.models[0].behaviour = answers(500)
        return (await it.chat()).status


@shows(on=2, off=6)
async def breaker(switched: str) -> object:
    async with world(LAB_BREAKER=switched, LAB_EJECT_MIN_REQUESTS="2", LAB_EJECT_S="600") as it:
        it.models[0].behaviour = answers(500)
        for _ in range(6):
            assert (await it.chat()).complete
        return len(it.models[0].asked)


@shows(on=4, off=6)
async def latency_ejection(switched: str) -> object:
    bounds = {"LAB_EJECT_LATENCY_MIN_REQUESTS": "3", "LAB_EJECT_LATENCY_FLOOR_S": "0.1"}
    async with world(LAB_LATENCY_EJECTION=switched, **bounds) as it:
        it.models[0].behaviour = _late
        for _ in range(12):
            assert (await it.chat()).complete
        ejected = await it.metric("llmlab_ejections_total", replica="model-1", cause="latency")
        assert ejected == (1 if switched == "on" else 0)
        return len(it.models[0].asked)


@shows(on=1, off=2)
async def half_open(switched: str) -> object:
    async with world(LAB_HALF_OPEN=switched, LAB_EJECT_MIN_REQUESTS="2", LAB_EJECT_S="600") as it:
        it.models[0].behaviour = answers(500)
        for _ in range(4):
            await it.chat()
        assert await it.metric("llmlab_circuit_state", replica="model-1") == 1
        it.gateway.pool.clock = lambda: time.monotonic() + 600
        assert await it.metric("llmlab_circuit_state", replica="model-1") == (2 if switched == "on" else 0)
        await _occupy(it, 4)
        return it.replica(0).in_flight


@shows(on=1, off=4)
async def slow_start(switched: str) -> object:
    async with world(replicas=1, LAB_SLOW_START=switched, LAB_SLOW_START_S="60", LAB_CONCURRENCY="4") as it:
        await it.models[0].stop()
        await until_async(lambda: not it.replica(0).healthy, "the probe sees it")
        await it.models[0].start()
        await until_async(lambda: it.replica(0).healthy, "the probe sees it again")
        await _occupy(it, 4)
        return await it.metric("llmlab_inflight_requests")


@shows(on=200, off=503)
async def fail_open(switched: str) -> object:
    async with world(LAB_FAIL_OPEN=switched, LAB_EJECT_MIN_REQUESTS="2", LAB_RETRY="off") as it:
        for model in it.models:
            model.behaviour = answers(500)
        for _ in range(4):
            await it.chat()
        assert await it.metric("llmlab_circuit_state") == 2, "both are open"
        for model in it.models:
            model.behaviour = good
        return (await it.chat()).status


@shows(on=(529, "rejected_predicted", "1"), off="waits")
async def shed(switched: str) -> object:
    bounds = {"LAB_SHED_TTFT_S": "0.05", "LAB_SHED_STATUS": "529", "LAB_CONCURRENCY": "1", "LAB_RETRY_AFTER_S": "9"}
    async with world(replicas=1, LAB_SHED=switched, **bounds) as it:
        it.models[0].behaviour = _late
        assert (await it.chat()).complete
        assert await it.metric("llmlab_predicted_first_token_seconds", priority="normal") > 0.25
        tasks = await _occupy(it, 2)
        refused = [task.result() for task in tasks if task.done()]
        if not refused:
            assert it.gateway.pool.queue_depth == 1
            return "waits"
        return refused[0].status, refused[0].error["code"], refused[0].headers["Retry-After"]


@shows(on=(["high", "high", "normal", "low", "low"], 400), off=(["low", "low", "normal", "high", "high"], 200))
async def priority(switched: str) -> object:
    async with world(replicas=1, LAB_PRIORITY=switched, LAB_CONCURRENCY="1") as it:
        (running,) = await _occupy(it, 1)
        waiting = []
        for name, more, headers in (
            ("low", {}, {HEADER: "low"}),
            ("low", {"priority": 5}, None),
            ("normal", {}, None),
            ("high", {"priority": -1}, None),
            ("high", {"priority": 5}, {HEADER: "high"}),
        ):
            waiting.append(asyncio.ensure_future(it.chat(ask(user=name, **more), headers)))
            await until_async(lambda: it.gateway.pool.queue_depth == len(waiting), "it waits")
        if switched == "on":
            assert await it.metric("llmlab_priority_queue_depth", priority="low") == 2
        it.models[0].behaviour = good
        running.cancel()
        assert all(answer.complete for answer in await asyncio.gather(*waiting))
        high = 2 if switched == "on" else 0
        assert await it.metric("llmlab_priority_requests_total", priority="high", outcome="ok") == high
        assert await it.metric("llmlab_priority_first_token_seconds_count", priority="high") == high
        order = [json.loads(body)["user"] for body in it.models[0].asked[1:]]
        return order, (await it.chat(headers={HEADER: "urgent"})).status


@shows(on=200, off=503)
async def health_apart(switched: str) -> object:
    async with world(replicas=1, LAB_HEALTH_APART=switched) as it:
        assert (await it.get("/healthz")).status == 200
        await it.models[0].stop()
        await until_async(lambda: not it.gateway.pool.ready, "the probe sees it")
        return (await it.get("/healthz")).status


@shows(on="ttft_timeout", off="request_timeout")
async def ttft_deadline(switched: str) -> object:
    short = {"LAB_TTFT_TIMEOUT_S": "0.05", "LAB_REQUEST_TIMEOUT_S": "0.3", "LAB_RETRY": "off"}
    async with world(replicas=1, LAB_TTFT_DEADLINE=switched, **short) as it:
        it.models[0].behaviour = hangs
        return (await it.chat()).error["code"]


@shows(on="stall_timeout", off="request_timeout")
async def gap_deadline(switched: str) -> object:
    short = {"LAB_GAP_TIMEOUT_S": "0.05", "LAB_REQUEST_TIMEOUT_S": "0.3"}
    async with world(replicas=1, LAB_GAP_DEADLINE=switched, **short) as it:
        it.models[0].behaviour = sends(chunk("a "), then="hang")
        return (await it.chat()).error["code"]


@shows(on=(True, False), off=(False, False))
async def strict(switched: str) -> object:
    async with world(replicas=1, LAB_STRICT=switched) as it:
        it.models[0].behaviour = sends(chunk("a "), chunk("b "))
        answer = await it.chat()
        assert answer.body.startswith(chunk("a ") + chunk("b "))
        return b'"error"' in answer.body, b"[DONE]" in answer.body


@shows(on=True, off=False)
async def keepalive(switched: str) -> object:
    short = {"LAB_KEEPALIVE_S": "0.05", "LAB_REQUEST_TIMEOUT_S": "0.3"}
    async with world(replicas=1, LAB_KEEPALIVE=switched, **short) as it:
        it.models[0].behaviour = hangs
        return b": keep-alive" in (await it.chat()).body


@shows(on=(1, 1), off=(0, 3))
async def cancel(switched: str) -> object:
    goes_on = asyncio.Event()

    async def behave(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(chunk("a "))
        await goes_on.wait()
        await response.write(chunk("b ") + chunk("c ", finish="stop") + DONE)
        return response

    async with world(replicas=1, LAB_CANCEL=switched) as it:
        it.models[0].behaviour = behave
        async with it.post() as response:
            await response.content.readany()
            response.close()
        if switched == "on":
            await until_async(lambda: it.models[0].cancelled == 1, "the work upstream is cancelled")
        for _ in range(2):
            assert (await it.get("/healthz")).status == 200  # by now the gateway has seen the client leave
        goes_on.set()
        await until_async(lambda: it.replica(0).in_flight == 0, "the place is free")
        assert await it.outcomes() == {"client_cancelled": 1}
        return it.models[0].cancelled, await it.metric("llmlab_wasted_tokens_total", reason="client_gone")


@shows(on=1, off=2)
async def affinity(switched: str) -> object:
    async with world(LAB_AFFINITY=switched) as it:
        return len({(await it.chat()).headers["x-llmlab-replica"] for _ in range(6)})


@shows(on=("ok", {}), off=("ok", {("model-1", "ttft_timeout"): 1}))
async def hedging(switched: str) -> object:
    async with world(LAB_HEDGING=switched, LAB_HEDGE_MIN_S="0.1", LAB_TTFT_TIMEOUT_S="2") as it:
        for _ in range(20):  # the usual time to first token becomes known
            await it.chat()
        it.models[0].behaviour = hangs
        it.replica(0).turn = -1
        answer = await it.chat()
        assert answer.headers["x-llmlab-replica"] == "model-2"
        return "ok" if answer.complete else "broken", await it.failures()


@pytest.mark.parametrize("switched", ["on", "off"])
@pytest.mark.parametrize("name", SHOWN)
def test_a_switch_acts(name: str, switched: str) -> None:
    shown = SHOWN[name]
    observed: object = uvloop.run(shown.observe(switched))  # type: ignore[arg-type] # each is a coroutine function

    assert observed == {"on": shown.on, "off": shown.off}[switched]


def test_every_switch_is_shown_to_act() -> None:
    assert {*SHOWN, *SHOWN_BY_A_PROCESS, *ELSEWHERE} == {one.name for one in fields(Patterns)}
    assert not SHOWN.keys() & (SHOWN_BY_A_PROCESS | ELSEWHERE)
    assert all(shown.on != shown.off for shown in SHOWN.values())


def _pool(patterns: Patterns) -> Pool:
    pool = Pool(
        {"a": "http://a"},
        admission=Admission(concurrency=1, queue_timeout_s=5),
        shedding=Shedding(),
        probing=Probing(),
        ejection=Ejection(slow_start_s=0),
        patterns=patterns,
        clock=asyncio.get_running_loop().time,
    )
    pool.replicas[0].probed(Probed.GOOD, 0, took_s=0)
    return pool


def test_without_a_queue_deadline_a_request_waits_as_long_as_it_takes() -> None:
    async def story() -> float:
        pool = _pool(Patterns(queue=False))
        held = await pool.acquire()
        waiting = asyncio.ensure_future(pool.acquire())
        await asyncio.sleep(3600)
        held.end(Outcome.OK)
        await waiting
        return pool.clock()

    assert virtual_time.run(story()) == pytest.approx(3600)


def test_a_circuit_that_closed_with_time_alone_opens_again_for_as_long() -> None:
    async def story() -> None:
        breaker = _pool(Patterns(half_open=False)).replicas[0].breaker
        for now_s in (0, 10):
            assert breaker.allows(now_s)
            for _ in range(3):
                breaker.record(now_s, Outcome.CONNECT_ERROR, trial=breaker.admit(now_s))
            assert not breaker.allows(now_s + 4.9)
            breaker.record(now_s + 4.9, Outcome.CONNECT_ERROR, trial=False)  # it had started before
            assert breaker.allows(now_s + 5)

    virtual_time.run(story())
