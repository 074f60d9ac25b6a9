"""Results of one simulated run."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import TYPE_CHECKING

from lab_autoscaler.requests import Fate, Request

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from lab_autoscaler.world_settings import WorldSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class ScaleEvent:
    """One change of the wanted count by the autoscaler."""

    at_s: float
    before: int
    after: int
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """Replicas and waiting requests at one time."""

    at_s: float
    desired: int
    ready: int
    cold: int
    draining: int
    waiting: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """Requests against the targets.

    A share is over the offered requests without the censored ones: those unfinished at
    the end that may still attain the target. A request that was shed or lost has
    missed.
    """

    first_token_attained: float | None
    token_gap_attained: float | None
    attained: float | None  # both
    first_token_censored: int
    token_gap_censored: int
    censored: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """Results of one run.

    Seconds are in virtual time. `offered` is `served` + `shed` + `lost` + `open`.
    """

    offered: int
    served: int
    shed: int  # by a full queue, or by the deadline in the queue while a replica was ready
    lost: int  # died with a replica, cut by a scale-down, or refused without a replica
    open: int  # unfinished at the end
    queue_timeouts: int  # of the shed ones
    lost_at_zero: int  # of the lost ones: no replica was ready
    cut_by_scale_down: int  # in flight at the end of a drain. Without retries all of them are lost
    replica_s: float  # from start to stop, with loading and draining
    cold_s: float  # of these, until ready
    first_token_attained: float | None
    token_gap_attained: float | None
    attained: float | None
    first_token_censored: int
    token_gap_censored: int
    censored: int
    # Kaplan-Meier over offered requests, lost and shed ones at infinity.
    first_token_p50_s: float
    first_token_p95_s: float
    first_token_p99_s: float
    flaps: int
    syncs: int
    blind_syncs: int  # without a fresh scrape
    max_replicas: int  # cold, ready and draining
    min_ready: int
    fault_acts: Mapping[str, int]  # how often each fault has struck
    scale_events: tuple[ScaleEvent, ...]
    trajectory: tuple[Moment, ...]

    def as_json(self) -> dict[str, object]:
        """Values for JSON. An infinite quantile is None.

        Events and moments are rows of their fields.
        """
        found: dict[str, object] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float) and math.isinf(value):
                value = None
            elif isinstance(value, tuple):
                value = [[getattr(one, part.name) for part in fields(one)] for one in value]
            found[field.name] = value
        return found


class ConservationError(AssertionError):
    """A simulated request has no fate, or two."""


def fates(requests: Iterable[Request], *, offered: int, held: int) -> dict[Fate, int]:
    """Number of requests by fate.

    Args:
        requests: all of them.
        offered: requests that the gateway counted as they came.
        held: requests in its queue and in the replicas.

    Raises:
        ConservationError: the fates do not add up to the offered ones, or the open ones
            are not those that are held.
    """
    counts = dict.fromkeys(Fate, 0)
    for request in requests:
        counts[request.fate] += 1
    if sum(counts.values()) != offered or counts[Fate.OPEN] != held:
        found = ", ".join(f"{count} {fate.value}" for fate, count in counts.items())
        raise ConservationError(f"expected {offered} requests with {held} of them open, got {found}")
    return counts


def judge(requests: Iterable[Request], settings: WorldSettings, *, until_s: float) -> Judged:
    """Shares of requests that attained the targets."""
    verdicts = [
        (
            _first_token(one, settings.first_token_target_s, until_s),
            _token_gap(one, settings.token_gap_target_s, until_s),
        )
        for one in requests
    ]
    both = [False if False in pair else None if None in pair else True for pair in verdicts]
    first, gap = [pair[0] for pair in verdicts], [pair[1] for pair in verdicts]
    return Judged(
        first_token_attained=_share(first),
        token_gap_attained=_share(gap),
        attained=_share(both),
        first_token_censored=first.count(None),
        token_gap_censored=gap.count(None),
        censored=both.count(None),
    )


def _share(verdicts: Sequence[bool | None]) -> float | None:
    valid = len(verdicts) - verdicts.count(None)
    return verdicts.count(True) / valid if valid else None


def _first_token(request: Request, target_s: float, until_s: float) -> bool | None:
    """True if attained, False if missed, None if open still."""
    if request.fate is Fate.SHED or request.fate is Fate.LOST:
        return False
    if request.first_token_s is not None:
        return request.first_token_s - request.at_s <= target_s
    return False if until_s - request.at_s > target_s else None


def _token_gap(request: Request, target_s: float, until_s: float) -> bool | None:
    if request.fate is Fate.SERVED:
        return request.mean_gap_s <= target_s
    if request.fate is not Fate.OPEN:
        return False
    if request.first_token_s is None:
        return None
    # The mean can only grow from here.
    least_s = (until_s - request.first_token_s) / max(1, request.answer_tokens - 1)
    return False if least_s > target_s else None


def first_token_quantiles(requests: Iterable[Request], shares: Sequence[float], *, until_s: float) -> list[float]:
    """Kaplan-Meier quantiles of the seconds to the first token.

    An open request without a first token is censored at its age. One that was shed or
    lost never gets it, so it counts as infinite.

    Args:
        requests: all offered requests.
        shares: of the quantiles, 0-1.
        until_s: end of the run.
    """
    ends: list[tuple[float, bool]] = []  # seconds, and True for a censored one. Events come first
    never = 0
    for one in requests:
        if one.fate is Fate.SHED or one.fate is Fate.LOST:
            never += 1
        elif one.first_token_s is not None:
            ends.append((one.first_token_s - one.at_s, False))
        else:
            ends.append((until_s - one.at_s, True))
    ends.sort()
    found = [math.inf] * len(shares)
    at_risk, survival = len(ends) + never, 1.0
    for after_s, is_censored in ends:
        if not is_censored:
            survival *= 1 - 1 / at_risk
            for index, share in enumerate(shares):
                if found[index] == math.inf and survival <= 1 - share + 1e-12:
                    found[index] = after_s
        at_risk -= 1
    return found


def flaps(events: Sequence[ScaleEvent], window_s: float) -> int:
    """Reversals of direction within the window after the event before."""
    return sum(
        (before.after > before.before) != (after.after > after.before) and after.at_s - before.at_s <= window_s
        for before, after in pairwise(events)
    )
