"""Choice of a replica, and the queue for a place."""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping

from lab_api.affinity import Prefix
from lab_api.outcomes import ATTEMPT_FAILURES, GatewayError, Outcome
from lab_api.outliers import Outliers
from lab_api.priority import Priority
from lab_api.queue import Queue, Waiter
from lab_api.replica import Duty, Replica
from lab_api.settings import Admission, Ejection, Patterns, Probing, Shedding
from lab_api.shed import Forecast, refusal
from lab_api.sse import Scanner
from lab_api.tally import Attempt, Usage

Clock = Callable[[], float]


class Lease:
    """One place in one replica. Its holder calls `end`, a second call does nothing."""

    def __init__(self, replica: Replica, pool: "Pool", *, trial: bool) -> None:
        self.replica = replica
        self.began_s = pool.clock()
        self.scanner: Scanner | None = None  # of its stream
        self.last_event_s: float | None = None  # of a stream that was relayed
        self.usage: Usage | None = None  # of a whole answer
        self._pool = pool
        self._trial = trial
        self._ended = False
        self._awaits_token = self._sent = False
        self._late = False
        self._first_token_s: float | None = None

    def sent(self) -> None:
        """Record that the request of a stream is on its way."""
        self._awaits_token = self._sent = True

    def first_token(self) -> None:
        """Record that its first token has come. No effect after the end."""
        if self._awaits_token:
            self._awaits_token = False
            now_s = self.replica.heard_s = self._pool.clock()
            self._first_token_s = took_s = now_s - self.began_s
            self._pool.forecast.first_token(took_s)
            self._late = self._pool.outliers.heard(self.replica, took_s, now_s, trial=self._trial)

    def end(self, outcome: Outcome, *, lost: bool = False) -> None:
        """Free the place and record the result of the request.

        An attempt has lost if the request's other attempt ended it.
        """
        if self._ended:
            return
        self._ended = True
        self.replica.in_flight -= 1
        if outcome in ATTEMPT_FAILURES:
            self.replica.failures[outcome] += 1
        now_s = self._pool.clock()
        if self._awaits_token:
            self._awaits_token = False
            gave_up = self._pool.outliers.gave_up
            self._late = gave_up(self.replica, self.began_s, now_s, trial=self._trial, lost=lost)
        self.replica.breaker.record(now_s, outcome, trial=self._trial, late=self._late)
        self.replica.tally.add(outcome, self._attempt(now_s))
        self._pool.left(self, now_s)

    def _attempt(self, now_s: float) -> Attempt:
        scanner, last_s = self.scanner, self.last_event_s
        return Attempt(
            streaming=self._sent,
            first_token_s=self._first_token_s,
            last_s=(now_s if last_s is None else last_s) - self.began_s,
            events=0 if scanner is None else scanner.tokens,
            usage=self.usage if scanner is None else scanner.usage,
        )


