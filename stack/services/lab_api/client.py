"""The client's side of a stream: delayed start and keep-alives."""

import asyncio
import fcntl
import json
import sys
import termios
import time
from contextlib import suppress

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter

from lab_api.exchange import Exchange
from lab_api.outcomes import GatewayError

PING = b": keep-alive\n\n"
_UNREAD_BYTES = 2**16  # a transport's default bound, above which `drain` waits


class _EventStream(web.StreamResponse):
    # Headers leave with the first event: one packet and one wake-up less.
    """A response whose headers are sent with its first event."""

    _send_headers_immediately = False


class ClientStream:
    """A response whose status is open until the first bytes.

    After `keepalive_s` without any, it sends a comment and so the status 200, because
    proxies on the way would cut a silent connection. A later failure can only be
    reported inside the stream.

    With `outlived`, a client who has left is noticed at the end only.
    """

    def __init__(
        self, request: web.Request, exchange: Exchange, keepalive_s: float | None, *, outlived: bool = False
    ) -> None:
        self._request = request
        self._lost: tuple[type[Exception], ...] = (ConnectionError,) if outlived else ()
        self._ended = False
        self._exchange = exchange
        self._loop = asyncio.get_running_loop()
        self._response: web.StreamResponse | None = None
        self._starting = asyncio.Lock()
        self.sent_s = time.monotonic()
        self._ping: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._transport = request.transport
        self._writer: AbstractStreamWriter | None = None
        self._framed = request.version >= HttpVersion11
        if keepalive_s is not None:
            self._timer = self._loop.call_later(keepalive_s, self._look, keepalive_s)

    @property
    def started(self) -> bool:
        """True if the client has received the status."""
        return self._response is not None

    @property
    def left(self) -> bool:
        """True if the client has disconnected."""
        return self._transport is None or self._transport.is_closing()

    async def write(self, events: bytes) -> None:
        """Send the status, if it is not sent yet, and whole events."""
        with suppress(*self._lost):
            await (self._response or await self._start()).write(events)

    def takes_at_once(self, events: bytes) -> bool:
        """True if `write` of these does not wait for the client."""
        transport = self._transport
        return len(events) < _UNREAD_BYTES and (transport is None or not transport.get_write_buffer_size())

    def forward(self, events: bytes) -> bool:
        """Send events at once, after `write` has sent some. Renew `sent_s` with it.

        False if so much is unread that `drain` should be waited for.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            return True  # the request is about to be cancelled
        # As `write` would do it, for a third of the time.
        transport.write(b"%x\r\n%b\r\n" % (len(events), events) if self._framed else events)
        return transport.get_write_buffer_size() <= _UNREAD_BYTES

    def unread_bytes(self) -> int:
        """Bytes here and in the kernel that the client has not received yet."""
        transport = self._transport
        connection = None if transport is None else transport.get_extra_info("socket")
        if transport is None or connection is None or transport.is_closing():
            return 0
        in_kernel = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))
        return transport.get_write_buffer_size() + int.from_bytes(in_kernel, sys.byteorder)

    async def drain(self) -> None:
        """Wait until the client has read on."""
        if self._writer is not None:
            with suppress(*self._lost):
                await self._writer.drain()

    async def fail(self, error: GatewayError) -> web.StreamResponse:
        """Report inside the stream that the answer is incomplete. No [DONE] follows."""
        body = json.dumps(error.body(self._exchange.request_id))
        return await self.end(f"data: {body}\n\n".encode())

    def abort(self) -> None:
        """Cut the connection: a client that does not read delays an orderly end."""
        self.close()
        if self._request.transport is not None:
            self._request.transport.abort()

    async def end(self, last: bytes) -> web.StreamResponse:
        """Send the last events and end the response.

        Raises:
            ConnectionError: it has an end that the client has not read.
        """
        self.close()
        if self._ended:  # more bytes would be read as the next response
            raise ConnectionError("did not read the end of its answer")
        response = self._response or await self._start()
        self._ended = True
        await response.write_eof(last)
        return response

    def close(self) -> None:
        """Stop the keep-alive comments."""
        if self._timer is not None:
            self._timer.cancel()
        if self._ping is not None:
            self._ping.cancel()

    def _look(self, keepalive_s: float) -> None:
        left_s = self.sent_s + keepalive_s - time.monotonic()
        if left_s <= 0 and (self._ping is None or self._ping.done()):
            self._ping = self._loop.create_task(self._send_ping())
        again_s = (left_s if left_s > 0 else keepalive_s) + 0.001
        self._timer = self._loop.call_later(again_s, self._look, keepalive_s)

    async def _send_ping(self) -> None:
        with suppress(ConnectionError):  # the client has disconnected, which cancels the request itself
            await self.write(PING)

    async def _start(self) -> web.StreamResponse:
        async with self._starting:
            if self._response is None:
                response = _EventStream(
                    headers={
                        "Content-Type": "text/event-stream; charset=utf-8",
                        "Cache-Control": "no-store",
                        "X-Accel-Buffering": "no",
                        "x-request-id": self._exchange.request_id,
                    }
                )
                if self._exchange.replica:
                    response.headers["x-llmlab-replica"] = self._exchange.replica
                self._writer = await response.prepare(self._request)
                self._response = response
            return self._response
