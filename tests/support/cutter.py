"""A proxy in front of a model server that cuts answers at a given byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

Way = Literal["end", "reset", "stall"]


@dataclass(frozen=True, kw_only=True)
class Cut:
    """End of an answer after so many bytes, its head included."""

    at: int
    way: Way = "reset"


@dataclass(kw_only=True)
class Cutter:
    """One proxy. `plan` has the cuts of the requests in whose body a text is."""

    upstream: int
    plan: Mapping[str, list[Cut]]
    port: int = 0
    longest: int = 0  # bytes of an answer
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection. It ends as soon as one side does."""
        below = await asyncio.open_connection("127.0.0.1", self.upstream)
        request, sent, cut = bytearray(), 0, None

        async def down() -> None:
            nonlocal sent
            while data := await below[0].read(2**16):
                if cut is not None and sent + len(data) >= cut.at:
                    writer.write(data[: cut.at - sent])
                    await writer.drain()
                    if cut.way == "stall":
                        await asyncio.Event().wait()
                    writer.transport.abort() if cut.way == "reset" else writer.close()
                    return
                sent += len(data)
                self.longest = max(self.longest, sent)
                writer.write(data)

        answers = asyncio.create_task(down())
        self._tasks.add(answers)
        answers.add_done_callback(self._tasks.discard)
        answers.add_done_callback(lambda _: writer.close())
        try:
            with suppress(ConnectionError):
                while data := await reader.read(2**16):
                    if data.startswith((b"POST ", b"GET ")):
                        request.clear()
                        sent, cut = 0, None
                    request += data
                    cut = cut or next(
                        (cuts.pop(0) for text, cuts in self.plan.items() if cuts and text.encode() in request), None
                    )
                    below[1].write(data)
        finally:
            answers.cancel()
            below[1].close()
            writer.close()


@asynccontextmanager
async def cutting(upstream: int, plan: Mapping[str, list[Cut]]) -> AsyncIterator[Cutter]:
    """A proxy on a free port."""
    cutter = Cutter(upstream=upstream, plan=plan)
    server = await asyncio.start_server(cutter.serve, "127.0.0.1", 0)
    cutter.port = server.sockets[0].getsockname()[1]
    try:
        yield cutter
    finally:
        server.close()
