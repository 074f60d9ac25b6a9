"""Hedging: a second attempt of a stream whose first token is late."""

import asyncio
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Awaitable, Callable
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
class _Hedge:
    """The second attempt of a stream, and the task that waits for its first token."""

    lease: Lease
    task: asyncio.Task[Stream]

    @property
    def error(self) -> BaseException | None:
        """Its failure, if it has failed."""
        return self.task.exception() if self.task.done() and not self.task.cancelled() else None

    def end(self) -> None:
        """Free its place, with its failure if it has failed."""
        self.lease.end(_outcome_of(self.error), lost=True)


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
        stream = await _Race(self, lease, exchange, send).won(self._times.delay_s)
        self._times.add(self._pool.clock() - began_s)
        return stream

    def start(self, lease: Lease, exchange: Exchange, send: Send) -> _Hedge | None:
        """A hedge of the attempt with this lease. None without a place or budget."""
        excluding = [*exchange.tried, lease.replica.name]
        if not self._pool.has_spare(excluding) or not self._bucket.spend():
            return None
        spare = self._pool.at_once(excluding, exchange.priority, exchange.prefix)
        if spare is None:
            return None

        async def wait_for_it() -> Stream:
            return await send(spare)

        self._metrics.attempted(spare.replica.name, "hedge")
        return _Hedge(lease=spare, task=asyncio.create_task(wait_for_it()))

    def end(self, hedge: _Hedge, result: Hedged) -> None:
        """Count a hedge. One that has not won is cancelled, and its place is free."""
        self._metrics.hedged(hedge.lease.replica.name, result)
        if result is Hedged.WON:
            return
        hedge.end()
        hedge.task.cancel()
        self._ending.add(hedge.task)
        hedge.task.add_done_callback(self._discard)

    def _discard(self, task: asyncio.Task[Stream]) -> None:
        self._ending.discard(task)
        if not task.cancelled() and task.exception() is None:
            self._release(task.result())


class _Race:
    """The first attempt of a stream in the request's own task, and its hedge.

    Most first tokens come before the delay of the hedge, and cost no second task.
    """

    def __init__(self, hedger: Hedger, lease: Lease, exchange: Exchange, send: Send) -> None:
        self._hedger = hedger
        self._lease = lease
        self._exchange = exchange
        self._send = send
        self._first = asyncio.timeout(None)  # expires when the hedge decides the race
        self._first_runs = True
        self._hedge: _Hedge | None = None
        self._timer: asyncio.Handle | None = None

    async def won(self, delay_s: float | None) -> Stream:
        """The first of the streams. The delay of the hedge is None if it is unknown."""
        if delay_s is not None:
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._wait_a_turn)
        result = Hedged.CANCELLED
        try:
            stream, result = await self._winner()
            return stream
        finally:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None  # it refers to this race
            if (hedge := self._hedge) is not None:
                if hedge.error is not None:
                    result = Hedged.FAILED
                    self._exchange.tried.append(hedge.lease.replica.name)
                self._hedger.end(hedge, result)

    async def _winner(self) -> tuple[Stream, Hedged]:
        """The first stream, and what that is for a hedge."""
        try:
            async with self._first:
                return await self._send(self._lease), Hedged.LOST
        except BaseException as error:
            decided = isinstance(error, TimeoutError) and self._first.expired()
            self._lease.end(_outcome_of(error), lost=decided)
            if (hedge := self._hedge) is None or not (decided or (_spares_the_other(error) and hedge.error is None)):
                raise
        finally:
            self._first_runs = False
        return await hedge.task, Hedged.WON

    def _wait_a_turn(self) -> None:
        """Let the request go on if its first token has come while the loop was late."""
        self._timer = asyncio.get_running_loop().call_soon(self._start)

    def _start(self) -> None:
        self._hedge = self._hedger.start(self._lease, self._exchange, self._send)
        if self._hedge is not None:
            self._hedge.task.add_done_callback(self._look)

    def _look(self, task: asyncio.Task[Stream]) -> None:
        """End the first attempt if the hedge decides the race, by its end."""
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and self._hedge is not None:
            self._hedge.end()
        if self._first_runs and not _spares_the_other(error):
            self._first.reschedule(asyncio.get_running_loop().time())


def _spares_the_other(error: BaseException | None) -> bool:
    """True for a failure that leaves the race to the other attempt."""
    return isinstance(error, GatewayError) and error.outcome in RETRYABLE


def _outcome_of(error: BaseException | None) -> Outcome:
    return error.outcome if isinstance(error, GatewayError) else Outcome.CLIENT_CANCELLED
