"""Which replica takes a request, and who waits for one. Opens no connection."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from enum import Enum

from lab_api.breaker import Breaker
from lab_api.outcomes import GatewayError, Outcome
from lab_api.settings import Admission, Ejection, Probing

Clock = Callable[[], float]


class Probed(Enum):
    """What the shallow probe saw."""

    GOOD = "good"
    BAD = "bad"  # no answer in time, or not a good one: broken or busy
    REFUSED = "refused"  # nobody listens: certainly not serving


class Replica:
    """One replica as the gateway sees it."""

    def __init__(self, name: str, url: str, *, concurrency: int, probing: Probing, ejection: Ejection) -> None:
        self.name = name
        self.url = url
        self.in_flight = 0
        self.breaker = Breaker(ejection)
        self.last_probe: Probed | None = None
        self.healthy = False  # by the shallow probe alone
        self._bad_probes = 0
        self._concurrency = concurrency
        self._probing = probing
        self._slow_start_s = ejection.slow_start_s
        self._recovered_at_s = float("-inf")
        self.turn = 0

    def probed(self, verdict: Probed, now_s: float) -> None:
        """Takes one result of the shallow probe."""
        if verdict is Probed.GOOD:
            if not self.healthy and self.last_probe is not None:
                self._recovered_at_s = now_s
            self.healthy = True
            self._bad_probes = 0
        else:
            self._bad_probes += 1
            if verdict is Probed.REFUSED or self._bad_probes >= self._probing.fall:
                self.healthy = False
        self.last_probe = verdict

    @property
    def refuses(self) -> bool:
        """Nobody listens there, so not even a desperate attempt makes sense."""
        return self.last_probe is Probed.REFUSED

    def usable(self, now_s: float) -> bool:
        """Whether both kinds of health allow one more request."""
        return self.healthy and self.breaker.allows(now_s)

    def has_room(self, now_s: float) -> bool:
        """Whether it may have one more request in flight; a recovered replica gets its room back little by little."""
        since_s = now_s - max(self._recovered_at_s, self.breaker.closed_at_s or float("-inf"))
        share = 1.0 if since_s >= self._slow_start_s else since_s / self._slow_start_s
        return self.in_flight < max(1, int(self._concurrency * share))


class Lease:
    """One place in one replica. `end` is called exactly once by its holder; further calls change nothing."""

    def __init__(self, replica: Replica, pool: "Pool", *, trial: bool) -> None:
        self.replica = replica
        self._pool = pool
        self._trial = trial
        self._ended = False

    def end(self, outcome: Outcome) -> None:
        """Gives the place back and says what the request met there."""
        if self._ended:
            return
        self._ended = True
        self.replica.in_flight -= 1
        self.replica.breaker.record(self._pool.clock(), outcome, trial=self._trial)
        self._pool.wake()


class _Waiter:
    __slots__ = ("excluding", "future")

    def __init__(self, excluding: Collection[str]) -> None:
        self.future: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        self.excluding = excluding


class Pool:
    """All replicas, and a bounded first-come queue in front of them."""

    def __init__(
        self,
        replicas: Mapping[str, str],
        *,
        admission: Admission,
        probing: Probing,
        ejection: Ejection,
        clock: Clock = time.monotonic,
    ) -> None:
        self.clock = clock
        self.replicas = [
            Replica(name, url, concurrency=admission.concurrency, probing=probing, ejection=ejection)
            for name, url in replicas.items()
        ]
        self._admission = admission
        self._waiting: deque[_Waiter] = deque()
        self._turn = 0

    @property
    def queue_depth(self) -> int:
        return len(self._waiting)

    @property
    def ready(self) -> bool:
        """Whether at least one replica answers its shallow probe."""
        return any(replica.healthy for replica in self.replicas)

    def has_candidate(self, excluding: Collection[str]) -> bool:
        """Whether a request may go to any replica but these, now or after waiting for room."""
        return bool(self._candidates(excluding))

    async def acquire(self, *, excluding: Collection[str] = (), retry: bool = False) -> Lease:
        """A place in the least busy replica, at once or after waiting in the queue.

        A retry goes to the head of the queue and is not counted against its bound: it has been admitted before.
        Raises GatewayError when the queue is full, the wait has been too long, or no replica can be tried at all.
        """
        if not self._waiting and (lease := self._take(excluding)) is not None:
            return lease
        self._require_candidate(excluding)
        if not retry and len(self._waiting) >= self._admission.queue_max:
            raise GatewayError(
                outcome=Outcome.REJECTED_QUEUE_FULL,
                message=f"{len(self._waiting)} requests are already waiting for a replica: send it again later",
            )
        return await self._wait(_Waiter(excluding), first=retry)

    async def _wait(self, waiter: _Waiter, *, first: bool) -> Lease:
        (self._waiting.appendleft if first else self._waiting.append)(waiter)
        self.wake()
        try:
            async with asyncio.timeout(self._admission.queue_timeout_s):
                return await waiter.future
        except TimeoutError as error:
            self._leave(waiter)
            raise GatewayError(
                outcome=Outcome.QUEUE_TIMEOUT,
                message=f"no replica had room within {self._admission.queue_timeout_s:g} s: send it again later",
            ) from error
        except BaseException:
            self._leave(waiter)
            raise

    def _leave(self, waiter: _Waiter) -> None:
        """Takes the waiter out; a place handed over in the very moment it gave up goes to the next one."""
        if waiter in self._waiting:
            self._waiting.remove(waiter)
        future = waiter.future
        if future.done() and not future.cancelled() and future.exception() is None:
            future.result().end(Outcome.CLIENT_CANCELLED)

    def wake(self) -> None:
        """Hands free places to those who wait, in their order; sends all away once no replica can be tried."""
        for waiter in tuple(self._waiting):
            if waiter.future.done():
                continue
            try:
                self._require_candidate(waiter.excluding)
            except GatewayError as error:
                waiter.future.set_exception(error)
            else:
                if (lease := self._take(waiter.excluding)) is not None:
                    waiter.future.set_result(lease)
                elif not waiter.excluding:
                    return  # whoever comes later is not less choosy
                else:
                    continue
            self._waiting.remove(waiter)

    def _take(self, excluding: Collection[str]) -> Lease | None:
        now_s = self.clock()
        free = [replica for replica in self._candidates(excluding) if replica.has_room(now_s)]
        if not free:
            return None
        replica = min(free, key=lambda one: (one.in_flight, one.turn))
        self._turn += 1
        replica.turn = self._turn
        replica.in_flight += 1
        return Lease(replica, self, trial=replica.breaker.admit(now_s))

    def _candidates(self, excluding: Collection[str]) -> list[Replica]:
        """The replicas in good health; when all look bad at once the detector is suspected, and all may be tried."""
        now_s = self.clock()
        chosen = [replica for replica in self.replicas if replica.usable(now_s)]
        chosen = chosen or [replica for replica in self.replicas if not replica.refuses]
        return [replica for replica in chosen if replica.name not in excluding]

    def _require_candidate(self, excluding: Collection[str]) -> None:
        if not self._candidates(excluding):
            names = ", ".join(replica.name for replica in self.replicas)
            raise GatewayError(
                outcome=Outcome.NO_REPLICA, message=f"no replica is ready ({names}): send it again later"
            )
