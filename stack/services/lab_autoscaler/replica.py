"""One simulated replica: its life, and the engine in it."""

from __future__ import annotations

import math
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Protocol

from lab_autoscaler.timeline import Order
from lab_engine.work import Sequence

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab_autoscaler.engine import Engine
    from lab_autoscaler.requests import Request
    from lab_autoscaler.timeline import Timeline


class Life(Enum):
    """Life of a replica, in its order."""

    COLD = "cold"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


class Client(Protocol):
    """Receiver of a replica's results."""

    def first_token(self, request: Request) -> None: ...
    def served(self, request: Request, replica: Replica) -> None: ...


class Replica:
    """A replica from its start to its end. A replacement is another one."""

    def __init__(
        self, name: str, *, number: int, engine: Engine, frontend_s: float, timeline: Timeline, client: Client
    ) -> None:
        self.name = name
        self.number = number  # of this start, unique in a world
        self.life = Life.COLD
        self.is_alive = True
        self.started_s = timeline.now_s
        self.ready_s = math.inf
        self.ended_s = math.inf
        self.requests: dict[str, Request] = {}
        self._slowdowns: list[float] = []
        # The gateway's view.
        self.admitted_s = -math.inf  # since when the gateway sends it requests. Slow start counts from there
        self.refused = 0  # connections since its death
        self.turn = 0
        self._engine = engine
        self._timeline = timeline
        self._client = client
        self._frontend_s = frontend_s
        self._wakes_s: float | None = math.inf  # end of the pause, infinite without requests, None at work
        self._version = 0

    @property
    def in_flight(self) -> int:
        return len(self.requests)

    def submit(self, request: Request, prefix: tuple[bytes, ...]) -> None:
        """Take a request."""
        now_s = self._timeline.now_s
        name = str(request.index)
        sequence = Sequence(
            name=name,
            arrived_s=now_s,
            prompt_tokens=request.prompt_tokens,
            answer_tokens=request.answer_tokens,
            prefix=prefix,
        )
        request.sent_s = now_s
        self.requests[name] = request
        self._engine.add(sequence)
        ready_s = now_s + self._frontend_s
        if self._wakes_s is not None:
            if ready_s < self._wakes_s:
                self._wakes_s = ready_s
                self._call_at(ready_s, self._wake)
        else:
            self._cut(ready_s, to_enter=True)

    def slow_down(self, factor: float) -> None:
        """Stretch the steps that begin from now on."""
        self._slowdowns.append(factor)
        self._pace()

    def speed_up(self, factor: float) -> None:
        """End one stretch by this factor."""
        self._slowdowns.remove(factor)
        self._pace()

    def _pace(self) -> None:
        if self.is_alive and self._wakes_s is None:
            self._cut(self._timeline.now_s, to_enter=False)

    def end(self, life: Life) -> list[Request]:
        """End this replica. Returns the requests in flight, which get no answer."""
        self.life, self.is_alive = life, False
        self.ended_s = self._timeline.now_s
        self._version += 1
        self._engine.close()
        lost, self.requests = list(self.requests.values()), {}
        return lost

    def _cut(self, at_s: float, *, to_enter: bool) -> None:
        if (end_s := self._engine.cut(at_s, to_enter=to_enter)) is not None:
            self._call_at(end_s, self._finish)

    def _call_at(self, time_s: float, call: Callable[[], None]) -> None:
        self._version += 1
        self._timeline.at(time_s, Order.STEP, partial(self._if_current, self._version, call))

    def _if_current(self, version: int, call: Callable[[], None]) -> None:
        if version == self._version:
            call()

    def _wake(self) -> None:
        self._wakes_s = None
        self._next()

    def _finish(self) -> None:
        """Book the steps that end now, and begin the next."""
        first, ended = self._engine.finish()
        for sequence in first:
            self._client.first_token(self.requests[sequence.name])
        for sequence in ended:
            self._client.served(self.requests.pop(sequence.name), self)
        if self.is_alive:
            self._next()

    def _next(self) -> None:
        engine = self._engine
        end_s = engine.begin(self._timeline.now_s, math.prod(self._slowdowns))
        if end_s is not None:
            self._call_at(end_s, self._finish)
            return
        ready_s = engine.next_ready_s
        self._wakes_s = math.inf if ready_s is None else ready_s
        if ready_s is not None:
            self._call_at(ready_s, self._wake)
