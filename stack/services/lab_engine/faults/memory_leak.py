"""A process that grows up to a bound, until the fault ends."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lab_common.values import require_whole
from lab_engine.faults.base import Fault, Struck, register

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

TICK_S = 0.1


@register
@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryLeak(Fault):
    """Growth at a rate in bytes per second."""

    kind: ClassVar[str] = "memory_leak"
    bytes_per_s: int = 10 << 20
    at_most_bytes: int = 256 << 20

    def __post_init__(self) -> None:
        require_whole("bytes_per_s", self.bytes_per_s, at_least=1, at_most=1 << 30)
        require_whole("at_most_bytes", self.at_most_bytes, at_least=1, at_most=16 << 30)

    def strike(self, engine: Struck, counters: Counter[str]) -> Callable[[], None]:  # noqa: ARG002 - grows in its own thread
        return _Leak(self, counters).stop


class _Leak:
    """Memory that is allocated and written until it is stopped."""

    def __init__(self, fault: MemoryLeak, counters: Counter[str]) -> None:
        self._fault = fault
        self._counters = counters
        self._held: list[bytes] = []
        self._task = asyncio.create_task(self._grow())

    def stop(self) -> None:
        self._task.cancel()
        self._held.clear()

    async def _grow(self) -> None:
        fault = self._fault
        while True:
            left = fault.at_most_bytes - self._counters["bytes"]
            piece = min(left, max(1, int(fault.bytes_per_s * TICK_S)))
            if piece <= 0:
                return
            # Written, not only reserved: the kernel does not count untouched pages.
            self._held.append(b"\xaa" * piece)
            self._counters["bytes"] += piece
            await asyncio.sleep(TICK_S)
