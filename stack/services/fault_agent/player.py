"""The acts of an answer's editors, performed in their order."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from fault_agent.acts import Act, Finish, Pause, Report, Send

if TYPE_CHECKING:
    from fault_agent.faults.editors import Editor
    from fault_agent.leases import Lease

# Bytes that may wait for a pause before the service is read no further.
FULL_BYTES: Final = 64 << 10


class Stage(Protocol):
    """The conversation as its player calls it."""

    def send(self, data: bytes) -> None: ...
    def player_full(self, full: bool) -> None: ...
    def played(self, *, closes: bool) -> None:
        """The answer is complete. `closes`: the connection ends with it."""
        ...

    def cut(self) -> None: ...


class Player:
    """One answer that is edited, by each fault until that ends."""

    def __init__(
        self, stage: Stage, editors: list[tuple[Editor, Lease]], *, chunked: bool, keep_alive: bytes, head: bytes = b""
    ) -> None:
        """`head` goes out with the first bytes of the body, b"" if it already did."""
        self._stage, self._editors = stage, editors
        self._head = head
        self._chunked = chunked
        self._comment = keep_alive
        self._queue: deque[tuple[Act, Lease | None]] = deque()
        self._held = 0
        self._pause: tuple[Pause, Lease] | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._service_done = False
        self._ended = False  # the answer's end waits in the queue, or was sent
        self.over = False

    def feed(self, piece: bytes) -> None:
        """Take bytes of the service's answer."""
        if not self.over and not self._ended:
            self._through(0, [Send(piece)], None)
            self._play()

    def end(self) -> None:
        """The service's answer is complete."""
        if self._service_done:
            return
        self._service_done = True
        if self.over or self._ended:
            return
        self._end_from(0)
        self._play()

    def stop(self) -> None:
        """Forget what waits: the connection is gone."""
        self.over = True
        self._queue.clear()
        self._resume()

    def _through(self, at: int, acts: list[Act], lease: Lease | None) -> None:
        """Pass acts through the editors from number `at` on."""
        for act in acts:
            if isinstance(act, Send) and at < len(self._editors):
                editor, own = self._editors[at]
                edited: list[Act] = editor.feed(act.data) if own.active else [Send(editor.release() + act.data)]
                self._through(at + 1, edited, own)
            elif isinstance(act, Finish):
                self._end_from(at)
                return
            else:
                self._add(act, lease)

    def _end_from(self, at: int) -> None:
        """End the editors from number `at` on, then the answer. They may hold bytes."""
        if at < len(self._editors):
            editor, own = self._editors[at]
            self._through(at + 1, editor.end() if own.active else [Send(editor.release())], own)
            if not self._ended:
                self._end_from(at + 1)
        elif not self._ended:
            self._ended = True
            self._add(Finish(), None)

    def _add(self, act: Act, lease: Lease | None) -> None:
        self._queue.append((act, lease))
        if isinstance(act, Send):
            self._held += len(act.data)
            if self._held > FULL_BYTES:
                self._stage.player_full(True)

    def _play(self) -> None:
        while self._queue and self._pause is None and not self.over:
            act, lease = self._queue.popleft()
            if isinstance(act, Send):
                self._held -= len(act.data)
                self._send(act.data)
            elif isinstance(act, Pause):
                if lease is not None and lease.active:
                    self._wait(act, lease)
            elif isinstance(act, Report):
                act.sent()
            elif isinstance(act, Finish):
                self.over = True
                self._say(b"0\r\n\r\n" if self._chunked else b"")
                # Without chunks, only the end of the connection ends the answer.
                self._stage.played(closes=not self._service_done or not self._chunked)
            else:
                self.over = True
                self._stage.cut()
        if self._held <= FULL_BYTES // 2:
            self._stage.player_full(False)

    def _send(self, data: bytes) -> None:
        if data:
            self._say(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def _say(self, data: bytes) -> None:
        head, self._head = self._head, b""
        if head or data:
            self._stage.send(head + data)

    def _wait(self, pause: Pause, lease: Lease) -> None:
        self._pause = (pause, lease)
        lease.at_end.add(self._go_on)
        loop = asyncio.get_running_loop()
        if pause.seconds is not None:
            self._timers.append(loop.call_later(pause.seconds, self._go_on))
        if pause.keep_alive_s is not None and self._comment:
            self._timers.append(loop.call_later(pause.keep_alive_s, self._keep_alive, pause.keep_alive_s))

    def _keep_alive(self, every_s: float) -> None:
        self._send(self._comment)
        self._timers.append(asyncio.get_running_loop().call_later(every_s, self._keep_alive, every_s))
        del self._timers[:-2]

    def _go_on(self) -> None:
        self._resume()
        self._play()

    def _resume(self) -> None:
        if self._pause is not None:
            self._pause[1].at_end.discard(self._go_on)
            self._pause = None
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
