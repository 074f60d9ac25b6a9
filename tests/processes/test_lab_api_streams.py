"""The gateway's promises to clients of streams, against broken servers."""

import asyncio
import json
import socket
import time

import pytest
import uvloop
from aiohttp import web
from support.lab_api_world import DONE, World, answers, ask, chunk, good, hangs, in_world, sends, world
from support.waiting import until_async


@in_world()
async def test_a_complete_stream_arrives_whole_and_counts_ok(it: World) -> None:
    answer = await it.chat(headers={"x-request-id": "mine-1"})

    assert (answer.status, answer.text, answer.complete) == (200, "a b c ", True)
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert answer.headers["x-request-id"] == "mine-1"
    assert answer.headers["x-llmlab-replica"] in {"model-1", "model-2"}
    assert await it.outcomes() == {"ok": 1}


@in_world(replicas=1)
async def test_the_replica_gets_the_clients_own_bytes_and_the_request_id(it: World) -> None:
    body = b'{"model":"smollm2:135m",  "stream":true, "messages":[{"role":"user","content":"\\u00e9"}], "x_unknown":1}'

    await it.chat(body, headers={"x-request-id": "mine-2", "Authorization": "Bearer secret"})

    assert it.models[0].asked == [body]
    assert it.models[0].headers[0]["x-request-id"] == "mine-2"
    assert "Authorization" not in it.models[0].headers[0]


@in_world(replicas=1)
async def test_events_cut_anywhere_by_the_network_arrive_whole(it: World) -> None:
    stream = chunk("a ") + chunk("b ") + chunk("", finish="stop") + DONE
    it.models[0].behaviour = sends(*(stream[at : at + 7] for at in range(0, len(stream), 7)))

    answer = await it.chat()

    assert answer.body == stream


@pytest.mark.parametrize(
    ("pieces", "then", "outcome"),
    [
        pytest.param([chunk("a ")], "end", "truncated", id="a clean end without finish_reason"),
        pytest.param([chunk("a "), chunk("b ", finish="stop")], "end", "truncated", id="no DONE"),
        pytest.param([chunk("a "), DONE], "end", "truncated", id="DONE without finish_reason"),
        pytest.param([chunk("a ")], "reset", "truncated", id="a reset in the middle"),
        pytest.param([chunk("a "), chunk("b ")[:20]], "end", "truncated", id="an end inside an event"),
        pytest.param(
            [chunk("a "), b'data: {"error": {"message": "boom"}}\n\n', DONE], "end", "inband_error", id="error"
        ),
        pytest.param([chunk("a "), b'error: {"message": "boom"}\n\n'], "end", "inband_error", id="old llama.cpp error"),
        pytest.param([chunk("a "), b"data: {garbage\n\n", DONE], "end", "corrupted", id="an event that is no JSON"),
        pytest.param([chunk("a ")], "hang", "stall_timeout", id="a stall"),
        pytest.param([chunk("a "), chunk("b ")[:20]], "hang", "stall_timeout", id="a stall inside an event"),
    ],
)
def test_a_broken_stream_ends_with_an_error_event_and_never_with_done(
    pieces: list[bytes], then: str, outcome: str
) -> None:
    async def story() -> None:
        async with world(replicas=1, LAB_GAP_TIMEOUT_S="0.15" if then == "hang" else "10") as it:
            it.models[0].behaviour = sends(*pieces, then=then)
            answer = await it.chat(headers={"x-request-id": "mine"})

            assert answer.status == 200
            assert answer.text.startswith("a ")
            assert b"[DONE]" not in answer.body
            assert answer.error["code"] == outcome
            assert answer.error["request_id"] == "mine"
            assert "model-1" in answer.error["message"]
            assert await it.outcomes() == {outcome: 1}
            assert await it.failures() == {("model-1", outcome): 1}
            assert await it.metric("llmlab_wasted_tokens_total", reason="truncated") >= 1
            assert it.replica(0).in_flight == 0

    uvloop.run(story())


