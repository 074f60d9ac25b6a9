"""Samples to numbers: counts, shares and quantiles per window. Pure: no clock, no I/O.

A failed request counts as slower than every answer (right-censored): an outage can make no quantile look better.
A request that the end of the load cut off while it could still have become good (`cancelled`) is unknown. One that its
client gave up early (`left`) counts nowhere, unless it saw no token at a time at which no other client stayed: then only
a client who waited could have seen whether the service is slow or hangs, and it is unknown as well.
"""

from __future__ import annotations

import math
import sys
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from operator import and_, sub
from typing import ClassVar, NamedTuple

from pytest_llmchaos.errors import BadScenario, TooFewSamples
from pytest_llmchaos.model import OUTCOMES, Outcome, Sample
from pytest_llmchaos.stats.bounded import BoundedCount, BoundedFloat, NoClaim, Scale
from pytest_llmchaos.stats.columns import CANCELLED, HINTED, LEFT, OK, UNHINTED, Columns, columns_of
from pytest_llmchaos.stats.names import Counts, Known
from pytest_llmchaos.stats.quantiles import Quantiles


@dataclass(frozen=True, kw_only=True)
class LatencyTargets:
    """What clients call good: an ok answer inside both bounds, counted from the due time."""

    ttft_s: float = 2.0
    e2e_s: float = 10.0

    def __post_init__(self) -> None:
        for name, value in (("ttft_s", self.ttft_s), ("e2e_s", self.e2e_s)):
            number = isinstance(value, int | float) and not isinstance(value, bool)  # type: ignore[redundant-expr]
            if not number or not (0 < value <= sys.float_info.max or value == math.inf):
                raise BadScenario(
                    f"LatencyTargets: {name} must be a number of seconds above 0, got {value!r}: try {name}=2"
                )


DEFAULT_TARGETS = LatencyTargets()
ENDS = Known("outcome", OUTCOMES)
# A client who stayed speaks for those who were due so close to it and left.
SPEAKS_WITHIN_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Window(NoClaim):
    """What clients saw of a part of a load's requests. `good` met every latency bound.

    `unknown` requests were open when the load ended and younger than their limits, or were
    left without a token while no other client stayed. They are in no share, count or
    quantile, and a comparison that depends on their end raises.
    `could_offer` requests could have been due in the window at its longest: a window that
    ends with the recovery is short because the service was quick.
    `left` requests were given up by impatient clients while they could still become good.
    `refused` requests were answered with 429 or 503, of which `unhinted` ones without a valid Retry-After.
    A window that still runs (`is_live`) can become any other: its counts have no most, and
    its shares need no number of requests.
    """

    how_to_claim: ClassVar[str] = "such as .failed == 0 or .availability >= 0.99"

    name: str
    from_s: float
    to_s: float
    offered: int
    ok: float
    good: float
    outcomes: Mapping[Outcome, float]
    ttft_s: Quantiles
    e2e_s: Quantiles
    max_gap_s: Quantiles
    left: float
    refused: float
    unhinted: int
    unknown: int
    could_offer: int
    hint: str
    is_live: bool

    def __post_init__(self) -> None:
        outcomes: dict[str, float] = {
            name: self._count(name, count, f"ended as {name}") for name, count in self.outcomes.items()
        }
        for name, value in (
            ("ok", self._count("ok", self.ok, "been answered")),
            ("good", self._count("good", self.good, "been answered in time")),
            ("outcomes", Counts(outcomes, ENDS, lambda name: self._count(name, 0, f"ended as {name}"))),
            ("left", self._count("left", self.left, "been given up by its client", is_known=True)),
            ("refused", self._count("refused", self.refused, "been refused with 429 or 503")),
        ):
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        return f"<{self.name}: {self.offered} requests, {self.failed} failed, {self.seconds:.1f} s>"

    @property
    def seconds(self) -> float:
        return self.to_s - self.from_s

    @property
    def failed(self) -> float:
        return self._count("failed", self.offered - int(self.ok), "failed")

    @property
    def availability(self) -> float:
        """Share of requests that got a whole, correct answer. Raises TooFewSamples where there was no request."""
        return self._share("availability", self.ok)

    @property
    def goodput_ratio(self) -> float:
        """Share of *offered* requests that were good: a failed one lowers it."""
        return self._share("goodput_ratio", self.good)

    @property
    def goodput_rps(self) -> float:
        """Good answers a second."""
        return self._share("goodput_rps", self.good, rate_rps=self._rate("goodput_rps", self.offered))

    @property
    def offered_rps(self) -> float:
        return self._rate("offered_rps", self.offered)

    @property
    def without_retry_after(self) -> float:
        """Requests refused with 429 or 503 that were not told when to come back. Raises TooFewSamples if none was refused."""
        if not int(self.refused):
            raise TooFewSamples(
                f"without_retry_after needs 1 answer with 429 or 503, got 0 in {self!r}: offer more than the service takes"
            )
        return self._count("without_retry_after", self.unhinted, "been refused without Retry-After")

    def count_of(self, outcome: Outcome) -> float:
        """Requests with this outcome."""
        return self.outcomes[outcome]

    def _rate(self, what: str, count: int) -> float:
        if not 0 < self.seconds < math.inf:
            raise TooFewSamples(f"{what} needs a window that has a length, got {self!r}")
        return count / self.seconds

    def _count(self, what: str, value: float, ended: str, *, is_known: bool = False) -> float:
        """A count of requests. `is_known`: no request of unknown end belongs to it, and it is not of the offered ones."""
        every = max(self.offered + self.unknown + (int(value) if is_known else 0), self.could_offer)
        scale = Scale(
            what=f"{what} {self.name}",
            least=0,
            most=math.inf if self.is_live else every,
            at_least=f"none of the {every} requests had {ended}",
            at_most=f"every one of the {every} requests had {ended}",
            advice=f"bound it above 0 and below {every}, or a share of the requests, or {self.hint}",
            of=self.offered,
        )
        unknown = 0 if self.is_live or is_known else self.unknown
        return BoundedCount(value, scale, low=value, high=int(value) + unknown)

    def _share(self, what: str, part: float, *, rate_rps: float | None = None) -> float:
        """`part` of the offered requests, from 0 to 1; of a rate, from 0 to all of it."""
        if not self.offered:
            raise TooFewSamples(f"{what} needs 1 request, got 0 in {self!r}: {self.hint}")
        whole = 1.0 if rate_rps is None else rate_rps
        count, every = int(part), self.offered + self.unknown
        value = count / self.offered * whole
        scale = Scale(
            what=f"{what} {self.name}",
            least=0.0,
            most=whole if rate_rps is None or not self.is_live else math.inf,
            at_least=f"none of the {every} requests had been answered",
            at_most=f"every one of the {every} requests had been answered well",
            advice=f"bound the requests that failed, or {self.hint}",
            events=None if self.is_live else self.offered,
        )
        low = high = value
        if self.unknown and not self.is_live:
            low, high = count / every * whole, (count + self.unknown) / every * whole
        return BoundedFloat(value, scale, low=low, high=high)


