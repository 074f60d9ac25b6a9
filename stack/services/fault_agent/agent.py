"""The agent: its faults, its connections, and its listener."""

from __future__ import annotations

import asyncio
import functools
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from fault_agent import faults, protocols, sockets
from fault_agent.exchange import Exchange
from fault_agent.faults.base import NetworkFault, RequestFault
from fault_agent.faults.decide import identity_of
from fault_agent.faults.hold import Hold
from fault_agent.faults.network import Reject
from fault_agent.leases import Lease, Leases
from fault_agent.link import Link
from fault_agent.relay import Conversation
from lab_common.log import Log

if TYPE_CHECKING:
    from fault_agent.messages import RequestHead
    from fault_agent.settings import Settings

BACKLOG: Final = 1024
_LOOK_S: Final = 0.05
_REOPENS_S: Final = 0.2
_REMEMBERED_IDS: Final = 10_000


class Sightings:
    """Counts of each request id. The oldest ids are forgotten."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, int] = OrderedDict()

    def count(self, id_: str) -> int:
        """Count one sight of the id and return their number."""
        nth = self._seen.pop(id_, 0) + 1
        self._seen[id_] = nth
        if len(self._seen) > _REMEMBERED_IDS:
            self._seen.popitem(last=False)
        return nth


class Agent:
    """Everything that the connections of one agent share.

    Attributes:
        link: network faults in force.
        connections: number of connections so far.
        requests: number of requests so far.
    """

    def __init__(self, settings: Settings, log: Log) -> None:
        self.leases = Leases()
        self.link = Link()
        self.connections = 0
        self.requests = 0
        self._settings, self._log = settings, log
        self._talks: set[Conversation] = set()
        self._of_requests: tuple[Lease, ...] = ()
        self._sightings = Sightings()
        self._ends: dict[str, asyncio.TimerHandle] = {}
        self._server: asyncio.Server | None = None
        self._ending: asyncio.Task[Lease] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._reopening: asyncio.Task[None] | None = None
        self._listening = asyncio.Lock()

    # Connections.

    async def listen(self) -> None:
        """Open the listener unless a fault or the service's absence keeps it closed."""
        async with self._listening:
            if self._server is None and not self._is_closed():
                self._server = await asyncio.get_running_loop().create_server(
                    lambda: self._greet().client, self._settings.host, self._settings.port, backlog=BACKLOG
                )
                if self._is_closed():  # since a fault that began meanwhile
                    self._close()

    async def _listen_again(self) -> None:
        """Open the listener once its port is free. Another program may have it."""
        is_logged = False
        while True:
            try:
                return await self.listen()
            except OSError as error:
                if not is_logged:
                    self._log("the port is taken", port=self._settings.port, error=str(error))
                is_logged = True
                await asyncio.sleep(_LOOK_S)

    def _is_closed(self) -> bool:
        reject = self.link.leases.get("reject")
        return self._watch is not None or (reject is not None and reject.fault.share == 1.0)

    def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _greet(self) -> Conversation:
        self.connections += 1
        return Conversation(self)

    def add(self, talk: Conversation) -> None:
        self._talks.add(talk)

    def remove(self, talk: Conversation) -> None:
        self._talks.discard(talk)

    def destination_of(self, client: asyncio.Transport) -> tuple[str, int]:
        """Return the address to which the client connected.

        Raises:
            ConnectionRefusedError: it came to the agent's own port.
        """
        if self._settings.upstream is not None:
            return self._settings.upstream
        found = sockets.original_destination(client)
        if found[1] == self._settings.port:
            raise ConnectionRefusedError(f"{found[0]}:{found[1]} is the agent's own port")
        return found

    async def protocols(self, ports: list[int]) -> dict[str, str]:
        """The protocol of each port of the service, "" for an unknown one.

        Args:
            ports: ports of this network namespace. Where the service has one address,
                its port is the only one.
        """
        if (upstream := self._settings.upstream) is not None:
            return await protocols.protocols_of([upstream[1]], [upstream[0]])
        return await protocols.protocols_of(ports, protocols.own_addresses())

    def refused(self, error: OSError) -> None:
        """Close the listener until a service that refused a connection accepts one."""
        if self._settings.upstream is not None and isinstance(error, ConnectionRefusedError) and self._watch is None:
            self._watch = asyncio.get_running_loop().create_task(self._wait_for_service(*self._settings.upstream))
            self._close()

    async def _wait_for_service(self, host: str, port: int) -> None:
        while True:
            try:
                _, writer = await asyncio.open_connection(host, port)
            except OSError:
                await asyncio.sleep(_LOOK_S)
            else:
                writer.close()
                break
        self._watch = None
        await self._listen_again()

    @property
    def busy(self) -> int:
        """Number of connections with a request whose answer has not ended."""
        return sum(talk.is_busy for talk in self._talks)

    def exchange(self, head: RequestHead) -> Exchange:
        """A request that has arrived, with the faults that may hit it."""
        self.requests += 1
        given = head.header("x-request-id")
        nth = self._sightings.count(given) if given else 1
        return Exchange(
            head=head, leases=self._of_requests, id=identity_of(given) if given else f"#{self.requests}", nth=nth
        )

    # Faults.

    async def start(self, data: object) -> Lease:
        """Start the fault of a decoded JSON object.

        Raises:
            InvalidValueError: it describes no fault.
            FaultConflictError: one of its kind is in force.
        """
        asked = faults.parse(data)
        lease = self.leases.start(asked.fault, asked.seed, asked.lease_s)
        loop = asyncio.get_running_loop()
        self._ends[lease.id] = loop.call_later(asked.lease_s, self._end_later, lease.id)
        if isinstance(lease.fault, Hold) and lease.fault.most_s is not None:
            lease.at_hit = functools.partial(loop.call_later, lease.fault.most_s, self._end_later, lease.id)
        self._log("fault started", fault=lease.described())
        self._of_requests = self._leases_of_requests()
        if isinstance(lease.fault, NetworkFault):
            self.link.add(lease)
            if isinstance(lease.fault, Reject) and self._is_closed():
                self._close()
            for talk in list(self._talks):
                talk.strike(lease)
            if isinstance(lease.fault, Reject):
                await self._count_refusal(lease)
        elif unread := sum(talk.is_unread for talk in self._talks):
            lease.counters["unread"] = unread
        return lease

    def count_unread(self) -> None:
        """Count a connection without HTTP/1, which no fault on requests can hit."""
        for lease in self._of_requests:
            lease.counters["unread"] += 1

    async def _count_refusal(self, lease: Lease) -> None:
        """Count a connection of the agent's own that its closed port refuses."""
        host = "127.0.0.1" if self._settings.host == "0.0.0.0" else self._settings.host  # noqa: S104 - compared only
        try:
            _, writer = await asyncio.open_connection(host, self._settings.port)
        except OSError:
            lease.counters["own_refused"] += 1
        else:
            writer.close()

    def _end_later(self, id_: str) -> None:
        self._ending = asyncio.get_running_loop().create_task(self.end(id_, "lease"))

    async def end(self, id_: str, by: str = "request") -> Lease:
        """End a fault. A second end changes nothing.

        Raises:
            UnknownFaultError: there is no such fault.
        """
        lease = self.leases.find(id_)
        if not lease.active:
            return lease
        self._ends.pop(id_).cancel()
        callbacks = self.leases.end(lease, by)
        self._of_requests = self._leases_of_requests()
        if self.link.leases.get(lease.fault.kind) is lease:
            self.link.remove(lease)
            callbacks |= {functools.partial(talk.relent, lease) for talk in self._talks}
        for act in callbacks:
            try:
                act()
            except Exception as error:  # noqa: BLE001 - one connection must not keep the fault on all others
                self._log("a connection did not end the fault", fault=id_, error=f"{type(error).__name__}: {error}")
        if isinstance(lease.fault, Reject):
            self._reopening = asyncio.get_running_loop().create_task(self._listen_again())
            await asyncio.wait({self._reopening}, timeout=_REOPENS_S)
        self._log("fault ended", fault=lease.described())
        return lease

    def _leases_of_requests(self) -> tuple[Lease, ...]:
        return tuple(one for one in self.leases.active.values() if isinstance(one.fault, RequestFault))
