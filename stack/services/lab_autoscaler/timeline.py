"""Virtual clock with its pending events."""

from __future__ import annotations

import heapq
import itertools
import math
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Order(IntEnum):
    """Order of events at the same instant. Arrivals come before all of them."""

    STEP = 0
    LIFE = 1
    WAIT = 2
    PROBE = 3
    SCRAPE = 4
    SYNC = 5


class Timeline:
    """Events in the order of time, order and entry."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._due: list[tuple[float, int, int, Callable[[], None]]] = []
        self._entries = itertools.count()

    @property
    def next_s(self) -> float:
        """Time of the next event, infinite without any."""
        return self._due[0][0] if self._due else math.inf

    def at(self, time_s: float, order: Order, call: Callable[[], None]) -> None:
        """Call at this time, or now if it has passed."""
        heapq.heappush(self._due, (max(time_s, self.now_s), order, next(self._entries), call))

    def every(self, period_s: float, order: Order, call: Callable[[], None], *, first_s: float | None = None) -> None:
        """Call once in each period, from `first_s` on, by default after one period."""
        shift_s = 0.0 if first_s is None else first_s - period_s

        def again(turn: int) -> None:
            call()
            self.at((turn + 1) * period_s + shift_s, order, lambda: again(turn + 1))

        self.at(period_s + shift_s, order, lambda: again(1))

    def step(self) -> None:
        """Advance to the next event and run it."""
        self.now_s, _, _, call = heapq.heappop(self._due)
        call()
