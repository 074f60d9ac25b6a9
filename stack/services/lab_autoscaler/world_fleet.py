"""The fleet: starts, stops and replaces simulated replicas."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from lab_autoscaler.engine import Engine
from lab_autoscaler.replica import Life, Replica
from lab_autoscaler.timeline import Order
from lab_engine.scheduler import Scheduler
from lab_engine.stats import Histogram, Stats

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab_autoscaler.gateway import Gateway
    from lab_autoscaler.requests import Request
    from lab_autoscaler.timeline import Timeline
    from lab_autoscaler.world_settings import WorldSettings


class _Mute(Histogram):
    """A histogram without counts: of a world only the outcome is read."""

    def observe(self, value: float) -> None:
        """Take no notice."""


class MuteStats(Stats):
    """Statistics without histograms, which would take a fifth of a world's time."""

    def __init__(self) -> None:
        super().__init__({})
        mute = _Mute(())
        for name, value in vars(self).items():
            if isinstance(value, Histogram):
                setattr(self, name, mute)


class Starts(Protocol):
    """The faults that strike starts."""

    def crashes(self, now_s: float) -> bool: ...
    def load_s(self, usual_s: float, now_s: float) -> float: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Census:
    """Replicas by life at one instant."""

    desired: int
    ready: int
    cold: int
    draining: int


class Fleet:
    """All replicas, and the wanted count in force.

    A dead replica keeps its place in the count until its replacement starts. A
    scale-down takes such places first, then the youngest cold replica, then the
    youngest ready one.
    """

    def __init__(
        self, settings: WorldSettings, timeline: Timeline, gateway: Gateway, *, starts: Starts, seed: int
    ) -> None:
        self.target = settings.initial
        self.ever: list[Replica] = []
        self.cut_by_scale_down = 0
        self._settings = settings
        self._timeline = timeline
        self._gateway = gateway
        self._starts = starts
        self._seed = seed
        self._profile = settings.engine()
        self._alive: list[Replica] = []
        self._dead: list[int] = []  # numbers of the dead that are to be replaced
        self.on_change: Callable[[], None] = _ignore
        gateway.on_idle = self._stop
        for _ in range(settings.initial):
            replica = self._make()
            replica.life = Life.READY
            replica.ready_s = timeline.now_s
            gateway.admit(replica, is_new=False)

    @property
    def alive(self) -> list[Replica]:
        """Replicas that are cold, ready or draining, in the order of their start."""
        return self._alive

    def of(self, life: Life) -> list[Replica]:
        return [one for one in self._alive if one.life is life]

    def census(self) -> Census:
        lives = [one.life for one in self._alive]
        return Census(
            desired=self.target,
            ready=lives.count(Life.READY),
            cold=lives.count(Life.COLD),
            draining=lives.count(Life.DRAINING),
        )

    def scale(self, desired: int) -> None:
        """Set the wanted count, start what is missing and drain what is too much."""
        self.target = desired
        while self._present() + len(self._dead) < desired:
            self._start()
        while self._present() + len(self._dead) > desired:
            if self._dead:
                self._dead.pop()
            elif cold := self.of(Life.COLD):
                self._stop(cold[-1])
            else:
                self._drain(max(self.of(Life.READY), key=lambda one: (one.ready_s, one.number)))

    def kill(self, replica: Replica) -> None:
        """End a replica at once, with the requests in it."""
        was_draining = replica.life is Life.DRAINING
        lost = self._end(replica, Life.FAILED)
        if not was_draining:
            self._replace_later(replica)
        self._gateway.failed(lost, replica)

    def _present(self) -> int:
        return sum(one.life is not Life.DRAINING for one in self._alive)

    def _make(self) -> Replica:
        number = len(self.ever) + 1
        speed, limits = self._profile.speed, self._profile.limits

        def scheduler() -> Scheduler:
            made = Scheduler(speed=speed, limits=limits, seed=self._seed * 1_000_003 + number)
            made.stats = MuteStats()
            return made

        taken = {one.name for one in self._alive}
        free = next(index for index in range(1, number + 1) if f"model-{index}" not in taken)
        replica = Replica(
            f"model-{free}",
            number=number,
            engine=Engine(scheduler, speed, limits, prefix_cache=self._settings.shared_prompt_tokens > 0),
            frontend_s=speed.frontend_s,
            timeline=self._timeline,
            client=self._gateway,
        )
        self._alive.append(replica)
        self.ever.append(replica)
        return replica

    def _start(self) -> None:
        now_s = self._timeline.now_s
        replica = self._make()
        if self._starts.crashes(now_s):
            self._end(replica, Life.FAILED)
            self._replace_later(replica)
            return
        self.on_change()
        # By number of the start: two worlds have the same luck until they differ.
        luck = random.Random(f"{self._seed}|start|{replica.number}")  # noqa: S311 - a repeatable draw, no secret
        load_s = self._starts.load_s(self._settings.load_of(self._profile), now_s)
        cold_s = (load_s + self._settings.warmup_s) * math.exp(luck.gauss(0.0, 1.0) * self._settings.spread)
        self._timeline.at(now_s + cold_s, Order.LIFE, partial(self._become_ready, replica))

    def _become_ready(self, replica: Replica) -> None:
        if replica.life is Life.COLD:
            replica.life = Life.READY
            replica.ready_s = self._timeline.now_s
            self.on_change()

    def _drain(self, replica: Replica) -> None:
        replica.life = Life.DRAINING
        self._gateway.remove(replica)
        if not replica.in_flight:
            self._stop(replica)
            return
        end_s = self._timeline.now_s + self._settings.drain_s
        self._timeline.at(end_s, Order.LIFE, partial(self._cut, replica))

    def _cut(self, replica: Replica) -> None:
        if replica.life is Life.DRAINING:
            self.cut_by_scale_down += replica.in_flight
            self._gateway.failed(self._end(replica, Life.STOPPED), replica)

    def _stop(self, replica: Replica) -> None:
        self._end(replica, Life.STOPPED)

    def _end(self, replica: Replica, life: Life) -> list[Request]:
        self._alive.remove(replica)
        lost = replica.end(life)
        self.on_change()
        return lost

    def _replace_later(self, replica: Replica) -> None:
        self._dead.append(replica.number)
        if self._settings.repair_s is not None:
            at_s = self._timeline.now_s + self._settings.repair_s
            self._timeline.at(at_s, Order.LIFE, partial(self._replace, replica.number))

    def _replace(self, number: int) -> None:
        if number in self._dead:
            self._dead.remove(number)
            self._start()


def _ignore() -> None:
    """Take no notice, before a world is attached."""