@in_world(replicas=1, LAB_GAP_TIMEOUT_S="0.2")
async def test_comments_do_not_hide_a_stall(it: World) -> None:
    async def chatter(request):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(chunk("a "))
        while True:
            await response.write(b": ping\n\n")
            await asyncio.sleep(0.02)

    it.models[0].behaviour = chatter
    answer = await it.chat()

    assert answer.error["code"] == "stall_timeout"
    assert await it.metric("llmlab_stream_max_gap_seconds_sum") >= 0.2


@in_world(LAB_TTFT_TIMEOUT_S="0.5")
async def test_a_replica_that_sends_only_its_role_is_replaced_before_the_client_sees_anything(it: World) -> None:
    it.models[0].behaviour = sends(chunk("", role="assistant"), then="hang")

    answer = await it.chat()

    assert answer.complete
    assert answer.headers["x-llmlab-replica"] == "model-2"
    assert await it.metric("llmlab_upstream_attempts_total", replica="model-2", reason="ttft_timeout") == 1
    assert await it.outcomes() == {"ok": 1}


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        pytest.param(answers(500, {"error": {"message": "x"}}), "upstream_5xx", id="500"),
        pytest.param(answers(404), "upstream_5xx", id="404 of a replica without the model"),
        pytest.param(answers(429), "upstream_429", id="429"),
        pytest.param(sends(then="reset"), "truncated", id="reset before the first token"),
        pytest.param(sends(), "truncated", id="an empty stream"),
        pytest.param(sends(b'data: {"error": {"message": "boom"}}\n\n'), "inband_error", id="error first"),
        pytest.param(sends(b"<html>\n\n"), "corrupted", id="not a stream"),
    ],
)
def test_what_fails_before_the_first_token_is_retried_on_the_other_replica(behaviour, reason: str) -> None:
    async def story() -> None:
        async with world() as it:
            it.models[0].behaviour = behaviour
            answer = await it.chat()

            assert answer.complete
            assert await it.metric("llmlab_upstream_attempts_total", replica="model-2", reason=reason) == 1
            assert await it.failures() == {("model-1", reason): 1}
            assert len(it.models[0].asked) == 1

    uvloop.run(story())


@in_world()
async def test_nothing_is_retried_after_the_first_token(it: World) -> None:
    for model in it.models:
        model.behaviour = sends(chunk("a "), then="reset")

    answer = await it.chat()

    assert answer.error["code"] == "truncated"
    assert sum(len(model.asked) for model in it.models) == 1


@in_world()
async def test_the_clients_own_mistake_is_passed_on_and_not_retried(it: World) -> None:
    for model in it.models:
        model.behaviour = answers(400, {"error": {"message": "context too long"}})

    answer = await it.chat()

    assert (answer.status, answer.error["code"]) == (400, "upstream_4xx")
    assert "context too long" in answer.error["message"]
    assert sum(len(model.asked) for model in it.models) == 1


@in_world(LAB_RETRY_RATIO="0.2", LAB_RETRY_BURST="2", LAB_EJECT_MIN_REQUESTS="100000")
async def test_retries_stay_within_their_budget(it: World) -> None:
    for model in it.models:
        model.behaviour = answers(500)

    statuses = [(await it.chat()).status for _ in range(20)]

    attempts = sum(len(model.asked) for model in it.models)
    assert statuses == [502] * 20
    assert 22 <= attempts <= 20 + 2 + 0.2 * 20
    assert await it.metric("llmlab_retry_budget_ratio") < 0.5


@in_world(LAB_RETRY_BURST="2", LAB_EJECT_MIN_REQUESTS="100000")
async def test_no_retries_are_earned_while_every_replica_fails(it: World) -> None:
    for model in it.models:
        model.behaviour = answers(500)

    for _ in range(100):
        assert (await it.chat()).status == 502

    assert 102 <= sum(len(model.asked) for model in it.models) <= 110
    assert await it.metric("llmlab_retry_budget_ratio") < 0.5


@in_world(replicas=1, LAB_TTFT_TIMEOUT_S="0.1")
async def test_a_replica_that_never_answers_becomes_a_504_in_time(it: World) -> None:
    it.models[0].behaviour = hangs

    began_s = time.monotonic()
    answer = await it.chat()

    assert (answer.status, answer.error["code"]) == (504, "ttft_timeout")
    assert 0.1 <= time.monotonic() - began_s < 3
    await until_async(lambda: it.models[0].cancelled == 1, "the hung request is cancelled upstream")
    assert await it.metric("gen_ai_server_time_to_first_token_seconds_count", error_type="ttft_timeout") == 1
    assert await it.metric("gen_ai_server_time_to_first_token_seconds_count", error_type="") == 0


