"""One observation of the replicas: the input of every law."""

from __future__ import annotations

from dataclasses import dataclass

from lab_common.values import require, require_whole

_MOST = 1_000_000  # replicas or slots: beyond any lab


@dataclass(frozen=True, kw_only=True)
class Observed:
    """The replicas and their load at one moment.

    A value that is None is unknown: no scrape, a stale scrape, or NaN. Zero is a
    measured zero.

    Args:
        now_s: The time of the observation, in seconds of any one clock.
        replicas: The wanted count in force: started or starting, not draining.
        ready: The replicas that take requests.
        waiting: Requests in queues, the sum of all replicas.
        running: Requests in work, the sum of all replicas.
        rate_rps: Arriving requests per second, since the last observation.
        slots: Requests that one replica answers at a time.
        utilisation: `running` over the slots of the ready replicas.
        first_token_attained: The share of requests, from 0 to 1, whose first token came
            within its target.
        token_gap_attained: The share of requests, from 0 to 1, whose later tokens came
            within their target.
        reporting: The ready replicas with fresh metrics.

    Raises:
        InvalidValueError: with the field, the bound and the value.
    """

    now_s: float
    replicas: int
    ready: int
    waiting: float | None
    running: float | None
    rate_rps: float | None
    slots: int
    utilisation: float | None
    first_token_attained: float | None
    token_gap_attained: float | None
    reporting: int

    def __post_init__(self) -> None:
        require("now_s", self.now_s, at_least=-1e12)
        for name in ("replicas", "ready", "reporting"):
            require_whole(name, getattr(self, name), at_least=0, at_most=_MOST)
        require_whole("slots", self.slots, at_least=1, at_most=_MOST)
        for name in ("waiting", "running", "rate_rps", "utilisation"):
            if getattr(self, name) is not None:
                require(name, getattr(self, name))
        for name in ("first_token_attained", "token_gap_attained"):
            if getattr(self, name) is not None:
                require(name, getattr(self, name), at_most=1.0)
