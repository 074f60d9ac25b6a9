"""Ejection of a replica whose first tokens come much later than its peers'."""

from collections import deque
from collections.abc import Sequence
from statistics import median
from typing import Protocol

from lab_api.breaker import Breaker, Cause, Circuit
from lab_api.logs import logger
from lab_api.settings import Ejection

_SAMPLES = 5  # kept, as a multiple of those needed: a bound on the work for each token


class FirstTokens:
    """Recent times to first token of one replica."""

    def __init__(self, policy: Ejection) -> None:
        self._policy = policy
        self._times: deque[tuple[float, float]] = deque(maxlen=_SAMPLES * policy.latency_min_requests)

    def add(self, now_s: float, took_s: float) -> None:
        self._times.append((now_s, took_s))

    def clear(self) -> None:
        self._times.clear()

    def median_s(self, now_s: float) -> float | None:
        """The median within the window. None if there are too few."""
        while self._times and self._times[0][0] < now_s - self._policy.window_s:
            self._times.popleft()
        if len(self._times) < self._policy.latency_min_requests:
            return None
        return median(took_s for _, took_s in self._times)


class Peer(Protocol):
    """Needs of the comparison, which replicas have."""

    name: str
    breaker: Breaker
    first_tokens: FirstTokens
    heard_s: float

    def usable(self, now_s: float) -> bool:
        """True if it may take requests."""


class Outliers:
    """Comparison of the replicas' medians.

    A slowdown of all replicas moves the peers' median too, so it ejects none. The shape
    is that of Envoy's outlier detection: a window, a number of requests, a bound
    relative to the others, and a greatest share of ejected replicas.
    """

    def __init__(self, policy: Ejection, replicas: Sequence[Peer], *, on: bool) -> None:
        self._policy = policy
        self._replicas = replicas
        self._on = on

    def bound_s(self, replica: Peer, now_s: float) -> float | None:
        """The time beyond which the replica is an outlier. None without peers."""
        peers_s = [
            one_s
            for peer in self._replicas
            if peer is not replica and peer.usable(now_s) and (one_s := peer.first_tokens.median_s(now_s)) is not None
        ]
        if not peers_s:
            return None
        return max(self._policy.latency_floor_s, self._policy.latency_factor * median(peers_s))

    def late(self, replica: Peer, took_s: float, now_s: float) -> bool:
        """True if the time is beyond the bound."""
        bound_s = self.bound_s(replica, now_s)
        return bound_s is not None and took_s > bound_s

    def heard(self, replica: Peer, took_s: float, now_s: float, *, trial: bool) -> bool:
        """Record a time to first token, and eject the replica if it is an outlier.

        True for a trial of a replica ejected here that is late again.
        """
        if trial:
            return replica.breaker.cause is Cause.LATENCY and self.late(replica, took_s, now_s)
        if not self._on or replica.breaker.state(now_s) is not Circuit.CLOSED:
            return False
        replica.first_tokens.add(now_s, took_s)
        if took_s <= self._policy.latency_floor_s:
            return False  # the usual case, and cheap
        median_s = replica.first_tokens.median_s(now_s)
        if median_s is not None and self.late(replica, median_s, now_s) and self._may_eject(now_s):
            logger.warning("replica is ejected", extra={"replica": replica.name, "median_first_token_s": median_s})
            replica.first_tokens.clear()
            replica.breaker.eject(now_s)
        return False

    def gave_up(self, replica: Peer, began_s: float, now_s: float, *, trial: bool, lost: bool) -> bool:
        """`heard` for a first token that has not come since the request began.

        It would have been later still. A shorter wait is no evidence. True if the wait
        was late and counts against the replica. That of an attempt that lost a race
        does not, nor any at a replica that gave another request a first token
        meanwhile: it works, and the prompt was long.
        """
        waited_s = now_s - began_s
        if not self.late(replica, waited_s, now_s):
            return False
        if self.heard(replica, waited_s, now_s, trial=trial):
            return True
        return not lost and replica.heard_s < began_s and (trial or self._may_eject(now_s))

    def _may_eject(self, now_s: float) -> bool:
        """True if one more is within the share."""
        ejected = sum(one.breaker.state(now_s) is not Circuit.CLOSED for one in self._replicas)
        return ejected + 1 <= self._policy.latency_share * len(self._replicas)
