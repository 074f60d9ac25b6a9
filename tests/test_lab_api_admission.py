"""Admission, queueing and choice of replicas in front of real servers."""

import asyncio
import time

import pytest
import uvloop
from aiohttp import web
from support.lab_api_world import World, answers, ask, chunk, good, hangs, in_world, sends, whole, world
from support.waiting import until_async

from lab_api.outcomes import ATTEMPT_FAILURES
from lab_api.replica import Probed


async def _fill(it: World, count: int) -> list[asyncio.Future]:
    """Requests that stay with the replicas until they are cancelled."""
    for model in it.models:
        model.behaviour = hangs
    tasks = [asyncio.ensure_future(it.chat()) for _ in range(count)]
    await until_async(
        lambda: sum(len(model.asked) for model in it.models) == count, "all requests have reached replicas"
    )
    return tasks


@in_world(replicas=1, LAB_CONCURRENCY="1", LAB_QUEUE_MAX="2", LAB_RETRY_AFTER_S="3")
async def test_a_full_queue_answers_429_at_once_with_retry_after(it: World) -> None:
    running = await _fill(it, 1)
    waiting = [asyncio.ensure_future(it.chat()) for _ in range(2)]
    await until_async(lambda: it.gateway.pool.queue_depth == 2, "the queue is full")

    began_s = time.monotonic()
    answer = await it.chat()

    assert (answer.status, answer.error["code"], answer.headers["Retry-After"]) == (429, "rejected_queue_full", "3")
    assert time.monotonic() - began_s < 2
    assert await it.metric("llmlab_queue_depth") == 2
    it.models[0].behaviour = good
    running[0].cancel()
    assert all(one.complete for one in await asyncio.gather(*waiting))


@in_world(replicas=1, LAB_CONCURRENCY="1", LAB_QUEUE_TIMEOUT_S="0.1")
async def test_a_wait_that_is_too_long_answers_503_with_retry_after(it: World) -> None:
    running = await _fill(it, 1)

    answer = await it.chat()

    assert (answer.status, answer.error["code"], answer.headers["Retry-After"]) == (503, "queue_timeout", "1")
    assert await it.metric("llmlab_queue_wait_seconds_count", outcome="queue_timeout") == 1
    running[0].cancel()


@in_world(replicas=1, LAB_CONCURRENCY="1")
async def test_the_queue_is_served_in_its_order(it: World) -> None:
    running = await _fill(it, 1)
    waiting = []
    for number in range(4):
        waiting.append(asyncio.ensure_future(it.chat(ask(seed=number))))
        await until_async(lambda: it.gateway.pool.queue_depth == len(waiting), "it waits")
    it.models[0].behaviour = good
    running[0].cancel()
    await asyncio.gather(*waiting)

    order = [body.split(b'"seed": ')[1] for body in it.models[0].asked[1:]]
    assert order == [b"0}", b"1}", b"2}", b"3}"]


@in_world(LAB_CONCURRENCY="3")
async def test_requests_go_to_the_replica_with_the_fewest_in_flight_and_never_beyond_its_limit(it: World) -> None:
    tasks = await _fill(it, 6)

    assert [len(model.asked) for model in it.models] == [3, 3]
    tasks.append(asyncio.ensure_future(it.chat()))
    await until_async(lambda: it.gateway.pool.queue_depth == 1, "the seventh waits")
    for task in tasks:
        task.cancel()


@in_world()
async def test_a_refused_replica_gets_no_traffic_and_gets_it_back_when_it_returns(it: World) -> None:
    await it.models[0].stop()
    await until_async(lambda: not it.replica(0).healthy, "the probe sees it")

    assert [(await it.chat()).headers["x-llmlab-replica"] for _ in range(4)] == ["model-2"] * 4
    assert await it.metric("llmlab_upstream_health", replica="model-1", probe="shallow") == 0
    assert (await it.get("/readyz")).status == 200

    await it.models[0].start()
    await until_async(lambda: it.replica(0).healthy, "the probe sees it again")
    assert {(await it.chat()).headers["x-llmlab-replica"] for _ in range(4)} == {"model-1", "model-2"}


@in_world()
async def test_without_any_replica_requests_get_503_at_once_and_readiness_is_lost(it: World) -> None:
    for model in it.models:
        await model.stop()
    await until_async(lambda: not it.gateway.pool.ready, "the probes see it")

    answer = await it.chat()

    assert (answer.status, answer.error["code"], answer.headers["Retry-After"]) == (503, "no_replica", "1")
    assert (await it.get("/readyz")).status == 503
    assert (await it.get("/healthz")).status == 200


