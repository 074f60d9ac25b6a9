"""A real memory leak with a bound: memory that is taken and touched until the fault ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab_engine.fault_kinds import MemoryLeak
    from lab_engine.faults import Lease

TICK_S = 0.1


class Leak:
    def __init__(self, fault: MemoryLeak, lease: Lease) -> None:
        self._fault = fault
        self._lease = lease
        self._held: list[bytes] = []
        self._task = asyncio.create_task(self._grow())

    def stop(self) -> None:
        self._task.cancel()
        self._held.clear()

    async def _grow(self) -> None:
        fault = self._fault
        while True:
            left = fault.at_most_bytes - self._lease.counters["bytes"]
            piece = min(left, max(1, int(fault.bytes_per_s * TICK_S)))
            if piece <= 0:
                return
            # Written, not only reserved: pages that were never touched are no memory to the kernel.
            self._held.append(b"\xaa" * piece)
            self._lease.counters["bytes"] += piece
            await asyncio.sleep(TICK_S)
