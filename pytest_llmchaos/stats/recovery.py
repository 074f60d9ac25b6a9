"""When clients were served again for good, and when they were let down again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from pytest_llmchaos.model import Sample
from pytest_llmchaos.stats.windows import DEFAULT_TARGETS, LatencyTargets, evidence


@dataclass(frozen=True, kw_only=True)
class ClientsSaw:
    """How clients fared from one instant to the end of what is known. Times are due times of requests.

    `good_s` is the first request from which on every one was good; None where the service was not good for long enough.
    `resolution_s` says how much earlier that may really have been: clients see a service only when they ask.
    `relapsed_s` is the first bad request after the service had been good for long enough; None where there was none.
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
    """What clients saw of the requests due from `from_s` to `until_s`.

    The service is good for good from the first request after the last bad one, if `stable_s` seconds and at least one more
    request follow it: the stable stretch is counted in seconds and in requests, whatever the load's shape.
    Good spells before a bad request are no recovery: the damage may come late, and it may come again.
    One bad request is enough for that, however late it comes, as one is enough to break a stable spell.
    While a load still runs, `until_s` is the due time of its oldest unanswered request: nothing later is known to be good.
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
    """Seconds between the last bad request and the good one. Where good and bad answers alternate, the last two bad ones."""
    if not bad_s:
        return 0.0
    alternating = [b - a for a, b in pairwise(bad_s[-2:]) if b - a < stable_s]
    return max([good_s - bad_s[-1], *alternating])


def _relapsed_s(seen: Sequence[tuple[float, bool]], bad_s: Sequence[float], stable_s: float) -> float | None:
    """The first bad request that ended a stable spell between two bad ones."""
    good = [due_s for due_s, is_good in seen if is_good]
    at = 0
    for before, after in pairwise(bad_s):
        while at < len(good) and good[at] <= before:
            at += 1
        if at + 1 < len(good) and good[at] + stable_s < after and good[at + 1] < after:
            return after
    return None