@in_world(replicas=1, LAB_CONCURRENCY="1", LAB_QUEUE_TIMEOUT_S="10", LAB_PROBE_INTERVAL_S="30")
async def test_those_who_wait_are_sent_away_when_the_last_replica_goes(it: World) -> None:
    running = await _fill(it, 1)
    waiting = asyncio.ensure_future(it.chat())
    await until_async(lambda: it.gateway.pool.queue_depth == 1, "it waits")

    it.replica(0).probed(Probed.REFUSED, it.gateway.pool.clock(), took_s=0)
    it.gateway.pool.wake()

    assert (await waiting).error["code"] == "no_replica"
    running[0].cancel()


@in_world(LAB_EJECT_MIN_REQUESTS="100000", LAB_PROBE_INTERVAL_S="30")
async def test_a_connection_that_is_refused_is_retried_and_three_in_a_row_eject(it: World) -> None:
    await it.models[0].stop()  # the probe sleeps, so only requests can notice

    got = [await it.chat() for _ in range(8)]

    assert all(answer.complete for answer in got)
    assert await it.metric("llmlab_upstream_attempts_total", replica="model-2", reason="connect_error") == 3
    assert await it.metric("llmlab_circuit_state", replica="model-1") == 1
    assert await it.metric("llmlab_upstream_health", replica="model-1", probe="passive") == 0


@in_world()
async def test_failed_attempts_are_counted_at_their_replica_from_the_start(it: World) -> None:
    reasons = {one.value for one in ATTEMPT_FAILURES}
    series = [
        await it.metric("llmlab_upstream_failures_total", replica=model.name, reason=reason)
        for model in it.models
        for reason in reasons
    ]
    assert set(series) == {0}

    it.models[0].behaviour = answers(500)
    assert (await it.chat()).complete  # the retry hides it
    assert await it.failures() == {("model-1", "upstream_5xx"): 1}

    it.models[1].behaviour = answers(503)
    assert (await it.chat()).status == 502
    assert await it.failures() == {("model-1", "upstream_5xx"): 2, ("model-2", "upstream_5xx"): 1}


@in_world(replicas=1)
async def test_what_clients_did_is_no_failed_attempt(it: World) -> None:
    (left,) = await _fill(it, 1)
    left.cancel()
    await until_async(lambda: it.models[0].cancelled == 1, "the request is cancelled upstream")
    it.models[0].behaviour = answers(400)
    assert (await it.chat()).status == 400

    assert await it.outcomes() == {"client_cancelled": 1, "upstream_4xx": 1}
    assert await it.failures() == {}


@in_world(replicas=1, LAB_PROBE_INTERVAL_S="0.01")
async def test_the_duration_of_a_health_check_is_that_of_the_last_one_that_succeeded(it: World) -> None:
    async def slow(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.2)
        return await answers(200)(request)

    assert 0 < await it.metric("llmlab_probe_duration_seconds", replica="model-1") < 0.2

    it.models[0].health = slow
    await until_async(lambda: it.replica(0).probe_s >= 0.2, "a slow check succeeds")
    it.models[0].health = answers(503)
    await until_async(lambda: not it.replica(0).healthy, "quick checks fail")

    assert await it.metric("llmlab_probe_duration_seconds", replica="model-1") >= 0.2


@in_world(LAB_EJECT_MIN_REQUESTS="4", LAB_EJECT_S="600", LAB_RETRY_BURST="50")
async def test_a_replica_with_errors_is_ejected_though_its_health_is_good_and_let_in_by_one_trial(it: World) -> None:
    it.models[0].behaviour = answers(500)
    got = [await it.chat() for _ in range(20)]

    assert all(answer.complete for answer in got)
    assert len(it.models[0].asked) == 4
    assert it.replica(0).healthy

    it.models[0].behaviour = hangs
    clock = it.gateway.pool.clock = lambda: time.monotonic() + 600
    assert await it.metric("llmlab_circuit_state", replica="model-1") == 2
    trial = asyncio.ensure_future(it.chat())
    await until_async(lambda: len(it.models[0].asked) == 5, "one trial is sent")
    for _ in range(5):
        assert (await it.chat()).headers["x-llmlab-replica"] == "model-2"
    assert len(it.models[0].asked) == 5

    trial.cancel()
    await until_async(lambda: it.replica(0).in_flight == 0, "the trial is over without a result")
    it.models[0].behaviour = good
    await until_async(lambda: it.replica(0).breaker.allows(clock()), "the next trial may go")
    assert (await it.chat()).headers["x-llmlab-replica"] == "model-1"
    assert it.replica(0).breaker.state(clock()).name == "CLOSED"


@in_world(LAB_EJECT_MIN_REQUESTS="2", LAB_EJECT_S="60", LAB_RETRY_BURST="0")
async def test_when_all_replicas_look_bad_the_gateway_suspects_itself_and_tries_them(it: World) -> None:
    for model in it.models:
        model.behaviour = answers(500)
    for _ in range(6):
        await it.chat()
    clock = it.gateway.pool.clock
    assert [replica.breaker.state(clock()).name for replica in it.gateway.pool.replicas] == ["OPEN", "OPEN"]

    for model in it.models:
        model.behaviour = good

    assert all([(await it.chat()).complete for _ in range(4)])


