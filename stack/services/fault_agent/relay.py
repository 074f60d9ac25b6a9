"""One client's connection and its connection to the service.

Bytes pass unchanged and at once. Messages are only followed, so that a fault can hit
the next request of an open connection. What is not HTTP/1 passes unread.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from random import Random
from typing import TYPE_CHECKING, Final, cast

from fault_agent import framing, sockets
from fault_agent.exchange import Exchange
from fault_agent.faults.base import StreamFault
from fault_agent.faults.decide import is_chosen
from fault_agent.faults.events import keep_alive_of
from fault_agent.faults.network import Latency, Reject, Reset
from fault_agent.lane import Lane
from fault_agent.link import Delays
from fault_agent.player import Player
from fault_agent.side import Side

if TYPE_CHECKING:
    from collections.abc import Callable

    from fault_agent.agent import Agent
    from fault_agent.leases import Lease
    from fault_agent.messages import AnswerHead

_TOO_LARGE: Final = b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Conversation:
    """A client and the service, joined."""

    __slots__ = (
        "_agent",
        "_answer_body",
        "_answer_reader",
        "_asked",
        "_chosen",
        "_connecting",
        "_counted",
        "_exchanges",
        "_is_http",
        "_is_raw",
        "_number",
        "_player",
        "_request_body",
        "_request_reader",
        "_rest",
        "_service_ended",
        "_to_client",
        "_to_service",
        "client",
        "service",
    )

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._number = agent.connections
        self.client = Side(self, is_client=True)
        self.service = Side(self, is_client=False)
        self.client.hold("connects")
        self._to_client: Lane | None = None
        self._to_service: Lane | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._is_raw = False
        self._is_http = False  # a request was read
        self._request_reader, self._answer_reader = framing.HeadReader(), framing.HeadReader()
        self._request_body: framing.Body | None = None
        self._answer_body: framing.Body | None = None
        self._exchanges: deque[Exchange] = deque()
        # The request whose body is read. Its answer may come, and end, before that.
        self._asked: Exchange | None = None
        self._player: Player | None = None
        self._rest = b""  # bytes of the service for which it is too early
        self._service_ended = False
        self._counted: set[str] = set()  # leases of which this connection has a hit
        self._chosen: dict[str, bool] = {}  # by lease, whether it hits this connection

    # Connections.

    def opened(self, side: Side) -> None:
        assert side.transport is not None  # noqa: S101 - a connection that was made has one
        if side is self.service:
            self._to_service = Lane(side.transport, functools.partial(self.client.hold_if, "lane"))
            self.apply_link()
            self.client.release("connects")
            return
        self._to_client = Lane(side.transport, functools.partial(self.service.hold_if, "lane"))
        self._agent.add(self)
        if self._is_reset_at_once():
            return
        if not self._is_chosen_by("black_hole"):
            self._connect()
        self.apply_link()

    def _connect(self) -> None:
        if self._connecting is None:
            self._connecting = asyncio.get_running_loop().create_task(self._open_service())

    async def _open_service(self) -> None:
        assert self.client.transport is not None  # noqa: S101 - the client's connection was made first
        try:
            host, port = self._agent.destination_of(self.client.transport)
            await asyncio.get_running_loop().create_connection(lambda: self.service, host, port)
        except OSError as error:
            self._agent.refused(error)
            self.reset()
            return
        if self.client.is_lost and self.service.transport is not None:
            self.service.transport.abort()

    def other(self, side: Side) -> Side:
        return self.client if side is self.service else self.service

    def ended(self, side: Side) -> None:
        """The peer of `side` sends no more."""
        if side is self.client:
            self._flush_requests()
            if self._to_service is not None:
                self._to_service.end("eof")
            if self._is_own_turn and self._service_ended:
                self._end_answers()
            self._close_if_both_ended()
            return
        self._service_ended = True
        if self._owes_answer:  # the service never saw that request, so its connection idles
            return
        if self._player is not None and self._answer_body is not None and not self._answer_body.until_close:
            self._player.stop()
            self._player = None
            self.cut()
            return
        if self._answer_body is not None and self._answer_body.until_close:
            self._answer_body.done = True
            if self._player is not None:
                self._player.end()
            else:
                self._delivered()
        if self._player is None:
            self._end_answers()

    def _end_answers(self) -> None:
        """Pass the service's end on to the client."""
        if held := self._answer_reader.held:
            self._say(held)
        if self._to_client is not None:
            self._to_client.end("eof")
        self._close_if_both_ended()

    def _close_if_both_ended(self) -> None:
        lanes = (self._to_client, self._to_service)
        if all(lane is not None and lane.ended for lane in lanes):
            for lane in lanes:
                if lane is not None:
                    lane.end("close")

    def lost(self, side: Side, error: Exception | None) -> None:
        """The connection of `side` is gone, with an error unless it was closed."""
        lane, other = (self._to_client, self.service) if side is self.client else (self._to_service, self.client)
        if lane is not None:
            lane.stop()
        if side is self.client:
            self._agent.remove(self)
            if self._player is not None:
                self._player.stop()
        if other.transport is None or other.is_lost:
            return
        if error is not None:
            sockets.reset(other.transport)
        elif side is self.client and self._to_service is not None:
            self._to_service.end("close")
        elif side is self.service and self._to_client is not None and self._player is None and not self._owes_answer:
            self._to_client.end("close")

    def reset(self) -> None:
        """End both connections with an RST."""
        for side in (self.client, self.service):
            if side.transport is not None and not side.is_lost:
                sockets.reset(side.transport)

    # From the client.

    def from_client(self, data: bytes) -> None:
        while data:
            if self._is_raw:
                self._ask(data)
                return
            data = self._read_head(data) if self._request_body is None else self._read_body(data)

    def _read_head(self, data: bytes) -> bytes:
        """Take bytes of a request's head. Return what follows it."""
        reader = self._request_reader
        try:
            found = reader.feed(data)
        except framing.HeadTooLargeError:
            self._refuse_head()
            return b""
        if found is None:
            if not framing.may_be_request(reader.held):
                self._go_raw()
            return b""
        raw, rest = found
        try:
            head = framing.request_head(raw)
            self._request_body = framing.body_of_request(head)
        except framing.NotHttpError:
            self._go_raw()
            self._ask(raw)
            return rest
        self._is_http = True
        exchange = self._agent.exchange(head)
        self._exchanges.append(exchange)
        self._asked = exchange
        if lease := exchange.held_by("received"):
            self._hold_request(lease, functools.partial(self._take_request, exchange, raw))
            self.client.keep(rest)
            return b""
        self._take_request(exchange, raw)
        return self._unless_held(rest)

    def _take_request(self, exchange: Exchange, raw: bytes) -> None:
        """Decide about a request whose head is known, and pass the head on."""
        assert self._request_body is not None  # noqa: S101 - set with the head
        if exchange.leases:
            if exchange.waits_for_body and not self._request_body.done:
                exchange.held = []
            else:
                exchange.choose_substitute()
        self._pass_request(exchange, raw)
        if self._request_body.done:
            self._request_read(exchange)

    def _unless_held(self, rest: bytes) -> bytes:
        """Return what follows a request. If that waits, keep it."""
        if not self.client.holds("message"):
            return rest
        self.client.keep(rest)
        return b""

    def _hold_request(self, lease: Lease, pass_on: Callable[[], None]) -> None:
        """Keep a request, and all that follows it, until the fault ends.

        A request whose client has left by then is dropped.
        """
        self.client.hold("message")

        def go_on() -> None:
            if self.client.transport is None or sockets.has_left(self.client.transport):
                self.reset()
                return
            pass_on()
            self.client.release("message")

        lease.at_end.add(go_on)
        lease.hit()

    def _read_body(self, data: bytes) -> bytes:
        body, exchange = self._request_body, self._asked
        assert body is not None  # noqa: S101 - checked by the caller
        assert exchange is not None  # noqa: S101 - set with the body
        decoded: list[bytes] | None = [] if exchange.wants_body else None
        try:
            end = body.advance(data, 0, decoded)
        except framing.NotHttpError:
            self._go_raw()
            return data
        if decoded is not None:
            exchange.take_body(decoded)
            if exchange.held is not None and not exchange.wants_body:  # it is too long to be held
                self._settle(exchange)
        self._pass_request(exchange, data if end == len(data) else data[:end])
        if body.done:
            self._request_read(exchange)
        return self._unless_held(data[end:])

    def _pass_request(self, exchange: Exchange, data: bytes) -> None:
        if exchange.substitute is not None:
            if exchange.head.header("expect"):  # its body does not come before 100
                exchange.is_read = True
                self._substitute()
        elif exchange.held is not None:
            exchange.held.append(data)
        else:
            self._ask(data)

    def _request_read(self, exchange: Exchange) -> None:
        self._request_body = self._asked = None
        exchange.is_read = True
        if exchange.held is not None:
            exchange.choose_hold()
            if lease := exchange.held_by("received"):
                self._hold_request(lease, functools.partial(self._decide, exchange))
                return
        self._decide(exchange)

    def _decide(self, exchange: Exchange) -> None:
        """Answer a request that was read, unless it was passed on."""
        if exchange.held is not None:
            self._settle(exchange)
        if exchange.substitute is not None:
            self._substitute()

    def _settle(self, exchange: Exchange) -> None:
        """Answer a held request, or pass it on."""
        exchange.choose_substitute()
        if exchange.substitute is None:
            self._flush_held(exchange)
        exchange.held = None

    def _flush_held(self, exchange: Exchange) -> None:
        held, exchange.held = exchange.held or [], None
        for data in held:
            self._ask(data)

    def _flush_requests(self) -> None:
        """Pass an incomplete request on: its rest does not come."""
        if self._asked is not None and self._asked.held is not None:
            self._flush_held(self._asked)
        elif self._request_reader.held:
            self._go_raw()

    def _refuse_head(self) -> None:
        if self._to_client is not None:
            self._to_client.send(_TOO_LARGE)
            self._to_client.end("close")
        if self._to_service is not None:
            self._to_service.end("close")

    def _ask(self, data: bytes) -> None:
        if self._to_service is not None:
            self._to_service.send(data)

    def _go_raw(self) -> None:
        """Pass everything on unread from now on, and first what was held."""
        if self._is_raw:
            return
        self._is_raw = True
        if self.is_unread:
            self._agent.count_unread()
        if self._asked is not None:
            self._flush_held(self._asked)
        held, self._request_reader = self._request_reader.held, framing.HeadReader()
        self._ask(held)

    @property
    def is_busy(self) -> bool:
        """True until the client has the answers to all its requests of HTTP/1."""
        to_client = self.client.transport
        is_sending = to_client is not None and to_client.get_write_buffer_size() > 0
        return is_sending or (not self._is_raw and (bool(self._exchanges) or self._asked is not None))

    @property
    def is_unread(self) -> bool:
        """True if the connection never carried an HTTP/1 request."""
        return self._is_raw and not self._is_http

    # Answers of the agent itself.

    @property
    def _is_own_turn(self) -> bool:
        """True if an answer of the agent's own is the next one."""
        return bool(self._exchanges) and self._exchanges[0].substitute is not None

    @property
    def _owes_answer(self) -> bool:
        """The same, unless the client has ended: servers take that for a cancel."""
        return self._is_own_turn and (self._to_service is None or self._to_service.ended is None)

    def _substitute(self) -> None:
        """Give the agent's own answer if it is that request's turn."""
        if not self._exchanges:
            return
        exchange = self._exchanges[0]
        if exchange.substitute is None or exchange.begun or not exchange.is_read:
            return
        exchange.begun = True
        answer, lease = exchange.substitute
        if answer.cuts:
            lease.hit()

        def give() -> None:
            timer.cancel()
            lease.at_end.discard(give)
            if not self.client.is_lost:
                self._give(exchange)

        timer = asyncio.get_running_loop().call_later(answer.delay_s, give)
        if answer.delay_s:
            lease.at_end.add(give)
        else:
            give()

    def _give(self, exchange: Exchange) -> None:
        assert exchange.substitute is not None  # noqa: S101 - checked by the caller
        answer, lease = exchange.substitute
        if answer.cuts:
            self._close_both()
            return
        lease.hit()
        is_last = framing.is_last(exchange.head) or exchange.head.header("expect") != ""
        headers = [*answer.headers, ("Content-Length", str(len(answer.body)))]
        if is_last:
            headers.append(("Connection", "close"))
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
        head = f"HTTP/1.1 {answer.status} {answer.reason}\r\n{lines}\r\n".encode("latin-1")
        self._say(head if exchange.head.method == "HEAD" else head + answer.body)
        self._delivered()
        if is_last:
            self._close_both()
            return
        self._next_answer()
        if self._service_ended and not self._owes_answer:
            self._end_answers()

    def _close_both(self) -> None:
        if self._to_client is not None:
            self._to_client.end("close")
        if self.service.transport is not None and not self.service.is_lost:
            self.service.transport.abort()

    # From the service.

    def from_service(self, data: bytes) -> None:
        while data:
            if self._is_raw and self._player is None and self._answer_body is None:
                self._say(data)
                return
            if self._player is not None and self._answer_body is None:
                self._rest += data  # the next answer, and this one still plays
                self.service.hold("turn")
                return
            data = self._read_answer_head(data) if self._answer_body is None else self._read_answer_body(data)

    def _read_answer_head(self, data: bytes) -> bytes:
        """Take bytes of an answer's head. Return what follows it."""
        if not self._exchanges:
            self._go_raw()  # the service sends first
            return data
        if self._is_own_turn:
            self._rest += data  # it is the turn of an answer of the agent's own
            self.service.hold("turn")
            return b""
        try:
            found = self._answer_reader.feed(data)
        except framing.HeadTooLargeError:
            self.reset()
            return b""
        if found is None:
            return b""
        raw, rest = found
        exchange = self._exchanges[0]
        try:
            head = framing.answer_head(raw, exchange.head)
            body = framing.body_of_answer(head)
        except framing.NotHttpError:
            self._go_raw()
            self._say(raw)
            return rest
        if framing.is_tunnel(head):
            self._go_raw()
        if head.status < 200:
            self._say(raw)
        else:
            self._answer_body = body
            self._begin_answer(exchange, head, raw)
            if body.done:
                self._answer_read()
        return rest

    def _begin_answer(self, exchange: Exchange, head: AnswerHead, raw: bytes) -> None:
        editors = exchange.editors(head) if exchange.leases and not cast("framing.Body", self._answer_body).done else []
        if not editors or framing.is_coded(head):
            self._say(raw)
            return
        chunked = exchange.head.version != "1.0"
        edited = framing.without_length(raw, chunked=chunked)
        if not any(isinstance(lease.fault, StreamFault) and lease.fault.takes_head for _, lease in editors):
            self._say(edited)
            edited = b""
        self._player = Player(self, editors, head=edited, chunked=chunked, keep_alive=keep_alive_of(head))

    def _read_answer_body(self, data: bytes) -> bytes:
        body = self._answer_body
        assert body is not None  # noqa: S101 - checked by the caller
        player = self._player
        decoded: list[bytes] | None = [] if player is not None else None
        try:
            end = body.advance(data, 0, decoded)
        except framing.NotHttpError:
            if player is not None:
                self.cut()
                return b""
            self._answer_body = None
            self._go_raw()
            return data
        if player is None:
            self._say(data if end == len(data) else data[:end])
        else:
            for piece in decoded or ():
                player.feed(piece)
            if self._player is not player:  # an editor ended the answer, and with it the connection
                return b""
        if body.done:
            self._answer_read()
        return data[end:]

    def _answer_read(self) -> None:
        """The service's answer is complete."""
        self._answer_body = None
        if self._player is not None:
            self._player.end()
        else:
            self._delivered()
            self._next_answer()

    def _delivered(self) -> None:
        """The client has the whole answer to its oldest request."""
        lease = self._exchanges.popleft().held_by("delivered")
        if lease is not None and not lease.acted.is_set():
            lease.hit()

    def _next_answer(self) -> None:
        self._substitute()
        rest, self._rest = self._rest, b""
        self.service.release("turn")
        if rest:
            self.from_service(rest)

    # The stage of a player.

    def send(self, data: bytes) -> None:
        self._say(data)

    def player_full(self, full: bool) -> None:
        self.service.hold_if("player", full)

    def played(self, *, closes: bool) -> None:
        self._player = None
        if self._exchanges:
            self._delivered()
        if closes:
            self._close_both()
            return
        if (self._service_ended or self.service.is_lost) and not self._owes_answer:
            self._end_answers()
            return
        self._next_answer()

    def cut(self) -> None:
        self._close_both()

    def _say(self, data: bytes) -> None:
        if self._to_client is not None:
            self._to_client.send(data)

    # Network faults.

    def apply_link(self) -> None:
        """Act as the network faults in force have it."""
        if self._is_chosen_by("black_hole"):
            self._count_hit(self._agent.link.leases["black_hole"])
            self.client.hold("black hole")
            self.service.hold("black hole")
        else:
            self.client.release("black hole")
            self.service.release("black hole")
            if self._connecting is None and self.client.transport is not None and not self.client.is_lost:
                if sockets.has_left(self.client.transport):  # in a black hole, its connection was never made
                    self.reset()
                    return
                self._connect()
        self._shape()

    def _shape(self) -> None:
        link = self._agent.link
        latency = link.leases.get("latency") if self._is_chosen_by("latency") else None
        bandwidth = link.leases.get("bandwidth") if self._is_chosen_by("bandwidth") else None
        budgets = link.budgets if bandwidth is not None and link.budgets is not None else (None, None)
        fault = latency.fault if latency is not None and isinstance(latency.fault, Latency) else None
        hit = functools.partial(self._count_hit, latency, bandwidth)
        seed = latency.seed if latency is not None else 0
        if self._to_client is not None:
            draw = Random(f"{seed} {self._number}")  # noqa: S311 - a schedule, not a secret
            is_shaped = fault is not None or budgets[0] is not None
            self._to_client.shape(Delays(fault, budgets[0], draw, hit) if is_shaped else None)
        if self._to_service is not None:
            draw = Random(f"{seed} {self._number} to service")  # noqa: S311 - as above
            self._to_service.shape(Delays(None, budgets[1], draw, hit) if budgets[1] is not None else None)

    def _count_hit(self, *leases: Lease | None) -> None:
        """Count one hit of each fault on this connection, whenever it acts first."""
        for lease in leases:
            if lease is not None and lease.id not in self._counted:
                self._counted.add(lease.id)
                lease.hit()

    def strike(self, lease: Lease) -> None:
        """Let a fault begin to act on this open connection."""
        fault = lease.fault
        if not self._is_chosen(lease):
            return
        if isinstance(fault, Reject):
            lease.hit()
            self.reset()
        elif isinstance(fault, Reset):
            self._reset_after(fault.after_bytes, lease)
        else:
            self.apply_link()

    def _is_reset_at_once(self) -> bool:
        for kind in ("reject", "reset"):
            lease = self._agent.link.leases.get(kind)
            if lease is not None and self._is_chosen(lease):
                size = lease.fault.after_bytes if isinstance(lease.fault, Reset) else 0
                self._reset_after(size, lease)
                return size == 0
        return False

    def _reset_after(self, size: int, lease: Lease) -> None:
        if size == 0:
            lease.hit()
            self.reset()
        elif self._to_client is not None:
            self._to_client.reset_after(size, lease.hit)

    def relent(self, lease: Lease) -> None:
        """Let a fault end."""
        if isinstance(lease.fault, Reset) and self._to_client is not None:
            self._to_client.reset_after(None)
        self._chosen.pop(lease.id, None)
        self.apply_link()

    def _is_chosen_by(self, kind: str) -> bool:
        lease = self._agent.link.leases.get(kind)
        return lease is not None and self._is_chosen(lease)

    def _is_chosen(self, lease: Lease) -> bool:
        if lease.id not in self._chosen:
            lease.meet()
            self._chosen[lease.id] = is_chosen(
                lease.seed, lease.fault.kind, f"connection {self._number}", 1, lease.fault.share
            )
        return self._chosen[lease.id]