@in_world(replicas=1, LAB_REQUEST_TIMEOUT_S="0.6")
async def test_the_whole_request_has_a_deadline_even_while_tokens_flow(it: World) -> None:
    async def drip(request):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        while True:
            await response.write(chunk("a "))
            await asyncio.sleep(0.01)

    it.models[0].behaviour = drip
    answer = await it.chat()

    assert answer.error["code"] == "request_timeout"
    await until_async(lambda: it.models[0].cancelled == 1, "the endless stream is cancelled upstream")


@in_world(replicas=1, LAB_KEEPALIVE_S="0.05", LAB_TTFT_TIMEOUT_S="0.3")
async def test_a_waiting_client_gets_comments_and_an_error_in_the_stream(it: World) -> None:
    it.models[0].behaviour = hangs

    answer = await it.chat()

    assert answer.status == 200
    assert answer.body.startswith(b": keep-alive\n\n")
    assert answer.error["code"] == "ttft_timeout"
    assert b"[DONE]" not in answer.body


@in_world(LAB_KEEPALIVE_S="0.05", LAB_TTFT_TIMEOUT_S="0.5")
async def test_a_comment_is_not_a_first_byte_so_the_retry_still_happens(it: World) -> None:
    it.models[0].behaviour = hangs

    answer = await it.chat()

    assert answer.complete
    assert answer.body.startswith(b": keep-alive\n\n")
    assert (len(it.models[0].asked), len(it.models[1].asked)) == (1, 1)


async def _leave(it: World, *, after_first_token: bool) -> None:
    """Starts a request and drops the connection."""
    response = it.post()
    task = asyncio.ensure_future(response.__aenter__())
    if after_first_token:
        opened = await task
        await opened.content.readany()
        opened.close()
    else:
        await until_async(lambda: bool(it.models[0].asked), "the replica has the request")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("after_first_token", [False, True], ids=["before the first token", "in mid-stream"])
def test_a_client_who_leaves_ends_the_work_upstream(after_first_token: bool) -> None:
    async def story() -> None:
        async with world(replicas=1) as it:
            it.models[0].behaviour = sends(chunk("a "), then="hang") if after_first_token else hangs
            await _leave(it, after_first_token=after_first_token)

            await until_async(lambda: it.models[0].cancelled == 1, "the upstream request is cancelled")
            await until_async(lambda: it.replica(0).in_flight == 0, "the place is free again")
            assert await it.outcomes() == {"client_cancelled": 1}
            assert await it.metric("llmlab_wasted_tokens_total", reason="client_gone") == int(after_first_token)
            assert it.replica(0).breaker.allows(0)

    uvloop.run(story())


@in_world(replicas=1)
async def test_a_client_without_streaming_who_leaves_ends_the_work_upstream_too(it: World) -> None:
    it.models[0].behaviour = hangs
    task = asyncio.ensure_future(it.chat(ask(stream=False)))
    await until_async(lambda: bool(it.models[0].asked), "the replica has the request")
    task.cancel()

    await until_async(lambda: it.models[0].cancelled == 1, "the upstream request is cancelled")
    await until_async(lambda: not it.gateway.board.exchanges, "nothing is in flight")
    assert await it.outcomes() == {"client_cancelled": 1}


@in_world(replicas=1, LAB_CONCURRENCY="1")
async def test_a_client_who_leaves_the_queue_never_reaches_a_replica(it: World) -> None:
    it.models[0].behaviour = hangs
    first = asyncio.ensure_future(it.chat())
    await until_async(lambda: len(it.models[0].asked) == 1, "the first request runs")
    second = asyncio.ensure_future(it.chat())
    await until_async(lambda: it.gateway.pool.queue_depth == 1, "the second request waits")

    second.cancel()

    await until_async(lambda: it.gateway.pool.queue_depth == 0, "the second request has left the queue")
    it.models[0].behaviour = good
    first.cancel()
    assert (await it.chat()).complete
    assert len(it.models[0].asked) == 2
    assert await it.outcomes() == {"client_cancelled": 2, "ok": 1}


