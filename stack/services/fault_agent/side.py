"""One of the two connections of a conversation."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from fault_agent.relay import Conversation


class Side(asyncio.Protocol):
    """One of the two connections. It reads only while nothing holds it."""

    __slots__ = ("_holds", "_is_eof_kept", "_kept", "_talk", "is_client", "is_lost", "transport")

    def __init__(self, talk: Conversation, *, is_client: bool) -> None:
        self._talk = talk
        self.is_client = is_client
        self.transport: asyncio.Transport | None = None
        self.is_lost = False
        self._holds: set[str] = set()
        # What arrived while the side was held: uvloop reads once more after a pause.
        self._kept = b""
        self._is_eof_kept = False

    def hold(self, why: str) -> None:
        """Stop reading until `why` is released."""
        if not self._holds and self._is_open():
            cast("asyncio.Transport", self.transport).pause_reading()
        self._holds.add(why)

    def release(self, why: str) -> None:
        if why not in self._holds:
            return
        self._holds.discard(why)
        if self._holds or not self._is_open():
            return
        cast("asyncio.Transport", self.transport).resume_reading()
        kept, self._kept = self._kept, b""
        if kept:
            self.data_received(kept)
        if self._is_eof_kept:
            self._is_eof_kept = False
            self.eof_received()

    def holds(self, why: str) -> bool:
        """True until `why` is released."""
        return why in self._holds

    def hold_if(self, why: str, is_held: bool) -> None:
        """Hold or release."""
        if is_held:
            self.hold(why)
        else:
            self.release(why)

    def keep(self, data: bytes) -> None:
        """Take bytes back that came before a hold. They come again after it."""
        self._kept = data + self._kept

    def _is_open(self) -> bool:
        return self.transport is not None and not self.is_lost and not self.transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if self._holds:
            self.transport.pause_reading()
        self._talk.opened(self)

    def data_received(self, data: bytes) -> None:
        if self._holds:
            self._kept += data
            cast("asyncio.Transport", self.transport).pause_reading()
        elif self.is_client:
            self._talk.from_client(data)
        else:
            self._talk.from_service(data)

    def eof_received(self) -> bool:
        if self._holds:
            self._is_eof_kept = True
        else:
            self._talk.ended(self)
        return True

    def pause_writing(self) -> None:
        self._talk.other(self).hold("peer is slow")

    def resume_writing(self) -> None:
        self._talk.other(self).release("peer is slow")

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self._talk.lost(self, exc)
