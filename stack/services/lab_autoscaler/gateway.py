"""The simulated gateway: choice of a replica, and the queue.

It follows `lab_api`: the least busy replica with a place, the least recently chosen of
equals, a bounded queue in the order of arrival, and slow start. All requests are of one
class, and there is no predicted shedding.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from lab_autoscaler.replica import Life, Replica
from lab_autoscaler.requests import Counts, Fate, Request
from lab_autoscaler.timeline import Order

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lab_autoscaler.timeline import Timeline
    from lab_autoscaler.world_settings import WorldSettings


class Gateway:
    """The requests between their arrival and their end."""

    def __init__(self, settings: WorldSettings, timeline: Timeline, *, block_tokens: int) -> None:
        self.counts = Counts()
        self.on_idle: Callable[[Replica], None] = _ignore  # a draining replica has answered its last request
        self._settings = settings
        self._timeline = timeline
        self._replicas: list[Replica] = []
        self._admitted: deque[Request] = deque()  # retries, ahead of the others
        self._new: deque[Request] = deque()
        self._turn = 0
        shared = settings.shared_prompt_tokens // block_tokens
        self._shared = tuple(b"%d" % index for index in range(shared))
        self._block_tokens = block_tokens

    @property
    def waiting(self) -> int:
        return len(self._admitted) + len(self._new)

    # Clients.

    def arrive(self, request: Request) -> None:
        """Send a request to a replica, queue or refuse it."""
        self.counts.arrived += 1
        if self.waiting:
            self.wake()
        if not self._send(request):
            if self._refuses_all():
                self._lose_at_zero(request)
            elif len(self._new) + len(self._admitted) >= self._settings.queue_max:
                self._fail(request, Fate.SHED)
            else:
                self._wait(request, self._new)

    # Replicas.

    def admit(self, replica: Replica, *, is_new: bool) -> None:
        """Send requests to this replica from now on.

        A new one gets its places step by step.
        """
        if is_new:
            replica.admitted_s = self._timeline.now_s
        self._replicas.append(replica)
        self.wake()

    def remove(self, replica: Replica) -> None:
        """Send no further requests to this replica."""
        if replica in self._replicas:
            self._replicas.remove(replica)

    def probe(self, alive: Iterable[Replica]) -> None:
        """Admit replicas that have become ready, and drop dead ones."""
        for replica in [one for one in self._replicas if not one.is_alive]:
            self._replicas.remove(replica)
        for replica in alive:
            if replica.life is Life.READY and replica not in self._replicas:
                self.admit(replica, is_new=True)
        self.wake()

    def first_token(self, request: Request) -> None:
        """Record the first token of an answer."""
        now_s = self._timeline.now_s
        request.first_token_s = now_s
        self.counts.first_tokens += 1
        self.counts.first_tokens_in_time += now_s - request.at_s <= self._settings.first_token_target_s

    def served(self, request: Request, replica: Replica) -> None:
        """Record the end of an answer, and reuse the place."""
        request.fate = Fate.SERVED
        request.end_s = self._timeline.now_s
        self.counts.answers += 1
        self.counts.answers_in_time += request.mean_gap_s <= self._settings.token_gap_target_s
        if replica.life is Life.DRAINING:
            if not replica.in_flight:
                self.on_idle(replica)
        elif self._admitted or self._new:
            self.wake()

    def failed(self, requests: Iterable[Request], replica: Replica) -> None:
        """Retry requests whose replica has ended, or lose them."""
        for request in requests:
            request.refused_by = replica.number
            if request.first_token_s is not None or not request.retries:
                self._fail(request, Fate.LOST)
                continue
            request.retries -= 1
            if not self._send(request):
                if self._refuses_all():
                    self._lose_at_zero(request)
                else:
                    self._wait(request, self._admitted)

    def wake(self) -> None:
        """Hand free places to waiters, or refuse all of them if the setting is so."""
        while self._admitted or self._new:
            line = self._admitted or self._new
            request = line[0]
            if self._refuses_all():
                line.popleft()
                request.waits = False
                self._lose_at_zero(request)
                continue
            if (replica := self._choose(request)) is None:
                return
            line.popleft()
            request.waits = False
            self._submit(request, replica)

    # Within.

    def _refuses_all(self) -> bool:
        return not self._replicas and self._settings.at_zero == "refuse"

    def _send(self, request: Request) -> bool:
        """Send a request to a replica. False if none has a place."""
        replica = self._choose(request)
        if replica is None:
            return False
        self._submit(request, replica)
        return True

    def _choose(self, request: Request) -> Replica | None:
        now_s = self._timeline.now_s
        best, least = None, (0, 0)
        for replica in self._replicas:
            busy = len(replica.requests)
            key = busy, replica.turn
            if best is not None and key >= least:
                continue
            if busy < self._places(replica, now_s) and replica.number != request.refused_by:
                best, least = replica, key
        return best

    def _places(self, replica: Replica, now_s: float) -> int:
        places, slow_start_s = self._settings.concurrency, self._settings.slow_start_s
        since_s = now_s - replica.admitted_s
        return places if since_s >= slow_start_s else max(1, int(places * since_s / slow_start_s))

    def _submit(self, request: Request, replica: Replica) -> None:
        self._turn += 1
        replica.turn = self._turn
        if replica.is_alive:
            replica.submit(request, self._shared[: request.prompt_tokens // self._block_tokens])
            return
        # A dead one that no probe has met yet.
        replica.refused += 1
        if replica.refused >= self._settings.eject_failures:
            self.remove(replica)
        self.failed([request], replica)

    def _wait(self, request: Request, line: deque[Request]) -> None:
        line.append(request)
        request.waits = True
        deadline_s = self._timeline.now_s + self._settings.queue_timeout_s
        self._timeline.at(deadline_s, Order.WAIT, partial(self._expire, request, request.retries, line))

    def _expire(self, request: Request, retries: int, line: deque[Request]) -> None:
        if not request.waits or request.retries != retries:
            return
        line.remove(request)
        request.waits = False
        if self._replicas:
            self.counts.queue_timeouts += 1
            self._fail(request, Fate.SHED)
        else:
            self._lose_at_zero(request)

    def _lose_at_zero(self, request: Request) -> None:
        self.counts.lost_at_zero += 1
        self._fail(request, Fate.LOST)

    def _fail(self, request: Request, fate: Fate) -> None:
        """End a request without a whole answer, which misses its targets."""
        request.fate = fate
        request.end_s = self._timeline.now_s
        self.counts.first_tokens += request.first_token_s is None
        self.counts.answers += 1


def _ignore(replica: Replica) -> None:
    """Take no notice, before a fleet is attached."""
