"""The client's side of a stream: delayed start and keep-alives."""

import asyncio
import json
import time
from contextlib import suppress

from aiohttp import web

from lab_api.exchange import Exchange
from lab_api.outcomes import GatewayError

PING = b": keep-alive\n\n"


class _EventStream(web.StreamResponse):
    # Headers leave with the first event: one packet and one wake-up less.
    """A response whose headers are sent with its first event."""

    _send_headers_immediately = False


class ClientStream:
    """A response whose status is open until the first bytes.

    After `keepalive_s` without any, it sends a comment and so the status 200, because
    proxies on the way would cut a silent connection. A later failure can only be
    reported inside the stream.
    """

    def __init__(self, request: web.Request, exchange: Exchange, keepalive_s: float) -> None:
        self._request = request
        self._exchange = exchange
        self._keepalive_s = keepalive_s
        self._loop = asyncio.get_running_loop()
        self._response: web.StreamResponse | None = None
        self._starting = asyncio.Lock()
        self.sent_s = time.monotonic()
        self._ping: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(keepalive_s, self._look)

    @property
    def started(self) -> bool:
        """True if the client has received the status."""
        return self._response is not None

    async def response(self) -> web.StreamResponse:
        """The response with its status decided.

        Code that writes whole events to it renews `sent_s`.
        """
        return self._response or await self._start()

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
        """Send the last events and end the response."""
        self.close()
        response = await self.response()
        await response.write_eof(last)
        return response

    def close(self) -> None:
        """Stop the keep-alive comments."""
        self._timer.cancel()
        if self._ping is not None:
            self._ping.cancel()

    def _look(self) -> None:
        left_s = self.sent_s + self._keepalive_s - time.monotonic()
        if left_s <= 0 and (self._ping is None or self._ping.done()):
            self._ping = self._loop.create_task(self._send_ping())
        self._timer = self._loop.call_later((left_s if left_s > 0 else self._keepalive_s) + 0.001, self._look)

    async def _send_ping(self) -> None:
        with suppress(ConnectionError):  # the client has disconnected, which cancels the request itself
            await (await self.response()).write(PING)

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
                await response.prepare(self._request)
                self._response = response
            return self._response