class Pool:
    """All replicas, and the queue in front of them."""

    def __init__(
        self,
        replicas: Mapping[str, str],
        *,
        admission: Admission,
        shedding: Shedding,
        probing: Probing,
        ejection: Ejection,
        patterns: Patterns,
        clock: Clock = time.monotonic,
    ) -> None:
        self.clock = clock
        self.replicas = [
            Replica(name, url, concurrency=admission.concurrency, probing=probing, ejection=ejection, patterns=patterns)
            for name, url in replicas.items()
        ]
        self.outliers = Outliers(ejection, self.replicas, on=patterns.latency_ejection)
        self._admission = admission
        self._patterns = patterns
        self._shedding = shedding
        self.queue: Queue[Lease] = Queue(admission.priority_share)
        self.forecast = Forecast(share=admission.priority_share)
        self._leases: set[Lease] = set()
        self._turn = 0

    @property
    def queue_depth(self) -> int:
        return len(self.queue)

    @property
    def ready(self) -> bool:
        """True if at least one replica answers its shallow probe."""
        return any(replica.healthy for replica in self.replicas)

    def has_good_candidate(self, excluding: Collection[str]) -> bool:
        """True if a replica other than these looks good.

        Where all look bad, they are still tried (fail open), but a retry would only
        multiply the load.
        """
        now_s = self.clock()
        return any(replica.usable(now_s) for replica in self.replicas if replica.name not in excluding)

    def predicted_s(self, priority: Priority) -> float | None:
        """Seconds to the first token of a request that joins the queue now."""
        now_s = self.clock()
        running = len(self._leases)
        return self.forecast.first_token_s(
            priority,
            before=self.queue.before(priority),
            depth=self.queue.depth(priority),
            places=sum(replica.places(now_s) for replica in self._candidates(())),
            running_s=now_s - sum(lease.began_s for lease in self._leases) / running if running else 0.0,
        )

    def has_spare(self, excluding: Collection[str]) -> bool:
        """True if another replica looks good and has a place that no waiter needs."""
        now_s = self.clock()
        others = (replica for replica in self.replicas if replica.name not in excluding)
        return not self.queue and any(one.usable(now_s) and one.has_room(now_s) for one in others)

    def at_once(self, excluding: Collection[str], priority: Priority, prefix: Prefix | None) -> Lease | None:
        """A place in a replica. None if the request has to wait for one.

        The waiters come first. A free place after that is one that none of them
        accepts.
        """
        self.wake()
        if (lease := self._take(excluding, prefix)) is None:
            return None
        self.forecast.granted(priority)
        return lease

    async def acquire(
        self,
        *,
        excluding: Collection[str] = (),
        retry: bool = False,
        priority: Priority = Priority.NORMAL,
        prefix: Prefix | None = None,
    ) -> Lease:
        """A place in a replica, at once or after the queue.

        It is the least busy one, or that of the prefix.

        A retry goes to the head of its class and ignores the queue's bounds: it was
        admitted before.

        Raises:
            GatewayError: full queue, too long a wait, or no replica to try.
        """
        if (lease := self.at_once(excluding, priority, prefix)) is not None:
            return lease
        self._require_candidate(excluding)
        if not retry:
            self._make_room(priority)
        return await self._wait(Waiter(excluding, priority, prefix, is_admitted=retry))

    def _make_room(self, priority: Priority) -> None:
        """Let one more request of this class into the queue.

        Raises:
            GatewayError: a predicted first token beyond the limit, or a full queue.
        """
        if self._patterns.shed and (predicted_s := self.predicted_s(priority)) is not None:
            if predicted_s > self._shedding.ttft_s:
                raise refusal(self._shedding, predicted_s)
        elif self._patterns.queue and len(self.queue) >= self._admission.queue_max:
            full = GatewayError(
                outcome=Outcome.REJECTED_QUEUE_FULL,
                message=f"{len(self.queue)} requests are already waiting for a replica: send it again later",
            )
            if (dropped := self.queue.to_drop_for(priority, self._admission.queue_max)) is None:
                raise full
            self._refuse(dropped, full)

    def _patience_s(self) -> float | None:
        """The longest wait in the queue. None if it is unlimited."""
        waits_s = [self._admission.queue_timeout_s] if self._patterns.queue else []
        if self._patterns.shed:
            waits_s.append(self.forecast.patience_s(self._shedding.ttft_s))
        return min(waits_s, default=None)

    async def _wait(self, waiter: Waiter[Lease]) -> Lease:
        self.queue.add(waiter)
        patience_s = self._patience_s()
        try:
            async with asyncio.timeout(patience_s):
                return await waiter.future
        except TimeoutError as error:
            self._leave(waiter)
            raise GatewayError(
                outcome=Outcome.QUEUE_TIMEOUT,
                message=f"no replica had room within {patience_s:g} s: send it again later",
            ) from error
        except BaseException:
            self._leave(waiter)
            raise

    def _leave(self, waiter: Waiter[Lease]) -> None:
        """Remove the waiter.

        A place handed over just as it gave up goes to the next waiter.
        """
        self.queue.remove(waiter)
        future = waiter.future
        if future.done() and not future.cancelled() and future.exception() is None:
            future.result().end(Outcome.CLIENT_CANCELLED)

    def _refuse(self, waiter: Waiter[Lease], error: GatewayError) -> None:
        self.queue.remove(waiter)
        waiter.future.set_exception(error)

    def left(self, lease: Lease, now_s: float) -> None:
        """Record that a place is free again."""
        self._leases.discard(lease)
        self.forecast.ended(now_s - lease.began_s)
        self.wake()

    def wake(self) -> None:
        """Hand free places to waiters in turn.

        Refuse all of them once no replica can be tried.
        """
        while self.queue and self._serve_next():
            pass

    def _serve_next(self) -> bool:
        """Serve or refuse the next waiter. False if all must wait on."""
        for waiter in self.queue.in_turn():
            if waiter.future.done():
                continue
            try:
                self._require_candidate(waiter.excluding)
            except GatewayError as error:
                self._refuse(waiter, error)
                return True
            if (lease := self._take(waiter.excluding, waiter.prefix)) is not None:
                self.queue.served(waiter)
                self.forecast.granted(waiter.priority)
                waiter.future.set_result(lease)
                return True
            if not waiter.excluding:
                return False  # later waiters accept no more replicas than this one
        return False

    def _take(self, excluding: Collection[str], prefix: Prefix | None = None) -> Lease | None:
        now_s = self.clock()
        candidates = self._candidates(excluding)
        free = [replica for replica in candidates if replica.has_room(now_s)]
        if not free:
            return None
        replica = min(free, key=lambda one: (one.in_flight, one.turn))
        if prefix is not None:
            replica = min(free, key=prefix.order(candidates))
        self._turn += 1
        replica.turn = self._turn
        replica.in_flight += 1
        lease = Lease(replica, self, trial=replica.breaker.admit(now_s))
        self._leases.add(lease)
        return lease

    def _candidates(self, excluding: Collection[str]) -> list[Replica]:
        """The healthy replicas.

        If all look bad at once, the detector is suspect and all may be tried (fail
        open).
        """
        now_s = self.clock()
        chosen = [replica for replica in self.replicas if replica.usable(now_s)]
        if not chosen and self._patterns.fail_open:
            chosen = [one for one in self.replicas if not one.refuses and one.duty is Duty.SERVING]
        return [replica for replica in chosen if replica.name not in excluding]

    def _require_candidate(self, excluding: Collection[str]) -> None:
        if not self._candidates(excluding):
            names = ", ".join(replica.name for replica in self.replicas)
            raise GatewayError(
                outcome=Outcome.NO_REPLICA, message=f"no replica is ready ({names}): send it again later"
            )
