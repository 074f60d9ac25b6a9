"""The gateway's HTTP face: bad input, keys, health, and its life as a process."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Self

import aiohttp
import pytest
import uvloop
from aiohttp import web
from lab_api_world import MODEL, Model, World, ask, chunk, in_world, sends, until, world

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
async def test_a_body_that_cannot_be_decoded_is_the_callers_mistake(it: World) -> None:
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
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic s3cret"})
    ]
    admitted = await it.chat(headers={"Authorization": "Bearer s3cret"})

    assert [(answer.status, answer.headers["WWW-Authenticate"]) for answer in refused] == [(401, "Bearer")] * 3
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


class Process:
    """The gateway as its container runs it."""

    def __init__(self, **env: str) -> None:
        self.child = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "lab_api"],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(SERVICES), **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def url(self) -> str:
        """Its address, read from its log."""
        assert self.child.stdout is not None
        for line in self.child.stdout:
            if (said := json.loads(line))["event"] == "listening":
                return f"http://{said['host']}:{said['port']}"
        raise AssertionError(f"it never listened: {self.child.communicate()[1]}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.child.kill()
        self.child.communicate()


def _status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def _drained(behaviour, **env: str) -> tuple[bytes, int, int, float]:
    """A stream during SIGTERM: what its caller got, readiness meanwhile, exit status, seconds from signal to exit."""

    async def story() -> tuple[bytes, int, int, float]:
        model = Model(name="model-1", behaviour=behaviour)
        await model.start()
        loop = asyncio.get_running_loop()
        settings = {"LAB_PORT": "0", "LAB_MODEL": MODEL, "LAB_REPLICAS": f"model-1={model.url}", **env}
        with Process(**settings) as process:
            url = await loop.run_in_executor(None, process.url)
            async with (
                aiohttp.ClientSession() as session,
                session.post(url + "/v1/chat/completions", json=ask()) as response,
            ):
                first = await response.content.readany()
                process.child.send_signal(signal.SIGTERM)
                began_s = time.monotonic()
                readiness = 200
                while readiness == 200:
                    assert time.monotonic() < began_s + 5, "readiness is not lost"
                    readiness = await loop.run_in_executor(None, _status, url + "/readyz")
                rest = await response.read()
            status = await loop.run_in_executor(None, process.child.wait, 10)
            took_s = time.monotonic() - began_s
        await model.stop()
        return first + rest, readiness, status, took_s

    return uvloop.run(story())


async def _slow_but_good(request):
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for number in range(10):
        await response.write(chunk("t ", finish="stop" if number == 9 else None))
        await asyncio.sleep(0.05)
    await response.write(b"data: [DONE]\n\n")
    return response


def test_a_stream_in_flight_finishes_during_a_drain() -> None:
    body, readiness, status, took_s = _drained(_slow_but_good, LAB_DRAIN_S="5")

    assert body.endswith(b"data: [DONE]\n\n")
    assert b'"error"' not in body
    assert (readiness, status) == (503, 0)
    assert took_s < 3


def test_a_stream_that_outlasts_the_drain_is_told_so_and_the_process_ends_within_two_seconds() -> None:
    body, readiness, status, took_s = _drained(sends(chunk("a "), then="hang"))

    assert json.loads(body.rstrip().split(b"\n\n")[-1][6:])["error"]["code"] == "draining"
    assert b"[DONE]" not in body
    assert (readiness, status) == (503, 0)
    assert took_s <= 2


@in_world(replicas=1)
async def test_new_requests_are_refused_while_draining(it: World) -> None:
    it.gateway.draining = True

    answer = await it.chat()

    assert (answer.status, answer.error["code"], answer.headers["Retry-After"]) == (503, "draining", "1")
    assert answer.headers["Connection"] == "close"


def test_wrong_settings_end_the_process_with_status_2_and_name_them_all() -> None:
    wrong = {"LAB_REPLICAS": "model-1=ftp://x", "LAB_PORT": "99999", "LAB_QUEUE_MAX": "many", "LAB_GAP_TIMEOUT_S": "0"}
    with Process(**wrong) as process:
        _, said = process.child.communicate(timeout=20)

    assert process.child.returncode == 2
    assert "Traceback" not in said
    for part in ("LAB_MODEL", "'ftp://x'", "'99999'", "'many'", "LAB_GAP_TIMEOUT_S must lie in 0.01..600, got 0.0"):
        assert part in said


@in_world(replicas=1)
async def test_an_address_in_use_ends_the_process_with_status_2(it: World) -> None:
    port = it.url.rsplit(":", 1)[1]
    with Process(LAB_MODEL=MODEL, LAB_PORT=port, LAB_REPLICAS=f"model-1={it.models[0].url}") as process:
        await until(lambda: process.child.poll() is not None, "the process ends", within_s=20)
        said, _ = process.child.communicate()

    assert process.child.returncode == 2
    assert "address already in use" in json.loads(said.splitlines()[-1])["detail"]
