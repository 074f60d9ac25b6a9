"""Hedging: a second attempt of a stream whose first token is late."""

import asyncio
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from lab_api.breaker import RetryBudget
from lab_api.exchange import Exchange
from lab_api.metrics import Metrics
from lab_api.outcomes import RETRYABLE, GatewayError, Hedged, Outcome
from lab_api.pool import Lease, Pool
from lab_api.settings import Hedging
from lab_api.upstream import Stream

Send = Callable[[Lease], Awaitable[Stream]]
_WINDOW = 256  # requests
_ENOUGH = 20  # requests: two are above the quantile 0.9


class FirstTokenTimes:
    """Times to first token of the latest requests, and the delay of a hedge.

    A hedged request counts from its first attempt. Otherwise the times would lack the
    slowest attempts, and the delay would fall until it hedges good ones.
    """

    def __init__(self, policy: Hedging) -> None:
        self._policy = policy
        self._latest_s: deque[float] = deque()
        self._ordered_s: list[float] = []

    def add(self, spent_s: float) -> None:
        self._latest_s.append(spent_s)
        insort(self._ordered_s, spent_s)
        if len(self._latest_s) > _WINDOW:
            del self._ordered_s[bisect_left(self._ordered_s, self._latest_s.popleft())]

    @property
    def delay_s(self) -> float | None:
        """Wait for a first token before a hedge. None until enough is known."""
        known = len(self._ordered_s)
        if known < _ENOUGH:
            return None
        usual_s = self._ordered_s[int(self._policy.quantile * (known - 1))]
        return max(self._policy.min_s, self._policy.factor * usual_s)


@dataclass(frozen=True, kw_only=True)
class _Attempt:
    """One attempt of a stream, and the task that waits for its first token."""

    lease: Lease
    task: asyncio.Task[Stream]

    @property
    def error(self) -> BaseException | None:
        """Its failure, if it has failed."""
        return self.task.exception() if self.task.done() and not self.task.cancelled() else None


class Hedger:
    """Races two attempts of a stream, for a fixed share of the requests."""

    def __init__(self, policy: Hedging, *, pool: Pool, metrics: Metrics, release: Callable[[Stream], None]) -> None:
        self._pool = pool
        self._metrics = metrics
        self._release = release
        self._times = FirstTokenTimes(policy)
        self._bucket = RetryBudget(ratio=policy.ratio, burst=policy.burst)
        self._ending: set[asyncio.Task[Stream]] = set()  # the loop's own references are weak

    async def race(self, lease: Lease, exchange: Exchange, send: Send) -> Stream:
        """The stream whose first token comes first.

        The other attempt is cancelled, also upstream, which is no failure of its
        replica. An attempt that fails ends the request only if no other runs.

        Raises:
            GatewayError: no attempt has a first token. `exchange.tried` has the
                hedge's replica, if that failed.
        """
        if not exchange.tried:
            self._bucket.earn()
        began_s = self._pool.clock()
        attempts = [self._start(lease, send)]
        winner: _Attempt | None = None
        try:
            await asyncio.wait([attempts[0].task], timeout=self._times.delay_s)
            if not attempts[0].task.done() and (spare := await self._spare(lease, exchange)) is not None:
                attempts.append(self._start(spare, send))
                self._metrics.attempted(spare.replica.name, "hedge")
            winner = await _first_of(attempts)
            self._times.add(self._pool.clock() - began_s)
            return winner.task.result()
        finally:
            for hedge in attempts[1:]:
                self._count(hedge, exchange, winner)
            for one in attempts:
                if one is not winner:
                    self._drop(one)

    def _start(self, lease: Lease, send: Send) -> _Attempt:
        async def wait_for_it() -> Stream:
            return await send(lease)

        return _Attempt(lease=lease, task=asyncio.create_task(wait_for_it()))

    async def _spare(self, lease: Lease, exchange: Exchange) -> Lease | None:
        """A place for a hedge, at once, if the budget allows one."""
        excluding = [*exchange.tried, lease.replica.name]
        if not self._pool.has_spare(excluding) or not self._bucket.spend():
            return None
        return await self._pool.acquire(excluding=excluding, priority=exchange.priority, prefix=exchange.prefix)

    def _count(self, hedge: _Attempt, exchange: Exchange, winner: _Attempt | None) -> None:
        name = hedge.lease.replica.name
        if hedge is winner:
            self._metrics.hedged(name, Hedged.WON)
        elif hedge.error is not None:
            self._metrics.hedged(name, Hedged.FAILED)
            exchange.tried.append(name)
        else:
            self._metrics.hedged(name, Hedged.LOST if winner is not None else Hedged.CANCELLED)

    def _drop(self, attempt: _Attempt) -> None:
        """Cancel an attempt and free its place. A stream that it has is not wanted."""
        _end(attempt)
        attempt.task.cancel()
        self._ending.add(attempt.task)
        attempt.task.add_done_callback(self._discard)

    def _discard(self, task: asyncio.Task[Stream]) -> None:
        self._ending.discard(task)
        if not task.cancelled() and task.exception() is None:
            self._release(task.result())


async def _first_of(attempts: Sequence[_Attempt]) -> _Attempt:
    """The attempt whose first token comes first.

    Raises:
        GatewayError: the last of them failed, or one that would fail on any replica.
    """
    running = list(attempts)
    while True:
        if not any(one.task.done() for one in running):
            await asyncio.wait([one.task for one in running], return_when=asyncio.FIRST_COMPLETED)
        for one in [one for one in running if one.task.done()]:
            error = one.error
            if error is None:
                return one
            running.remove(one)
            _end(one)
            if not running or not isinstance(error, GatewayError) or error.outcome not in RETRYABLE:
                raise error


def _end(attempt: _Attempt) -> None:
    """Free the place of an attempt, with its failure if it has failed."""
    error = attempt.error
    attempt.lease.end(error.outcome if isinstance(error, GatewayError) else Outcome.CLIENT_CANCELLED)
