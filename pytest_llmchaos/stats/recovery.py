"""Recovery and relapse of a service, as clients saw them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from pytest_llmchaos.model import Sample
from pytest_llmchaos.stats.windows import DEFAULT_TARGETS, LatencyTargets, evidence


@dataclass(frozen=True, kw_only=True)
class ClientsSaw:
    """Service to clients from one instant on. Times are due times of requests.

    Attributes:
        suffered: True if a request was bad.
        good_s: Second of the first request from which on all were good, None if the
            service was not good for long enough.
        resolution_s: Seconds by which `good_s` may have been earlier. Clients see a
            service only when they send requests.
        relapsed_s: Second of the first bad request after the service had been good for
            long enough, None without one.
    """

    suffered: bool
    good_s: float | None
    resolution_s: float = 0.0
    relapsed_s: float | None = None


def clients_from(
    samples: Iterable[Sample],
    from_s: float,
    stable_s: float,
    limits: LatencyTargets = DEFAULT_TARGETS,
    until_s: float = math.inf,
) -> ClientsSaw:
    """Return the service to clients due from `from_s` to `until_s`.

    The service has recovered from the first request after the last bad one, if
    `stable_s` seconds and at least one more request follow it. The stable time is
    counted in seconds and in requests, whatever the load's shape.

    Good spells before a bad request are not a recovery: the damage may come late or
    return. One bad request is enough for that, as it is enough to break a stable spell.

    While a load runs, `until_s` is the due time of its oldest unanswered request, since
    nothing later is known to be good.
    """
    seen = sorted(evidence(samples, from_s, until_s, limits))
    bad_s = [due_s for due_s, is_good in seen if not is_good]
    last_bad_s = bad_s[-1] if bad_s else -math.inf
    good_s = [due_s for due_s, is_good in seen if is_good and due_s > last_bad_s]
    is_stable = len(good_s) > 1 and good_s[0] + stable_s <= until_s
    return ClientsSaw(
        suffered=bool(bad_s),
        good_s=good_s[0] if is_stable else None,
        resolution_s=_resolution_s(bad_s, good_s[0], stable_s) if is_stable else 0.0,
        relapsed_s=_relapsed_s(seen, bad_s, stable_s),
    )


def _resolution_s(bad_s: Sequence[float], good_s: float, stable_s: float) -> float:
    """Return the seconds between the last bad request and the good one.

    If good and bad answers alternate, those between the last two bad ones.
    """
    if not bad_s:
        return 0.0
    alternating = [b - a for a, b in pairwise(bad_s[-2:]) if b - a < stable_s]
    return max([good_s - bad_s[-1], *alternating])


def _relapsed_s(seen: Sequence[tuple[float, bool]], bad_s: Sequence[float], stable_s: float) -> float | None:
    """Return the due time of the first bad request that ended a stable spell."""
    good = [due_s for due_s, is_good in seen if is_good]
    at = 0
    for before, after in pairwise(bad_s):
        while at < len(good) and good[at] <= before:
            at += 1
        if at + 1 < len(good) and good[at] + stable_s < after and good[at + 1] < after:
            return after
    return None