class Part(NamedTuple):
    """A part of a trial. `hint` is what gives it more requests, `could_offer` how many it could have at its longest."""

    name: str
    from_s: float
    to_s: float
    hint: str = "raise rate_rps"
    could_offer: int = 0
    is_live: bool = False


def windows(
    samples: Iterable[Sample],
    bounds: Sequence[tuple[str, float, float]],
    limits: LatencyTargets = DEFAULT_TARGETS,
    *,
    is_live: bool = False,
) -> tuple[Window, ...]:
    """One window per (name, from_s, to_s), by due time. Windows may overlap; the end is not inside."""
    return parts(samples, [Part(*bound, is_live=is_live) for bound in bounds], limits)


def parts(
    samples: Iterable[Sample], wanted: Iterable[Part], limits: LatencyTargets = DEFAULT_TARGETS
) -> tuple[Window, ...]:
    """One window per part, by due time."""
    columns = columns_of(samples)
    judged = _Judged(columns=columns, good=_good(columns, limits), mute=_mute(columns))
    made = []
    for part in wanted:
        inside = [part.from_s <= due < part.to_s for due in columns.due_s]
        made.append(_window(judged, inside, part))
    return tuple(made)


def around(
    samples: Iterable[Sample], before: Part, during: Part, after: Part, limits: LatencyTargets = DEFAULT_TARGETS
) -> tuple[Window, Window, Window]:
    """Three windows that follow one another, each request in one of them.

    A request that was due before `during` begins and had not ended by then was in flight
    when the fault struck: it belongs to `during`. Any other belongs where it was due.
    """
    columns = columns_of(samples)
    judged = _Judged(columns=columns, good=_good(columns, limits), mute=_mute(columns))
    times = list(zip(columns.due_s, columns.end_s, strict=True))
    struck_s, over_s = during.from_s, during.to_s
    unharmed = [before.from_s <= due < struck_s and end < struck_s for due, end in times]
    harmed = [before.from_s <= due < over_s and not (due < struck_s and end < struck_s) for due, end in times]
    later = [over_s <= due < after.to_s for due, _ in times]
    return (
        _window(judged, unharmed, before),
        _window(judged, harmed, during),
        _window(judged, later, after),
    )


class _Judged(NamedTuple):
    """The samples, which of them were good, and which were left without a word while no other client stayed."""

    columns: Columns
    good: list[bool]
    mute: list[bool]


