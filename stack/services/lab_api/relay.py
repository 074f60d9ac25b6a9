"""Relay of a started stream to the client: the hot path.

Events go from the replica's connection to the client's in one callback. The task of the
request sleeps meanwhile. It wakes at the end, after a silence, and when the client
reads too slowly.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self

from aiohttp import web

from lab_api.client import ClientStream
from lab_api.exchange import Exchange
from lab_api.outcomes import GatewayError, Outcome
from lab_api.pacing import Pace
from lab_api.sse import DONE
from lab_api.upstream import Stream

LOOKS = 5  # at a client that is waited for, within the time that it has


class ClientGoneError(Exception):
    """The client stopped reading its answer."""


async def relay(
    stream: Stream,
    exchange: Exchange,
    client: ClientStream,
    pace: Pace,
    *,
    gap_s: float,
    unread_s: float,
) -> web.StreamResponse:
    """The response, once the client has received everything including [DONE].

    Args:
        stream: The stream with its first token.
        exchange: Record of the request.
        client: Where the events go.
        pace: How often the stream is read.
        gap_s: Longest silence between data events, infinite for any.
        unread_s: Longest wait for a client that does not read.

    Raises:
        GatewayError: the stream is not complete.
        ClientGoneError: the client does not read on.
    """
    began_s = time.monotonic()
    if exchange.first_token_s is None:
        exchange.first_token_s = began_s
    else:  # the rest of an answer
        exchange.max_gap_s = max(exchange.max_gap_s, began_s - exchange.last_event_s)
    async with _Splice(stream, exchange, client, pace, gap_s=gap_s, unread_s=unread_s) as splice:
        last = await splice.ended()
        if stream.scanner.complete:
            return await splice.end(last + DONE)
        if last:
            await splice.write(last)
        raise stream.failure()


class _Splice:
    """The connection of one stream to its client."""

    __slots__ = (
        *("_client", "_exchange", "_full", "_gap_s", "_last", "_over", "_pace", "_scanner", "_silent"),
        *("_stream", "_timer", "_touched_s", "_unread_s", "_wake"),
    )

    def __init__(
        self,
        stream: Stream,
        exchange: Exchange,
        client: ClientStream,
        pace: Pace,
        *,
        gap_s: float,
        unread_s: float,
    ) -> None:
        self._stream = stream
        self._scanner = stream.scanner
        self._exchange = exchange
        self._client = client
        self._pace = pace
        self._gap_s = gap_s
        self._unread_s = unread_s
        self._last = b""
        self._over = self._full = self._silent = False
        self._wake: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        """Send what the stream has held back, then take its events."""
        self._touch()
        await self.write(self._stream.held())
        self._touch()
        self._stream.attach(self._take)
        self._take(self._stream.held())
        if self._gap_s < math.inf:
            self._timer = asyncio.get_running_loop().call_later(self._gap_s, self._look)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._stream.lease.last_event_s = self._exchange.last_event_s

    async def ended(self) -> bytes:
        """The events that came with the end of the stream.

        Raises:
            GatewayError: the replica fell silent.
            ClientGoneError: the client does not read on.
        """
        loop = asyncio.get_running_loop()
        while True:
            if self._full:
                await self._drain()
            elif self._over:
                return self._last
            elif self._silent:
                name, gap_s = self._stream.name, self._gap_s
                self._exchange.max_gap_s = max(self._exchange.max_gap_s, gap_s)
                message = f"{name} sent no data for {gap_s:g} s in the middle of its answer"
                raise GatewayError(outcome=Outcome.STALL_TIMEOUT, message=message)
            else:
                self._wake = loop.create_future()
                await self._wake

    async def write(self, events: bytes) -> None:
        """Send events, and wait for a client that reads slowly."""
        if self._client.takes_at_once(events):
            return await self._client.write(events)
        async with self._reading():
            return await self._client.write(events)

    async def end(self, last: bytes) -> web.StreamResponse:
        """Send the last events and end the response."""
        if self._client.takes_at_once(last):
            return await self._client.end(last)
        async with self._reading():
            return await self._client.end(last)

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[None]:
        """Bound the time that a client may leave everything unread."""
        loop = asyncio.get_running_loop()
        look_s, unread = self._unread_s / LOOKS, self._client.unread_bytes()
        timer: asyncio.TimerHandle

        def look() -> None:
            nonlocal unread, timer
            before, unread = unread, self._client.unread_bytes()
            if unread < before:  # slowly is not never
                bound.reschedule(loop.time() + self._unread_s)
            timer = loop.call_later(look_s, look)

        timer = loop.call_later(look_s, look)
        try:
            async with asyncio.timeout(self._unread_s) as bound:
                yield
        except TimeoutError as error:
            raise ClientGoneError(f"did not read for {self._unread_s:g} s") from error
        finally:
            timer.cancel()

    async def _drain(self) -> None:
        async with self._reading():
            await self._client.drain()
        self._full = False
        self._touch()
        if self._timer is not None:
            self._timer.cancel()
            self._look()
        self._stream.connection.resume()

    def _touch(self) -> None:
        now_s = time.monotonic()
        self._touched_s = self._exchange.last_event_s = self._client.sent_s = now_s

    def _take(self, events: bytes) -> None:
        """Forward whole events. They are empty if the stream ends without any."""
        exchange = self._exchange
        arrived = self._scanner.events - exchange.tokens
        exchange.tokens += arrived
        gap_s = 0.0
        if events:
            now_s = time.monotonic()
            gap_s = now_s - self._touched_s
            exchange.max_gap_s = max(exchange.max_gap_s, gap_s)
            self._touched_s = exchange.last_event_s = self._client.sent_s = now_s
        if self._scanner.ended or self._stream.ended is not None:
            self._last += events
            self._over = True
        elif not events:
            return
        elif self._client.forward(events):
            if self._pace.rest_s > gap_s / max(arrived, 1):  # so that the next read has more than one event
                self._stream.connection.pause()
                self._pace.rest(self._resume)
            return
        else:
            self._full = True
            self._stream.connection.pause()
        self._notify()

    def _resume(self) -> None:
        if not self._full:
            self._stream.connection.resume()

    def _look(self) -> None:
        left_s = self._touched_s + self._gap_s - time.monotonic()
        if left_s <= 0 and not self._full:  # a replica may be silent while its client is waited for
            self._silent = True
            self._notify()
            return
        # The loop's clock resolves 1 ms. After a late client `_drain` looks again.
        self._timer = asyncio.get_running_loop().call_later(left_s + 0.001 if left_s > 0 else self._gap_s, self._look)

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
