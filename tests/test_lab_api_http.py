"""The gateway's HTTP face: bad input, keys, health."""

import asyncio
import gc
import json
from pathlib import Path

import pytest
import uvloop
from support.lab_api_world import MODEL, World, ask, in_world, world
from support.waiting import until_async

from lab_api.connections import Connection
from lab_api.exchange import Exchange
from lab_api.upstream import Stream

SERVICES = Path(__file__).parents[1] / "stack" / "services"
GOOD_MESSAGES = [{"role": "user", "content": "x"}]


@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        pytest.param(b"", 400, "JSON object", id="nothing"),
        pytest.param(b"{", 400, "does not parse", id="not JSON"),
        pytest.param(b"\xff\xfe{}", 400, "does not parse", id="not UTF-8"),
        pytest.param(b"[" * 100_000, 400, "does not parse", id="nested too deeply"),
        pytest.param(b"[]", 400, "[]", id="a list"),
        pytest.param({}, 400, "model", id="no model"),
        pytest.param({"model": 7, "messages": GOOD_MESSAGES}, 400, "7", id="model is a number"),
        pytest.param({"model": "gpt-9", "messages": GOOD_MESSAGES}, 404, "gpt-9", id="unknown model"),
        pytest.param({"model": MODEL}, 400, "messages", id="no messages"),
        pytest.param({"model": MODEL, "messages": []}, 400, "[]", id="empty messages"),
        pytest.param({"model": MODEL, "messages": "hi"}, 400, '"hi"', id="messages are text"),
        pytest.param({"model": MODEL, "messages": ["hi"]}, 400, "messages[0]", id="a message is text"),
        pytest.param({"model": MODEL, "messages": [{"content": "x"}]}, 400, "messages[0].role", id="no role"),
        pytest.param(
            {"model": MODEL, "messages": [*GOOD_MESSAGES, {"role": "user", "content": 5}]},
            400,
            "messages[1].content",
            id="content is a number",
        ),
        pytest.param(ask(stream="yes"), 400, "stream", id="stream is text"),
        pytest.param(ask(max_tokens=0), 400, "max_tokens", id="max_tokens is 0"),
        pytest.param(ask(max_tokens=10**400), 400, "from 1 to 1000000000", id="max_tokens is beyond all models"),
        pytest.param(ask(max_tokens=True), 400, "max_tokens", id="max_tokens is true"),
        pytest.param(ask(max_tokens=1.5), 400, "1.5", id="max_tokens is a fraction"),
        pytest.param(ask(temperature="hot"), 400, "hot", id="temperature is text"),
        pytest.param(ask(temperature=2.1), 400, "2.1", id="temperature too high"),
        pytest.param(ask(top_p=float("nan")), 400, "top_p", id="top_p is not a number"),
        pytest.param(ask(n=2), 400, "n must be 1", id="two choices"),
        pytest.param(ask(stream_options=1), 400, "stream_options", id="stream_options is a number"),
        pytest.param(ask(user="x" * 5000), 413, "4096 bytes", id="too large"),
    ],
)
def test_bad_input_is_one_clear_refusal_that_no_replica_sees(body, status: int, named: str) -> None:
    async def story() -> None:
        async with world(replicas=1, LAB_BODY_MAX_BYTES=str(2**20 if body == b"[" * 100_000 else 4096)) as it:
            answer = await it.chat(body)

            assert answer.status == status
            assert answer.error["type"] == "invalid_request_error"
            assert named in answer.error["message"]
            assert len(answer.body) < 1000
            assert it.models[0].asked == []
            assert await it.outcomes() == {"invalid_request": 1}

    uvloop.run(story())


async def _raw(it: World, request: bytes) -> bytes:
    """The first bytes of the answer to a request written by hand."""
    host, port = it.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    async with asyncio.timeout(5):
        said = await reader.read(4000)
    writer.close()
    await writer.wait_closed()
    return said