def _mute(columns: Columns) -> list[bool]:
    """For each sample whether its client left before a token, and no other due within a second of it stayed to the end."""
    mute = [code == LEFT and first < 0 for code, first in zip(columns.outcomes, columns.first_s, strict=True)]
    if not any(mute):
        return mute
    ends = zip(columns.due_s, columns.outcomes, strict=True)
    stayed = sorted(due for due, code in ends if code not in (CANCELLED, LEFT))

    def is_alone(due_s: float) -> bool:
        at = bisect_left(stayed, due_s - SPEAKS_WITHIN_S)
        return at == len(stayed) or stayed[at] > due_s + SPEAKS_WITHIN_S

    return [is_mute and is_alone(due_s) for is_mute, due_s in zip(mute, columns.due_s, strict=True)]


def _good(columns: Columns, limits: LatencyTargets) -> list[bool]:
    """For each sample whether its client got a whole answer inside both bounds."""
    ttft_s, e2e_s = limits.ttft_s, limits.e2e_s
    rows = zip(columns.outcomes, columns.due_s, columns.first_s, columns.end_s, strict=True)
    return [
        code == OK and end - due <= e2e_s and (end if first < 0 else first) - due <= ttft_s
        for code, due, first, end in rows
    ]


def _window(judged: _Judged, inside: list[bool], part: Part) -> Window:
    """The window of the samples that are `inside`."""
    if not part.from_s <= part.to_s:
        raise BadScenario(f"window {part.name!r} must end after it begins, got {part.from_s!r} to {part.to_s!r}")
    columns = judged.columns
    counts = Counter(compress(columns.outcomes, inside))
    unknown, left = counts.pop(CANCELLED, 0), counts.pop(LEFT, 0)
    unknown += sum(compress(judged.mute, inside))
    refusals = Counter(compress(columns.refusals, inside))
    ok = [code == OK for code in columns.outcomes]
    ok = list(map(and_, inside, ok))
    due_s, end_s = array("d", compress(columns.due_s, ok)), array("d", compress(columns.end_s, ok))
    # An answer whose first token went unseen showed its client nothing before its end.
    first_s = [end if first < 0 else first for first, end in zip(compress(columns.first_s, ok), end_s, strict=True)]
    offered, answered = counts.total(), len(due_s)

    def quantiles(what: str, values: Iterable[float]) -> Quantiles:
        failed = offered - answered
        return Quantiles(what, values, failed, unknown=unknown, where=part.name, hint=part.hint)

    return Window(
        name=part.name,
        from_s=part.from_s,
        to_s=part.to_s,
        offered=offered,
        ok=answered,
        good=sum(compress(judged.good, inside)),
        outcomes={OUTCOMES[code]: count for code, count in counts.items()},
        ttft_s=quantiles("ttft_s", map(sub, first_s, due_s)),
        e2e_s=quantiles("e2e_s", map(sub, end_s, due_s)),
        max_gap_s=quantiles("max_gap_s", compress(columns.max_gap_s, ok)),
        left=left,
        refused=refusals[HINTED] + refusals[UNHINTED],
        unhinted=refusals[UNHINTED],
        unknown=unknown,
        could_offer=part.could_offer,
        hint=part.hint,
        is_live=part.is_live,
    )


def evidence(
    samples: Iterable[Sample], from_s: float, until_s: float, limits: LatencyTargets
) -> Iterator[tuple[float, bool]]:
    """Due time and goodness of what was due from `from_s` to `until_s`, both included."""
    columns = columns_of(samples)
    rows = zip(columns.due_s, _good(columns, limits), columns.outcomes, strict=True)
    return ((due, is_good) for due, is_good, code in rows if from_s <= due <= until_s and code not in (CANCELLED, LEFT))


def unserved_s(samples: Iterable[Sample]) -> tuple[float, ...]:
    """Starts of the whole seconds in which requests were due and none of them was answered well enough to be ok."""
    columns = columns_of(samples)
    offered: set[int] = set()
    served: set[int] = set()
    for due_s, code in zip(columns.due_s, columns.outcomes, strict=True):
        if code == OK:
            served.add(int(due_s))
        elif code not in (CANCELLED, LEFT):
            offered.add(int(due_s))
    return tuple(map(float, sorted(offered - served)))


def first_unknown_s(samples: Iterable[Sample]) -> float:
    """When the first request was due that its client gave up because the load ended; infinite if there is none.

    Whether it would have been answered, nobody knows: it may have hung.
    """
    columns = columns_of(samples)
    rows = zip(columns.due_s, columns.outcomes, strict=True)
    return min((due for due, code in rows if code == CANCELLED), default=math.inf)