@in_world(replicas=1, LAB_GAP_TIMEOUT_S="0.3")
async def test_a_client_who_does_not_read_loses_the_place_and_the_replica_is_not_blamed(it: World) -> None:
    async def flood(request):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        while True:
            await response.write(chunk("x" * 10_000) * 20)

    it.models[0].behaviour = flood
    host, port = it.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
    body = json.dumps(ask()).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: lab\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    writer.write(head + body)

    await until_async(lambda: it.models[0].cancelled == 1, "the flood is cancelled")

    assert await it.outcomes() == {"client_cancelled": 1}
    assert it.replica(0).breaker.state(it.gateway.pool.clock()).name == "CLOSED"
    assert not reader.at_eof()
    writer.transport.abort()


@in_world(replicas=1, LAB_GAP_TIMEOUT_S="1")
async def test_a_client_who_reads_slowly_keeps_its_answer(it: World) -> None:
    async def much(request):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for _ in range(20):
            await response.write(chunk("x" * 10_000) * 20)
        await response.write(chunk("", finish="stop") + DONE)
        return response

    it.models[0].behaviour = much
    host, port = it.url.removeprefix("http://").split(":")
    with socket.socket() as client:
        # As over a network: a window of few bytes, which small segments open again.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, (host, int(port)))
        body = json.dumps(ask()).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: lab\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        await loop.sock_sendall(client, head + body)
        read, until_s = bytearray(), time.monotonic() + 2.5
        while time.monotonic() < until_s:
            read += await loop.sock_recv(client, 2048)
            await asyncio.sleep(0.02)  # at most 100 kB/s
        slow = len(read)
        while not read.endswith(b"0\r\n\r\n"):
            more = await loop.sock_recv(client, 65536)
            assert more, f"cut after {len(read)} bytes"
            read += more

    assert slow < 300_000
    assert DONE in read
    assert await it.outcomes() == {"ok": 1}


@in_world(replicas=1)
async def test_connections_to_replicas_are_used_again_after_complete_streams_only(it: World) -> None:
    ports = []

    def noting(behaviour):
        async def note(request):
            ports.append(request.transport.get_extra_info("peername")[1])
            return await behaviour(request)

        return note

    for behaviour in (good, good, sends(chunk("a "), DONE), good):
        it.models[0].behaviour = noting(behaviour)
        await it.chat()

    assert ports[0] == ports[1] == ports[2] != ports[3]


@in_world(replicas=1)
async def test_a_silent_stream_shows_in_the_gauges_before_it_ends(it: World) -> None:
    it.models[0].behaviour = sends(chunk("a "), then="hang")
    async with it.post() as response:
        await response.content.readany()

        assert await it.metric("llmlab_inflight_requests", replica="model-1") == 1
        assert await it.metric("llmlab_oldest_inflight_seconds", replica="model-1", phase="decode") > 0
        assert await it.metric("llmlab_oldest_silence_seconds", replica="model-1") > 0
        assert await it.metric("llmlab_oldest_inflight_seconds", replica="model-1", phase="prefill") == 0
        response.close()
    await until_async(lambda: not it.gateway.board.exchanges, "nothing is in flight")
    assert await it.metric("llmlab_oldest_inflight_seconds", replica="model-1") == 0


@in_world(replicas=1)
async def test_a_client_who_has_everything_need_not_wait_for_the_replica_to_hang_up(it: World) -> None:
    it.models[0].behaviour = sends(chunk("a "), chunk("b ", finish="stop"), DONE, then="hang")

    began_s = time.monotonic()
    async with it.post() as response:
        while not (await response.content.readany()).endswith(DONE):
            assert not response.content.at_eof()
        response.close()

    await until_async(lambda: it.models[0].cancelled == 1, "the connection upstream is closed in the end")
    assert time.monotonic() - began_s < 4
    assert await it.outcomes() == {"ok": 1}
    assert it.replica(0).in_flight == 0
