"""Two scripted peers on raw sockets around a proxy.

A conversation is a list of flights. The next flight begins when the bytes of the last
one have arrived, so a proxy that holds bytes is found out too. One thread drives both
sides.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Sequence

DEADLINE_S = 5.0
CLIENT, SERVICE = "client", "service"
KNOCK = b"\x00 no HTTP"
OPEN: list[Peer] = []  # by this module, and not closed by it yet


@dataclass(frozen=True, kw_only=True)
class Flight:
    """Pieces that each side writes, both at the same time.

    `client_ends` and `service_ends`: that side sends nothing after its pieces (FIN).
    """

    client: tuple[bytes, ...] = ()
    service: tuple[bytes, ...] = ()
    pause_s: float = 0.0  # between two pieces of a side
    client_ends: bool = False
    service_ends: bool = False

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Print for hypothesis."""
        printer.text(repr(self))

    def __repr__(self) -> str:
        """Short, since a test's failure prints whole conversations."""
        sides = ((CLIENT, self.client, self.client_ends), (SERVICE, self.service, self.service_ends))
        shown = [
            f"{name} {b''.join(pieces)[:60]!r} ({sum(map(len, pieces))} bytes in {len(pieces)})" + " ends" * ends
            for name, pieces, ends in sides
            if pieces or ends
        ]
        return f"<{'; '.join(shown)}>"


class Peer:
    """One end of a connection, which never blocks."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = connection
        OPEN.append(self)
        self.got = bytearray()
        self.ended = False  # the other side's end has come
        self.reset = False

    def read(self) -> None:
        while not (self.ended or self.reset):
            try:
                data = self.socket.recv(1 << 18)
            except BlockingIOError:
                return
            except ConnectionError:
                self.reset = True
                return
            self.got += data
            self.ended = not data

    def send(self, data: bytes | memoryview) -> int:
        """Write what the kernel takes at once. Returns its size."""
        try:
            return self.socket.send(data)
        except BlockingIOError:
            return 0
        except ConnectionError:
            self.reset = True
            return 0

    def end(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        """Close with a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        self.socket.close()

    def sees(self, data: bytes, within_s: float = DEADLINE_S) -> None:
        """Wait until exactly these bytes have arrived, and take them."""

        def arrived() -> bool:
            self.read()
            return len(self.got) >= len(data) or self.ended or self.reset

        until(arrived, f"{len(data)} bytes", within_s, every_s=0.001, seen=lambda: bytes(self.got[-200:]))
        assert_same(bytes(self.got), data)
        self.got.clear()

    def sees_the_end(self, within_s: float = DEADLINE_S) -> float:
        """Wait for a FIN or a reset. Returns the seconds that it took."""
        began_s = time.monotonic()

        def ended() -> bool:
            self.read()
            return self.ended or self.reset

        until(ended, "the end of the connection", within_s, every_s=0.001, seen=lambda: bytes(self.got[-200:]))
        return time.monotonic() - began_s


class Service:
    """A listening socket without any knowledge of HTTP."""

    def __init__(self, port: int = 0) -> None:
        self.socket = listener(port)
        self.port = int(self.socket.getsockname()[1])

    def accept(self) -> Peer | None:
        """The next connection, None without one."""
        try:
            return Peer(self.socket.accept()[0])
        except BlockingIOError:
            return None

    def accepted(self) -> Peer:
        """Wait for the next connection."""
        peer = until(self.accept, "a connection at the service", DEADLINE_S, every_s=0.001)
        assert peer is not None
        return peer

    def close(self) -> None:
        self.socket.close()


def close_all() -> None:
    """Close what a test has left open."""
    while OPEN:
        OPEN.pop().close()


def listener(port: int = 0) -> socket.socket:
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind(("127.0.0.1", port))
    one.listen(1024)
    one.setblocking(False)
    return one


def connect(port: int, *, receive_bytes: int | None = None) -> Peer:
    """A client's connection. `receive_bytes`: size of its receive buffer."""
    one = socket.socket()
    if receive_bytes is not None:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    one.settimeout(DEADLINE_S)
    try:
        one.connect(("127.0.0.1", port))
    except OSError:
        one.close()
        raise
    return Peer(one)


