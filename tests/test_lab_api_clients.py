"""Clients of the gateway who leave, or stop reading, at an awkward moment."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop
from aiohttp import web
from support import virtual_time
from support.lab_api_world import DONE, World, ask, chunk, sends, world
from support.waiting import until_async

from lab_api import relay
from lab_api.client import ClientStream

SMALL_BYTES = 4096  # a socket's buffers. They hold less than an answer
CANCEL_OFF = {"LAB_CANCEL": "off", "LAB_GAP_TIMEOUT_S": "20"}


@asynccontextmanager
async def _asks(it: World) -> AsyncIterator[socket.socket]:
    """A client who has sent a request and reads nothing. It leaves at the end."""
    body = json.dumps(ask()).encode()
    loop = asyncio.get_running_loop()
    host, port = it.url.removeprefix("http://").split(":")
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BYTES)
        client.setblocking(False)
        await loop.sock_connect(client, (host, int(port)))
        await loop.sock_sendall(client, head.encode() + body)
        yield client


async def _rest(client: socket.socket) -> bytes:
    """Everything up to the end of the connection."""
    said = b""
    with suppress(ConnectionResetError):
        while piece := await asyncio.get_running_loop().sock_recv(client, 2**16):
            said += piece
    return said


async def _ends(it: World) -> None:
    await until_async(lambda: not it.gateway.board.exchanges, "the request has ended")
    assert it.replica(0).in_flight == 0


@pytest.mark.parametrize("migration", ["on", "off"])
def test_without_cancel_a_client_who_leaves_before_the_first_token_ends_nothing(migration: str) -> None:
    async def story() -> None:
        async with world(replicas=1, LAB_MIGRATION=migration, **CANCEL_OFF) as it:
            goes_on = asyncio.Event()

            async def behave(request: web.Request) -> web.StreamResponse:
                await goes_on.wait()
                return await sends(chunk("a "), chunk("b "), chunk(finish="stop"), DONE)(request)

            it.models[0].behaviour = behave
            async with _asks(it):
                await until_async(lambda: it.models[0].asked, "the replica has the request")
            for _ in range(2):
                assert (await it.get("/healthz")).status == 200  # by now the gateway has seen the client leave
            goes_on.set()

            await _ends(it)
            assert it.models[0].cancelled == 0
            assert await it.outcomes() == {"client_cancelled": 1}
            assert await it.metric("llmlab_wasted_tokens_total", reason="client_gone") == 3

    uvloop.run(story())


class SmallClientStream(ClientStream):
    """A client's stream whose socket holds little."""

    waiting = asyncio.Event()

    def __init__(self, request: web.Request, *args: Any, **more: Any) -> None:
        assert request.transport is not None
        request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BYTES)
        super().__init__(request, *args, **more)

    async def drain(self) -> None:
        self.waiting.set()
        await super().drain()


def test_a_stream_whose_client_reads_slowly_is_seldom_looked_at() -> None:
    class Counted(relay._Splice):
        looks = 0

        def _look(self) -> None:
            Counted.looks += 1
            super()._look()

    async def story() -> None:
        nothing: Any = SimpleNamespace(scanner=None, last_event_s=0.0, sent_s=0.0)
        splice = Counted(nothing, nothing, nothing, nothing, gap_s=0.05, unread_s=5)
        splice._full = True
        splice._touched_s = 0.0  # its replica has been silent for longer than the gap
        splice._look()
        await asyncio.sleep(1)

    virtual_time.run(story())

    assert 10 <= Counted.looks <= 25


def test_without_cancel_a_client_who_leaves_with_unread_tokens_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab_api.gateway.ClientStream", SmallClientStream)
    monkeypatch.setattr(SmallClientStream, "waiting", asyncio.Event())
    finished = []

    async def behave(request: web.Request) -> web.StreamResponse:
        response = await sends(*[chunk("x" * 30_000)] * 100, chunk(finish="stop"), DONE)(request)
        finished.append(True)
        return response

    async def story() -> None:
        async with world(replicas=1, **CANCEL_OFF) as it:
            it.models[0].behaviour = behave
            async with _asks(it):
                await asyncio.wait_for(SmallClientStream.waiting.wait(), 10)
            await _ends(it)

            assert finished
            assert it.models[0].cancelled == 0
            assert await it.outcomes() == {"client_cancelled": 1}

    uvloop.run(story())


@pytest.mark.parametrize("outcome", ["request_timeout", "draining"])
def test_nothing_follows_the_end_of_an_answer_whose_client_reads_late(
    outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab_api.gateway.ClientStream", SmallClientStream)
    request_s = "0.3" if outcome == "request_timeout" else "20"

    async def story() -> None:
        async with world(replicas=1, LAB_REQUEST_TIMEOUT_S=request_s) as it:
            it.models[0].behaviour = sends(chunk("a "), chunk("x" * 200_000, finish="stop") + DONE)
            async with _asks(it) as client:
                exchanges = it.gateway.board.exchanges
                await until_async(lambda: any(one.tokens == 2 for one in exchanges), "all is sent")
                if outcome == "draining":
                    it.gateway.board.abort_all()
                await until_async(lambda: all(one.outcome for one in exchanges), "it has failed")
                said = await asyncio.wait_for(_rest(client), 5)

            assert b'"error"' not in said
            assert b"0\r\n\r\n" not in said.removesuffix(b"0\r\n\r\n")
            await _ends(it)
            assert await it.outcomes() == {outcome: 1}

    uvloop.run(story())