@in_world(replicas=1, LAB_BODY_TIMEOUT_S="0.1")
async def test_a_body_that_never_comes_is_refused_in_time(it: World) -> None:
    said = await _raw(it, b"POST /v1/chat/completions HTTP/1.1\r\nHost: lab\r\nContent-Length: 100\r\n\r\n{")

    assert said.startswith(b"HTTP/1.1 408 ")
    assert await it.outcomes() == {"invalid_request": 1}


@in_world(replicas=1)
async def test_a_body_that_cannot_be_decoded_is_the_clients_mistake(it: World) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: lab\r\n"
    packed = await _raw(it, head + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd")
    broken = await _raw(it, head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n")

    assert packed.startswith(b"HTTP/1.1 415 ")
    assert broken.split()[1] == b"400"
    assert "internal_error" not in await it.outcomes()


@in_world(replicas=1)
async def test_unknown_paths_and_methods_are_refused_in_the_form_of_the_api(it: World) -> None:
    missing = await it.get("/v1/nothing")
    wrong = await it.get("/v1/chat/completions")

    assert (missing.status, missing.error["type"]) == (404, "invalid_request_error")
    assert (wrong.status, wrong.headers["Allow"]) == (405, "POST")
    assert "Method Not Allowed" in wrong.error["message"]


@in_world(replicas=1)
async def test_a_request_id_that_could_confuse_logs_is_replaced(it: World) -> None:
    answer = await it.chat(headers={"x-request-id": "a b\tc" * 50})

    assert len(answer.headers["x-request-id"]) == 32


@in_world(replicas=1, LAB_API_KEY="s3cret")
async def test_with_a_key_set_only_its_holders_come_in_and_health_stays_open(it: World) -> None:
    refused = [
        await it.chat(headers=headers)
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Basic s3cret"},
            {"Authorization": "Bearer \udcff"},
        )
    ]
    admitted = await it.chat(headers={"Authorization": "Bearer s3cret"})

    assert [(answer.status, answer.headers["WWW-Authenticate"]) for answer in refused] == [(401, "Bearer")] * 4
    assert all("s3cret" not in answer.body.decode() for answer in refused)
    assert admitted.complete
    assert (await it.get("/v1/models")).status == 401
    assert [(await it.get(path)).status for path in ("/healthz", "/readyz", "/metrics")] == [200, 200, 200]


@in_world()
async def test_the_model_list_repeats_a_replicas_own_word_about_its_owner(it: World) -> None:
    entry = json.loads((await it.get("/v1/models")).body)["data"][0]
    await it.models[0].stop()
    second = json.loads((await it.get("/v1/models")).body)["data"][0]

    assert (entry["id"], entry["owned_by"]) == (MODEL, "owner of model-1")
    assert second["owned_by"] == "owner of model-2"


@in_world(replicas=1)
async def test_every_series_of_a_failure_exists_before_the_failure(it: World) -> None:
    for outcome in ("ok", "truncated", "stall_timeout", "rejected_queue_full", "client_cancelled"):
        assert await it.metric("llmlab_requests_total", outcome=outcome) == 0
    assert await it.metric("gen_ai_server_request_duration_seconds_count", error_type="") == 0
    assert await it.metric("process_start_time_seconds") > 0


@in_world(replicas=1)
async def test_new_requests_are_refused_while_draining(it: World) -> None:
    it.gateway.draining = True

    answer = await it.chat()

    assert (answer.status, answer.error["code"], answer.headers["Retry-After"]) == (503, "draining", "1")
    assert answer.headers["Connection"] == "close"


@in_world(LAB_MIGRATION="on", LAB_HEDGING="on", LAB_AFFINITY="on")
async def test_a_stream_leaves_nothing_to_the_garbage_collector(it: World) -> None:
    """Its pauses would be late first tokens of other streams."""

    def left() -> list[object]:
        return [one for one in gc.get_objects() if type(one) in (Exchange, Stream, Connection)]

    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            assert (await it.chat()).complete
        it.gateway.upstream._connections.close()
        await until_async(lambda: left() == [], "streams, requests and connections are freed")
    finally:
        gc.enable()
