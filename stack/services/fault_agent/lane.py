"""One direction of a connection, with the delays of network faults."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, Literal, Protocol

from fault_agent import sockets

# Bytes that may wait in a lane before its source stops reading.
FULL_BYTES: Final = 256 << 10
_OUTSIDE_S: Final = 0.001

End = Literal["eof", "close"]


class Shape(Protocol):
    """Times at which bytes of a lane leave."""

    def pieces(self, data: bytes) -> list[tuple[float, bytes]]:
        """The data in pieces, each with the loop's time at which it leaves."""
        ...


class Lane:
    """Writes to one transport, at once or as its shape has it.

    Attributes:
        ended: how it was ended, None while it is open.
    """

    __slots__ = ("_full", "_held", "_limit", "_loop", "_on_limit", "_queue", "_shape", "_timer", "_transport", "ended")

    def __init__(self, transport: asyncio.Transport, full: Callable[[bool], None]) -> None:
        """`full` gets True when the source must stop reading, later False."""
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._full = full
        self._queue: deque[tuple[float, bytes | End]] = deque()
        self._held = 0
        self._timer: asyncio.TimerHandle | None = None
        self._shape: Shape | None = None
        self._limit: int | None = None
        self._on_limit: Callable[[], None] | None = None
        self.ended: End | None = None

    def send(self, data: bytes) -> None:
        """Send bytes after those before them."""
        if self.ended is not None or not data:
            return
        if self._limit is not None and (data := self._up_to_limit(data)) == b"":
            return
        if self._shape is None and not self._queue:
            self._transport.write(data)
            return
        pieces = self._shape.pieces(data) if self._shape is not None else [(self._loop.time(), data)]
        for piece in pieces:
            self._queue.append(piece)
        self._held += len(data)
        if self._held > FULL_BYTES:
            self._full(True)
        self._flush()

    def end(self, how: End) -> None:
        """End the direction, or close the connection, after the bytes before it."""
        if self.ended in ("close", how):
            return
        self.ended = how
        if self._queue:
            self._queue.append((self._queue[-1][0], how))
        else:
            self._finish(how)

    def shape(self, shape: Shape | None) -> None:
        """Take a new shape. Without one, all that waits leaves at once."""
        self._shape = shape
        if shape is None:
            self._queue = deque((0.0, what) for _, what in self._queue)
            self._flush()

    def reset_after(self, size: int | None, act: Callable[[], None] | None = None) -> None:
        """Reset the connection after `size` more bytes. `act` is called then."""
        self._limit, self._on_limit = size, act

    def stop(self) -> None:
        """Forget what waits: the connection is gone."""
        self.ended = self.ended or "close"
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _up_to_limit(self, data: bytes) -> bytes:
        assert self._limit is not None  # noqa: S101 - checked by the caller
        data, left = data[: self._limit], self._limit - len(data)
        self._limit = max(0, left)
        if left <= 0 and self._on_limit is not None:
            act, self._on_limit = self._on_limit, None
            act()
            self._loop.call_soon(self._reset_when_sent)
        return data

    def _reset_when_sent(self) -> None:
        """Reset once the peer has the bytes: a reset discards those on their way."""
        if not self._queue and sockets.unsent_bytes(self._transport) == 0:
            sockets.reset(self._transport)
        else:
            self._loop.call_later(_OUTSIDE_S, self._reset_when_sent)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._loop.time()
        while self._queue and self._queue[0][0] <= now:
            _, what = self._queue.popleft()
            if isinstance(what, bytes):
                self._held -= len(what)
                self._transport.write(what)
            else:
                self._finish(what)
        if self._held <= FULL_BYTES // 2:
            self._full(False)
        if self._queue:
            self._timer = self._loop.call_at(self._queue[0][0], self._flush)

    def _finish(self, how: End) -> None:
        if self._transport.is_closing():
            return
        if how == "close":
            self._transport.close()
        else:
            self._transport.write_eof()
