"""HTTP/1.1 connections to replicas.

A reader gets the bytes of an answer in the callback in which they arrive. No task wakes
for them, so a token costs one pass through the event loop.
"""

import asyncio
import ssl
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, cast
from urllib.parse import urlsplit

import httptools

IDLE_S = 2.0  # replicas close idle connections (llama.cpp after 5 s), which can fail a request
BARE_MAX_BYTES = 2**16  # headers, chunk extensions or trailers in a row. The parser itself has no limit


class End(Enum):
    """End of an answer."""

    COMPLETE = "complete"
    LOST = "lost"  # the connection broke
    MALFORMED = "malformed"  # it was not HTTP


class Reader(Protocol):
    """Takes one answer. Its methods may not raise."""

    def begin(self, status: int) -> None: ...

    def feed(self, data: bytes) -> None: ...

    def end(self, how: End) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Address:
    """Address of a replica.

    Attributes:
        host: Name or address.
        port: TCP port.
        tls: True for https.
        target: Path of the request.
        authority: Value of the header Host.
    """

    host: str
    port: int
    tls: bool
    target: str
    authority: str

    @classmethod
    def of(cls, url: str, path: str) -> "Address":
        """The address of `path` below the replica's URL."""
        parts = urlsplit(url)
        tls = parts.scheme == "https"
        return cls(
            host=parts.hostname or "",
            port=parts.port or (443 if tls else 80),
            tls=tls,
            target=parts.path.rstrip("/") + path,
            authority=parts.netloc,
        )


class Connection(asyncio.Protocol):
    """One connection. It carries one request at a time."""

    def __init__(self, home: "Connections", address: Address) -> None:
        self.address = address
        self._home = home
        self._parser = httptools.HttpResponseParser(self)
        self._reader: Reader | None = None
        self._body: list[bytes] = []
        self._bare_bytes = 0  # since the last of the body
        self._status = 0
        self._framed = self._complete = self._lasting = False
        self._excess = False  # something came that is no part of one answer
        self._expiry: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    @property
    def open(self) -> bool:
        return not self._transport.is_closing()

    def send(self, head: bytes, body: bytes, reader: Reader) -> None:
        """Send a request, whose answer goes to `reader`."""
        self._reader = reader
        self._status = self._bare_bytes = 0
        self._framed = self._complete = False
        self._transport.write(head + body)

    def pause(self) -> None:
        """Stop reading, because the reader of the answer is slow."""
        if self.open:
            self._transport.pause_reading()

    def resume(self) -> None:
        if self.open:
            self._transport.resume_reading()

    def close(self) -> None:
        """Cut the connection, which cancels the work upstream."""
        self._reader = None
        self._rest(None)
        self._transport.abort()

    def release(self, within_s: float) -> None:
        """Keep the connection for the next request, if this answer ends in time."""
        self._reader = None
        if not self.open:
            return
        self.resume()
        if self._complete:
            self._home.keep(self)
        else:
            self._rest(asyncio.get_running_loop().call_later(within_s, self.close))

    def rest(self) -> None:
        """Close after a while, unless `wake` is called."""
        self._rest(asyncio.get_running_loop().call_later(IDLE_S, self.close))

    def wake(self) -> None:
        self._rest(None)

    def _rest(self, expiry: asyncio.TimerHandle | None) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        self._expiry = expiry

    # Called by the transport.

    def data_received(self, data: bytes) -> None:
        if self._reader is None and self._complete:
            self.close()  # an answer to no request
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._excess = True
        self._bare_bytes = 0 if self._body else self._bare_bytes + len(data)
        if self._body:
            body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
            self._body.clear()
            if self._reader is not None:
                self._reader.feed(body)
        if self._complete:
            self._end(End.COMPLETE)
        elif self._excess or self._bare_bytes > BARE_MAX_BYTES:
            self._end(End.MALFORMED)

    def connection_lost(self, error: Exception | None) -> None:
        self._rest(None)
        self._home.forget(self)
        del self._parser  # it refers to this connection: a cycle
        # Without a length, the end of the connection is the end of the answer.
        ended_well = error is None and self._status and not self._framed
        self._end(End.COMPLETE if ended_well else End.LOST)

    def _end(self, how: End) -> None:
        reader, self._reader = self._reader, None
        reusable = how is End.COMPLETE and self._complete and self.open and self._lasting and not self._excess
        if not reusable:
            self.close()
        elif reader is None:
            self._home.keep(self)
        if reader is not None:
            reader.end(how)

    # Called by the parser.

    def on_message_begin(self) -> None:
        self._excess = self._complete

    def on_header(self, name: bytes, _value: bytes) -> None:
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._framed = True

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200 or self._excess:
            return  # an interim answer, or one to no request
        self._status = status
        if self._reader is not None:
            self._reader.begin(status)

    def on_body(self, data: bytes) -> None:
        if not self._excess:
            self._body.append(data)

    def on_message_complete(self) -> None:
        self._complete = self._status > 0
        self._lasting = self._parser.should_keep_alive()


class Connections:
    """Idle connections, and how to make new ones."""

    def __init__(self, connect_s: float) -> None:
        self._connect_s = connect_s
        self._idle: dict[Address, list[Connection]] = {}
        self._all: set[Connection] = set()
        self._tls: ssl.SSLContext | None = None

    async def get(self, address: Address) -> Connection:
        """A connection without a request.

        Raises:
            OSError: none can be made. TimeoutError is an OSError.
        """
        idle = self._idle.get(address)
        while idle:
            connection = idle.pop()
            if connection.open:
                connection.wake()
                return connection
        loop = asyncio.get_running_loop()
        # A recreated container has a new address, so names are resolved anew.
        async with asyncio.timeout(self._connect_s):
            _, made = await loop.create_connection(
                lambda: Connection(self, address), address.host, address.port, ssl=self._tls_for(address)
            )
        self._all.add(made)
        return made

    def keep(self, connection: Connection) -> None:
        """Keep a connection for the next request."""
        connection.rest()
        self._idle.setdefault(connection.address, []).append(connection)

    def forget(self, connection: Connection) -> None:
        """Forget a connection that has ended."""
        self._all.discard(connection)
        idle = self._idle.get(connection.address, [])
        if connection in idle:
            idle.remove(connection)

    def close(self) -> None:
        for connection in tuple(self._all):
            connection.close()

    def _tls_for(self, address: Address) -> ssl.SSLContext | None:
        if address.tls and self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls if address.tls else None
