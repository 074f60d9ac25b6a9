"""Network faults: what they do to connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Final

from fault_agent.faults.network import Bandwidth, Latency

if TYPE_CHECKING:
    from fault_agent.leases import Lease

# A link of limited bandwidth sends this many pieces a second.
_PIECES_PER_S: Final = 50


class Budget:
    """Bytes that one direction of the link carries, of all connections together."""

    def __init__(self, bytes_per_s: float) -> None:
        self._bytes_per_s = bytes_per_s
        self._free_s = 0.0
        self.piece_bytes = max(1, int(bytes_per_s / _PIECES_PER_S))

    def take(self, size: int, now_s: float) -> float:
        """The loop's time at which `size` more bytes have passed."""
        self._free_s = max(self._free_s, now_s) + size / self._bytes_per_s
        return self._free_s


class Delays:
    """The shape of one lane under latency, limited bandwidth, or both."""

    def __init__(self, latency: Latency | None, budget: Budget | None, draw: Random, hit: Callable[[], None]) -> None:
        """`hit` is called when bytes are delayed."""
        self._latency, self._budget, self._draw, self._hit = latency, budget, draw, hit
        self._last_s = 0.0

    def pieces(self, data: bytes) -> list[tuple[float, bytes]]:
        self._hit()
        now_s = asyncio.get_running_loop().time()
        begin_s = now_s + (drawn_s(self._latency, self._draw) if self._latency is not None else 0.0)
        size = self._budget.piece_bytes if self._budget is not None else len(data)
        found: list[tuple[float, bytes]] = []
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            due_s = self._budget.take(len(piece), begin_s) if self._budget is not None else begin_s
            self._last_s = max(self._last_s, due_s)  # a connection keeps the order of its bytes
            found.append((self._last_s, piece))
        return found


def drawn_s(latency: Latency, draw: Random) -> float:
    """One delay in seconds, never below 0."""
    if latency.distribution == "normal":
        return max(0.0, draw.gauss(latency.delay_s, latency.jitter_s))
    return max(0.0, latency.delay_s + draw.uniform(-latency.jitter_s, latency.jitter_s))


class Link:
    """Network faults in force.

    Attributes:
        leases: by kind.
        budgets: of the bandwidth in force, to the client and to the service.
    """

    def __init__(self) -> None:
        self.leases: dict[str, Lease] = {}
        self.budgets: tuple[Budget, Budget] | None = None

    def add(self, lease: Lease) -> None:
        self.leases[lease.fault.kind] = lease
        if isinstance(lease.fault, Bandwidth):
            self.budgets = (Budget(lease.fault.bytes_per_s), Budget(lease.fault.bytes_per_s))

    def remove(self, lease: Lease) -> None:
        self.leases.pop(lease.fault.kind, None)
        if isinstance(lease.fault, Bandwidth):
            self.budgets = None
