"""Replicas that answer the gateway in unusual ways, byte by byte."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop
from support.api_server import certificate
from support.lab_api_world import DONE, Answer, World, ask, chunk, world
from support.waiting import until_async

GOOD = chunk("a ") + chunk("b ", finish="stop") + DONE
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(GOOD), GOOD)
WHOLE = json.dumps(
    {"choices": [{"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}]}
).encode()


class Raw:
    """A replica that answers each request on its chat path with the given bytes."""

    def __init__(self, *answers: bytes, then_close: bool = False) -> None:
        self.answers = list(answers)
        self.then_close = then_close
        self.connections = 0
        self.closed = 0
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = 0
        while head := await reader.readuntil(b"\r\n\r\n"):
            if head.startswith(b"GET"):
                writer.write(OK + b"Content-Length: 0\r\nConnection: close\r\n\r\n")
                break
            if not number:
                self.connections += 1
                self.writers.append(writer)
            number += 1
            await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
            writer.write(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])
            if self.then_close:
                break
        await writer.drain()
        writer.close()

    async def on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self.serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.closed += 1
            writer.close()


@asynccontextmanager
async def raw_world(raw: Raw, tls: Path | None = None, **env: str) -> AsyncIterator[World]:
    context = certificate(tls, "DNS:localhost") if tls else None
    server = await asyncio.start_server(raw.on_connection, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    url = f"https://localhost:{port}" if tls else f"http://127.0.0.1:{port}"
    async with server, world(replicas=1, LAB_REPLICAS=f"model-1={url}", LAB_RETRY="off", **env) as it:
        yield it


def answer_of(raw: Raw, *, stream: bool = True, times: int = 1, **env: str) -> Answer:
    """The last answer of some."""

    async def story() -> Answer:
        async with raw_world(raw, **env) as it:
            for _ in range(times):
                answer = await it.chat(ask(stream=stream))
            return answer

    return uvloop.run(story())


@pytest.mark.parametrize(
    ("said", "code"),
    [
        pytest.param(b"hello\r\n\r\n", "upstream_5xx", id="no HTTP"),
        pytest.param(OK + b"x: y\r\n" * 20_000, "upstream_5xx", id="headers without end"),
        pytest.param(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", "upstream_5xx", id="101"),
        pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", "truncated", id="no chunks"),
        pytest.param(
            b"HTTP/1.1 503 No\r\nContent-Length: 9000\r\n\r\n" + b"x" * 3000, "upstream_5xx", id="a long refusal"
        ),
        pytest.param(b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno", "upstream_5xx", id="a short refusal"),
    ],
)
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_a_replica_that_answers_badly_is_a_failed_attempt(said: bytes, code: str, stream: bool) -> None:
    answer = answer_of(Raw(said), stream=stream)

    assert answer.error["code"] == code or (code == "truncated" and answer.error["code"] == "upstream_5xx")


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_a_connection_that_ends_without_an_answer_is_a_connect_error(stream: bool) -> None:
    assert answer_of(Raw(b"", then_close=True), stream=stream).error["code"] == "connect_error"


@pytest.mark.parametrize("said", [b"3;x=", b"0\r\nx: "], ids=["chunk extension", "trailer"])
def test_a_replica_that_sends_something_endless_next_to_its_answer_is_cut(said: bytes) -> None:
    first = chunk("a ")
    begun = OK + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(first), first)
    answer = answer_of(Raw(begun + said + b"y" * 2**20))

    assert (answer.text, answer.error["code"]) == ("a ", "truncated")


def test_an_interim_answer_is_passed_over() -> None:
    answer = answer_of(Raw(b"HTTP/1.1 100 Continue\r\n\r\n" + CHUNKED))

    assert (answer.text, answer.complete) == ("a b ", True)


def test_an_answer_without_length_ends_with_its_connection() -> None:
    assert answer_of(Raw(OK + b"\r\n" + GOOD, then_close=True)).complete
    assert answer_of(Raw(OK + b"\r\n" + WHOLE, then_close=True), stream=False).body == WHOLE
    cut = answer_of(Raw(OK + b"Content-Length: 9000\r\n\r\n" + WHOLE, then_close=True), stream=False)
    assert cut.error["code"] == "truncated"


def test_an_endless_answer_is_cut_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab_api.upstream._WHOLE_MAX_BYTES", 1000)

    answer = answer_of(Raw(OK + b"Content-Length: 5000\r\n\r\n" + b" " * 2000), stream=False)

    assert (answer.error["code"], answer.error["message"]) == ("corrupted", "model-1 answered more than 1000 bytes")


@pytest.mark.parametrize(
    ("said", "connections"),
    [
        pytest.param(CHUNKED, 1, id="kept"),
        pytest.param(CHUNKED.replace(b"Tr", b"Connection: close\r\nTr", 1), 3, id="to be closed"),
        pytest.param(CHUNKED + b"more", 3, id="more than an answer"),
        pytest.param(CHUNKED + CHUNKED, 3, id="two answers"),
    ],
)
def test_a_connection_is_used_again_if_nothing_is_left_on_it(said: bytes, connections: int) -> None:
    raw = Raw(said)

    assert answer_of(raw, times=3).complete
    assert raw.connections == connections


def test_idle_connections_are_closed_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab_api.connections.IDLE_S", 0.05)
    raw = Raw(CHUNKED)

    async def story() -> None:
        async with raw_world(raw) as it:
            assert (await it.chat()).complete
            await until_async(lambda: raw.closed == 1, "the idle connection is closed")
            assert (await it.chat()).complete

    uvloop.run(story())
    assert raw.connections == 2


def test_an_idle_connection_that_sends_something_is_closed() -> None:
    raw = Raw(CHUNKED)

    async def story() -> None:
        async with raw_world(raw) as it:
            assert (await it.chat()).complete
            raw.writers[0].write(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
            await until_async(lambda: raw.closed == 1, "the connection is closed", within_s=1)
            assert (await it.chat()).complete

    uvloop.run(story())
    assert raw.connections == 2


def test_a_replica_may_use_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = Raw(CHUNKED)

    async def story() -> Answer:
        async with raw_world(raw, tmp_path) as it:
            monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
            # The prober's library has read the authorities at its import.
            monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", ssl.create_default_context())
            await until_async(lambda: it.replica(0).healthy, "the probe trusts the replica")
            return await it.chat()

    assert uvloop.run(story()).complete
