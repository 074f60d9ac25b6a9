"""The faults of one simulated run, in force by time."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from lab_autoscaler.replica import Life, Replica
from lab_autoscaler.timeline import Order
from lab_autoscaler.world_faults import (
    BUSIEST,
    EVERY,
    CrashOnBoot,
    Fault,
    Kill,
    Lasting,
    Nan,
    ScrapeGap,
    SlowLoad,
    Throttle,
    window_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab_autoscaler.timeline import Timeline
    from lab_autoscaler.world_fleet import Fleet

SomeLasting = TypeVar("SomeLasting", bound=Lasting)


class Weather:
    """The faults, and how often each kind has struck."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.acts: Counter[str] = Counter()
        self._faults = faults

    def attach(self, timeline: Timeline, fleet: Fleet) -> None:
        """Schedule the faults that act by themselves."""
        for fault in self._faults:
            if isinstance(fault, Kill):
                timeline.at(float(fault.at_s), Order.LIFE, partial(self._kill, fault, fleet))
            elif isinstance(fault, Throttle):
                begin_s, end_s = window_of(fault)
                timeline.at(begin_s, Order.LIFE, partial(self._throttle, fault, fleet, timeline, end_s))

    # Starts.

    def crashes(self, now_s: float) -> bool:
        """True if a start fails now."""
        struck = bool(self._in_force(CrashOnBoot, now_s))
        self.acts["crash_on_boot"] += struck
        return struck

    def load_s(self, usual_s: float, now_s: float) -> float:
        """Seconds of loading, of a start now. What takes no time cannot be slow."""
        load_s = usual_s
        for fault in self._in_force(SlowLoad, now_s):
            load_s *= fault.factor
            self.acts["slow_load"] += usual_s > 0 and fault.factor != 1
        return load_s

    # Scrapes.

    def misses(self, now_s: float) -> bool:
        """True if a scrape fails now."""
        struck = bool(self._in_force(ScrapeGap, now_s))
        self.acts["scrape_gap"] += struck
        return struck

    def garbles(self, now_s: float) -> bool:
        """True if a scrape reads NaN now."""
        struck = bool(self._in_force(Nan, now_s))
        self.acts["nan"] += struck
        return struck

    # Within.

    def _in_force(self, kind: type[SomeLasting], now_s: float) -> list[SomeLasting]:
        found = []
        for fault in self._faults:
            if isinstance(fault, kind):
                begin_s, end_s = window_of(fault)
                if begin_s <= now_s < end_s:
                    found.append(fault)
        return found

    def _kill(self, fault: Kill, fleet: Fleet) -> None:
        for replica in _victims(fault.replica, fleet):
            fleet.kill(replica)
            self.acts["kill"] += 1

    def _throttle(self, fault: Throttle, fleet: Fleet, timeline: Timeline, end_s: float) -> None:
        victims = _victims(fault.replica, fleet)
        for replica in victims:
            replica.slow_down(fault.factor)
            self.acts["throttle"] += fault.factor != 1

        def end() -> None:
            for replica in victims:
                replica.speed_up(fault.factor)

        timeline.at(end_s, Order.LIFE, end)


def _victims(which: str, fleet: Fleet) -> list[Replica]:
    if which == EVERY:
        return list(fleet.alive)
    if which != BUSIEST:
        return [one for one in fleet.alive if one.name == which]
    ready = fleet.of(Life.READY) or fleet.of(Life.COLD)
    return [max(ready, key=lambda one: (one.in_flight, -one.number))] if ready else []
