"""The simulated engine in steps of any number, with the scheduler's token times.

Three ways lead through a batch: `decoding` in the usual case, `leap` where the
scheduler holds the batch and nothing can change, and single steps of the scheduler.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from lab_autoscaler import leap
from lab_autoscaler.decoding import Decoding, HandOver

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab_engine.scheduler import Scheduler
    from lab_engine.speed import Speed
    from lab_engine.work import Limits, Sequence, Step

_AMPLE = 4  # free blocks for each sequence, from which memory suffices for a while


class Engine:
    """One engine. It begins steps and finishes them in turn."""

    def __init__(self, make: Callable[[], Scheduler], speed: Speed, limits: Limits, *, prefix_cache: bool) -> None:
        """An idle engine.

        Args:
            make: builds its scheduler, which is large. The usual case needs none.
            speed: of the engine.
            limits: of the engine.
            prefix_cache: requests have prefixes, so that each block counts.
        """
        self._make = make
        self._speed = speed
        self._limits = limits
        self._is_simple = not prefix_cache and not limits.jitter
        self._decoding = Decoding(speed, limits) if self._is_simple else None
        self._leap: leap.Leap | None = None
        self._step: Step | None = None

    @cached_property
    def _scheduler(self) -> Scheduler:
        return self._make()

    def close(self) -> None:
        """Free the memory of an engine that takes no further step."""
        vars(self).pop("_scheduler", None)

    @property
    def next_ready_s(self) -> float | None:
        """Time at which the next request leaves the front end, or None."""
        return (self._decoding or self._scheduler).next_ready_s

    def add(self, sequence: Sequence) -> None:
        """Add a request. Requests come in order of arrival."""
        (self._decoding or self._scheduler).add(sequence)

    def cut(self, at_s: float, *, to_enter: bool) -> float | None:
        """End the steps that have begun with the one in progress at this time.

        Args:
            at_s: a time in seconds.
            to_enter: for a request, which enters only if a slot is free.

        Returns:
            Their new end, or None if it stays.
        """
        if self._decoding is not None:
            return self._decoding.cut(at_s) if self._decoding.may_enter or not to_enter else None
        if self._leap is None or (to_enter and len(self._scheduler.running) >= self._limits.slots):
            return None
        return self._leap.end_s if self._leap.cut(at_s) else None

    def begin(self, now_s: float, slowdown: float) -> float | None:
        """Begin steps and return their end, or None if no request can run."""
        if self._decoding is not None:
            try:
                return self._decoding.begin(now_s, slowdown)
            except HandOver:
                self._decoding.hand_over(self._scheduler, now_s)
                self._decoding = None
        scheduler = self._scheduler
        self._leap = leap.plan(scheduler, now_s, slowdown)
        if self._leap is not None:
            if self._is_simple and self._is_usual():
                self._leap, self._decoding = None, Decoding(self._speed, self._limits)
                self._decoding.take_over(scheduler)
                return self._decoding.begin(now_s, slowdown)
            return self._leap.end_s
        self._step = scheduler.begin(now_s, slowdown=slowdown)
        return None if self._step is None else self._step.end_s

    def finish(self) -> tuple[list[Sequence], list[Sequence]]:
        """Book the steps that have begun.

        Returns the sequences that got their first token, and those that ended, each in
        the order of the batch.
        """
        if self._decoding is not None:
            return self._decoding.finish()
        if self._leap is not None:
            ended, self._leap = leap.book(self._scheduler, self._leap), None
            return [], ended
        if self._step is None:
            raise RuntimeError("expected steps to finish, got none")
        emitted, self._step = self._scheduler.finish(self._step), None
        first = [one for one in emitted if one.generated == 1]
        return first, [one for one in emitted if one.state == "finished"]

    def _is_usual(self) -> bool:
        """True if the planned leap could begin in `Decoding`."""
        scheduler = self._scheduler
        ample = scheduler.pool.free >= _AMPLE * len(scheduler.running)
        return ample and not scheduler.waiting and scheduler.next_ready_s is None
