"""Fewer and larger reads while the event loop is busy.

Each event that is relayed costs a read and a write. On a busy loop these delay the
first tokens of other streams, so a started stream is then read every few milliseconds
instead of at each event. It loses nothing, and a human does not notice.
"""

import asyncio
import time
from collections.abc import Callable, Sequence

LOOK_S = 0.025
BUSY_RATIO, IDLE_RATIO = 0.65, 0.45  # of one core
LATE_S = 0.004  # a timer so late shows a queue, even if other programs have the core
UP_S, DOWN_S, MAX_S = 0.01, 0.0025, 0.03
AT_ONCE = 8  # streams read in one turn of the loop, so that new requests do not wait for all


class Pace:
    """Pause of a started stream after each event.

    Args:
        clock: Wall clock, in seconds.
        cpu_clock: CPU time of this thread, in seconds.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, cpu_clock: Callable[[], float] = time.thread_time
    ) -> None:
        self.rest_s = 0.0
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._resting: list[Callable[[], None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._looked_s = self._used_s = 0.0

    def start(self) -> None:
        """Begin to watch the load of the running event loop."""
        self._looked_s, self._used_s = self._clock(), self._cpu_clock()
        self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def rest(self, resume: Callable[[], None]) -> None:
        """Call `resume` in about `rest_s` seconds."""
        if not self._resting:
            asyncio.get_running_loop().call_later(self.rest_s, self._resume)
        self._resting.append(resume)

    def _resume(self) -> None:
        resting, self._resting = self._resting, []
        self._resume_some(resting)

    def _resume_some(self, resting: Sequence[Callable[[], None]]) -> None:
        for resume in resting[:AT_ONCE]:
            resume()
        if left := resting[AT_ONCE:]:
            asyncio.get_running_loop().call_soon(self._resume_some, left)

    def _look(self) -> None:
        now_s, used_s = self._clock(), self._cpu_clock()
        since_s = now_s - self._looked_s
        ratio = (used_s - self._used_s) / since_s
        self._looked_s, self._used_s = now_s, used_s
        if ratio > BUSY_RATIO or since_s > LOOK_S + LATE_S:
            self.rest_s = min(self.rest_s + UP_S, MAX_S)
        elif ratio < IDLE_RATIO:
            self.rest_s = max(self.rest_s - DOWN_S, 0.0)
        self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look)