@in_world(LAB_EJECT_MIN_REQUESTS="2", LAB_EJECT_S="60")
async def test_busy_answers_and_clients_who_leave_do_not_eject(it: World) -> None:
    it.models[0].behaviour = answers(429)
    for _ in range(8):
        assert (await it.chat()).complete

    assert it.replica(0).breaker.state(it.gateway.pool.clock()).name == "CLOSED"


@in_world(replicas=1)
async def test_a_replica_that_is_busy_alone_answers_429_with_retry_after(it: World) -> None:
    it.models[0].behaviour = answers(429, {"error": {"message": "slow down"}})

    answer = await it.chat()

    assert (answer.status, answer.error["code"], answer.headers["Retry-After"]) == (429, "upstream_429", "1")


@in_world(replicas=1, LAB_PROBE_FALL="2", LAB_PROBE_TIMEOUT_S="0.05", LAB_PROBE_INTERVAL_S="0.01")
async def test_probes_of_a_hung_replica_never_pile_up_and_need_two_failures(it: World) -> None:
    it.models[0].health = hangs
    await until_async(lambda: not it.replica(0).healthy, "the probe gives up")

    assert it.models[0].probes_at_once_max == 1
    assert it.replica(0)._bad_probes >= 2
    it.models[0].behaviour = good
    assert (await it.chat()).complete, "health that times out on every replica is no proof that none works"


@in_world(replicas=1, LAB_SLOW_START_S="30", LAB_CONCURRENCY="10")
async def test_a_replica_that_comes_back_gets_its_load_little_by_little(it: World) -> None:
    await it.models[0].stop()
    await until_async(lambda: not it.replica(0).healthy, "the probe sees it")
    await it.models[0].start()
    await until_async(lambda: it.replica(0).healthy, "the probe sees it again")

    first = await _fill(it, 1)
    second = asyncio.ensure_future(it.chat())
    assert await until_async(lambda: it.gateway.pool.queue_depth == 1, "the second waits though ten would be allowed")

    for task in (*first, second):
        task.cancel()


@in_world()
async def test_an_answer_without_streaming_is_passed_on_as_it_is(it: World) -> None:
    for model in it.models:
        model.behaviour = whole("hi there")

    answer = await it.chat(ask(stream=False))

    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    assert b'"content": "hi there"' in answer.body
    assert await it.outcomes() == {"ok": 1}


@pytest.mark.parametrize(
    ("behaviour", "status", "outcome"),
    [
        pytest.param(whole(finish=None), 502, "truncated", id="no finish_reason"),
        pytest.param(answers(200, {"choices": []}), 502, "truncated", id="no choice"),
        pytest.param(answers(200, {"error": {"message": "boom"}}), 502, "inband_error", id="an error with status 200"),
        pytest.param(
            answers(200, {"object": "error", "message": "boom"}), 502, "inband_error", id="an object that is an error"
        ),
        pytest.param(whole(finish="abort"), 502, "inband_error", id="given up"),
        pytest.param(answers(200, [1]), 502, "corrupted", id="not an object"),
        pytest.param(sends(b"<html>"), 502, "corrupted", id="not JSON"),
        pytest.param(sends(chunk("a")[:9], then="reset"), 502, "truncated", id="a reset"),
        pytest.param(answers(503), 502, "upstream_5xx", id="503"),
        pytest.param(answers(302, Location="/elsewhere"), 502, "upstream_5xx", id="a redirect"),
        pytest.param(hangs, 504, "ttft_timeout", id="silence"),
    ],
)
def test_an_incomplete_answer_without_streaming_is_never_a_200(behaviour, status: int, outcome: str) -> None:
    async def story() -> None:
        async with world(replicas=1, LAB_ANSWER_TIMEOUT_S="0.15" if behaviour is hangs else "10") as it:
            it.models[0].behaviour = behaviour
            answer = await it.chat(ask(stream=False))

            assert (answer.status, answer.error["code"]) == (status, outcome)
            assert await it.outcomes() == {outcome: 1}

    uvloop.run(story())


@in_world()
async def test_a_failed_answer_without_streaming_is_retried_on_the_other_replica(it: World) -> None:
    it.models[0].behaviour = whole(finish=None)
    it.models[1].behaviour = whole("second")

    assert b"second" in (await it.chat(ask(stream=False))).body
    assert [len(model.asked) for model in it.models] == [1, 1]


@in_world()
async def test_retries_hardly_add_to_the_load_when_every_replica_fails(it: World) -> None:
    for model in it.models:
        model.behaviour = answers(500)
    for _ in range(100):
        assert (await it.chat()).status == 502

    assert sum(len(model.asked) for model in it.models) <= 110