@dataclass
class _Writer:
    """The pieces that one side still has to write."""

    peer: Peer
    pieces: list[bytes]
    ends: bool
    pause_s: float
    rest: memoryview = field(default_factory=lambda: memoryview(b""))
    next_s: float = 0.0

    def done(self) -> bool:
        return not self.pieces and not self.rest and not self.ends

    def write(self) -> None:
        now_s = time.monotonic()
        while self.rest or (self.pieces and now_s >= self.next_s):
            if not self.rest:
                self.rest = memoryview(self.pieces.pop(0))
                self.next_s = now_s + self.pause_s
            sent = self.peer.send(self.rest)
            self.rest = self.rest[sent:]
            if self.rest:
                assert not self.peer.reset, "the connection was reset during a write"
                return
        if self.ends and not self.pieces and not self.rest:
            self.peer.end()
            self.ends = False


def reaches(port: int, service: Service) -> bool:
    """True if bytes pass the proxy at `port`.

    Its connections to the service have ended then, so the next one is that of the next
    client.
    """
    try:
        client = connect(port)
    except ConnectionError:
        return False
    client.send(KNOCK)
    came: list[Peer] = []

    def arrived() -> bool:
        while (peer := service.accept()) is not None:
            came.append(peer)
        for peer in (client, *came):
            peer.read()
        return client.ended or client.reset or any(peer.got == KNOCK for peer in came)

    until(arrived, "the bytes of a new connection", DEADLINE_S, every_s=0.001, seen=lambda: came)
    passed = any(peer.got == KNOCK for peer in came)
    client.close()
    for peer in came:
        peer.sees_the_end()
        peer.close()
    return passed


def talk(port: int, service: Service, conversation: Sequence[Flight]) -> None:
    """Hold one conversation through the proxy at `port` and compare every byte."""
    client = connect(port)
    answering: Peer | None = None
    try:
        answering = service.accepted()
        for number, flight in enumerate(conversation):
            _fly(client, answering, flight, f"flight {number} of {len(conversation)}")
    finally:
        for peer in (client, answering):
            if peer is not None:
                peer.close()
                OPEN.remove(peer)


def _fly(client: Peer, service: Peer, flight: Flight, name: str) -> None:
    wanted = {client: b"".join(flight.service), service: b"".join(flight.client)}
    ends = {client: flight.service_ends, service: flight.client_ends}
    writers = [
        _Writer(client, list(flight.client), flight.client_ends, flight.pause_s),
        _Writer(service, list(flight.service), flight.service_ends, flight.pause_s),
    ]
    deadline_s = time.monotonic() + DEADLINE_S
    while True:
        for writer in writers:
            writer.write()
        for peer in (client, service):
            peer.read()
            assert not peer.reset, f"{name}: the connection of the {_side(peer, client)} was reset"
        if all(w.done() for w in writers) and all(_whole(peer, wanted[peer], ends[peer]) for peer in wanted):
            break
        if time.monotonic() > deadline_s:
            _fail(client, service, wanted, ends, name)
        _wait(client, service, writers)
    for peer, data in wanted.items():
        assert_same(bytes(peer.got), data, f"{name}, at the {_side(peer, client)}")
        peer.got.clear()


def _whole(peer: Peer, wanted: bytes, ends: bool) -> bool:
    """True if the peer has it all, or if it never will."""
    return peer.ended or (len(peer.got) >= len(wanted) and not ends)


def _wait(client: Peer, service: Peer, writers: list[_Writer]) -> None:
    reading = [peer.socket for peer in (client, service) if not peer.ended]
    writing = [writer.peer.socket for writer in writers if writer.rest]
    waiting_s = [writer.next_s - time.monotonic() for writer in writers if writer.pieces and not writer.rest]
    select.select(reading, writing, [], max(0.0, min([0.02, *waiting_s])))


def _side(peer: Peer, client: Peer) -> str:
    return CLIENT if peer is client else SERVICE


def _fail(client: Peer, service: Peer, wanted: dict[Peer, bytes], ends: dict[Peer, bool], name: str) -> None:
    states = [
        f"the {_side(peer, client)} has {len(peer.got)} of {len(data)} bytes"
        + (" and lacks the end" if ends[peer] and not peer.ended else "")
        + f"; wanted next: {data[len(peer.got) : len(peer.got) + 80]!r}"
        for peer, data in wanted.items()
    ]
    raise AssertionError(f"{name} did not arrive within {DEADLINE_S:g} s: " + "; ".join(states))


def assert_same(got: bytes, wanted: bytes, where: str = "the bytes") -> None:
    """Like an assert, with a short message for long values."""
    if got == wanted:
        return
    at = next((i for i, (a, b) in enumerate(zip(got, wanted, strict=False)) if a != b), min(len(got), len(wanted)))
    near = slice(max(0, at - 40), at + 80)
    raise AssertionError(
        f"{where}: {len(got)} bytes instead of {len(wanted)}, first difference at {at}: "
        f"got {got[near]!r} instead of {wanted[near]!r}"
    )
