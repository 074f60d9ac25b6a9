"""Records of the requests in flight, for metrics and shutdown."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum

from lab_api.affinity import Prefix
from lab_api.outcomes import Outcome
from lab_api.priority import Priority


class Phase(StrEnum):
    """Label of `llmlab_oldest_inflight_seconds`."""

    QUEUED = "queued"
    PREFILL = "prefill"
    DECODE = "decode"


@dataclass(kw_only=True, eq=False, slots=True)
class Exchange:
    """One request from arrival to end. Times are monotonic seconds."""

    request_id: str
    arrived_s: float = field(default_factory=time.monotonic)
    phase: Phase = Phase.QUEUED
    phase_since_s: float = field(default_factory=time.monotonic)
    replica: str = ""
    attempts: int = 0
    tried: list[str] = field(default_factory=list)  # replicas whose attempt failed
    prefix: Prefix | None = None
    streaming: bool = False
    priority: Priority = Priority.NORMAL
    first_token_s: float | None = None
    last_event_s: float = 0.0
    max_gap_s: float = 0.0
    tokens: int = 0
    outcome: Outcome | None = None
    detail: str = ""
    task: asyncio.Task[object] | None = None
    drained: bool = False  # the gateway itself cancels it, because it is shutting down

    def enter(self, phase: Phase, replica: str = "") -> None:
        """Start a new phase of the request."""
        self.phase = phase
        self.replica = replica
        self.phase_since_s = time.monotonic()


class Board:
    """The requests in flight."""

    def __init__(self) -> None:
        self.exchanges: set[Exchange] = set()
        self._emptied = asyncio.Event()
        self._emptied.set()

    @contextmanager
    def showing(self, exchange: Exchange) -> Iterator[None]:
        """List the exchange for the length of the block."""
        exchange.task = asyncio.current_task()
        self.exchanges.add(exchange)
        self._emptied.clear()
        try:
            yield
        finally:
            self.exchanges.discard(exchange)
            if not self.exchanges:
                self._emptied.set()

    async def emptied(self, within_s: float) -> bool:
        """Wait until no request is in flight. False after the deadline."""
        try:
            async with asyncio.timeout(within_s):
                await self._emptied.wait()
        except TimeoutError:
            return False
        return True

    def abort_all(self) -> None:
        """End the remaining requests, each with an error to its client."""
        for exchange in tuple(self.exchanges):
            if exchange.task is not None and not exchange.drained:
                exchange.drained = True
                exchange.task.cancel()
