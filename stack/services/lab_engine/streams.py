"""Sinks of one answer: server-sent events, or the whole text."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from lab_engine import replies

if TYPE_CHECKING:
    from lab_engine.answers import RefusedError
    from lab_engine.chat import ChatRequest

# A client with this much unread is disconnected: slow readers must not fill memory.
MOST_UNREAD_BYTES = 1 << 20


class StreamSink:
    """Writes each event straight to the connection.

    Waking a task per token would cost more than making the token.
    """

    def __init__(
        self, head: replies.Head, request: ChatRequest, transport: asyncio.Transport, *, chunked: bool
    ) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._head = head
        self._request = request
        self._prefix = head.event_prefix()
        self._transport = transport
        self._chunked = chunked
        self._tokens = 0

    def token(self, piece: str, *, first: bool, last: bool) -> None:
        data = self._head.first_event() if first else b""
        request, index = self._request, self._tokens
        self._tokens += 1
        if not last:
            if request.script is None:
                data += self._prefix + piece.encode() + replies.TOKEN_EVENT_END
            else:
                data += self._head.token_event(request.script.delta(index, piece))
            self._write(data)
            return
        delta = {"content": piece} if request.script is None else request.script.delta(index, piece)
        data += self._head.token_event(delta, request.finish_reason)
        if request.include_usage:
            data += self._head.usage_event(replies.usage(request.prompt_tokens, request.answer_tokens))
        self._write(data + replies.DONE)
        self._end()

    def failed(self, error: RefusedError) -> None:
        """End the stream as vLLM does: an in-band error, then the end mark."""
        self._write(replies.error_event(str(error), kind=error.kind, status=error.status) + replies.DONE)
        self._end()

    def _write(self, data: bytes) -> None:
        if self._transport.is_closing():
            return
        if self._transport.get_write_buffer_size() > MOST_UNREAD_BYTES:
            self._transport.abort()
            return
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def _end(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


class WholeSink:
    """Collects the tokens."""

    def __init__(self) -> None:
        self.done: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
        self._pieces: list[str] = []

    def token(self, piece: str, *, first: bool, last: bool) -> None:  # noqa: ARG002 - the sinks' common form
        self._pieces.append(piece)
        if last and not self.done.done():
            self.done.set_result(self._pieces)

    def failed(self, error: RefusedError) -> None:
        if not self.done.done():
            self.done.set_exception(error)
