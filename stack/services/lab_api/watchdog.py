"""A timeout on silence, cheap for thousands of events a second."""

import asyncio
import time
from types import TracebackType
from typing import Self


class SilenceError(Exception):
    """No event for too long."""


class Watchdog:
    """Raises SilenceError in the block if `touched_s` is not renewed for `limit_s`.

    Renewal is one assignment instead of a timer cancelled and set anew. The timer
    compares it when it fires.
    """

    def __init__(self, limit_s: float) -> None:
        self.touched_s = time.monotonic()
        self._limit_s = limit_s
        self._loop = asyncio.get_running_loop()
        self._expired = False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a watchdog needs a task to watch, but no task is running here")
        self._task = task
        self._cancelling = task.cancelling()
        self._timer = self._loop.call_later(self._limit_s, self._look)
        return self

    def _look(self) -> None:
        left_s = self.touched_s + self._limit_s - time.monotonic()
        if left_s > 0:
            # The loop's clock resolves 1 ms.
            self._timer = self._loop.call_later(left_s + 0.001, self._look)
            return
        self._expired = True
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise SilenceError(f"silent for {self._limit_s:g} s") from error
