"""Samples to numbers: counts, shares and quantiles per window. Pure: no clock, no I/O.

A failed request counts as slower than every answer (right-censored): an outage can make no quantile look better.
A request that the end of the run cut off (`cancelled`), or that its caller gave up early (`left`), counts nowhere.
"""

from __future__ import annotations

import math
import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from operator import and_, sub
from types import MappingProxyType

from pytest_llmchaos.errors import BadScenario, TooFewSamples
from pytest_llmchaos.model import OUTCOMES, Outcome, Sample
from pytest_llmchaos.stats.columns import CANCELLED, HINTED, LEFT, OK, UNHINTED, Columns, columns_of
from pytest_llmchaos.stats.quantiles import HINT, Quantiles


@dataclass(frozen=True, kw_only=True)
class LatencyTargets:
    """What callers call good: an ok answer inside both bounds, counted from the due time."""

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


@dataclass(frozen=True, kw_only=True)
class Window:
    """What callers saw of the requests that were due from `from_s` up to `to_s`. `good` met every latency bound.

    `left` requests were given up by impatient callers while they could still become good; no other number has them.
    `refused` requests were answered with 429 or 503, of which `unhinted` ones without a valid Retry-After.
    """

    name: str
    from_s: float
    to_s: float
    offered: int
    ok: int
    good: int
    outcomes: Mapping[Outcome, int]
    ttft_s: Quantiles = field(repr=False)
    e2e_s: Quantiles = field(repr=False)
    max_gap_s: Quantiles = field(repr=False)
    left: int = 0
    refused: int = 0
    unhinted: int = field(default=0, repr=False)

    def __repr__(self) -> str:
        return f"<{self.name} phase: {self.offered} requests, {self.failed} failed, {self.seconds:.1f} s>"

    @property
    def seconds(self) -> float:
        return self.to_s - self.from_s

    @property
    def failed(self) -> int:
        return self.offered - self.ok

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
        self._share("goodput_rps", self.good)
        return self._rate("goodput_rps", self.good)

    @property
    def offered_rps(self) -> float:
        return self._rate("offered_rps", self.offered)

    @property
    def without_retry_after(self) -> int:
        """Requests refused with 429 or 503 that were not told when to come back. Raises TooFewSamples if none was refused."""
        if not self.refused:
            raise TooFewSamples(
                f"without_retry_after needs 1 answer with 429 or 503, got 0 in {self!r}: offer more than the service takes"
            )
        return self.unhinted

    def _rate(self, what: str, count: int) -> float:
        if not 0 < self.seconds < math.inf:
            raise TooFewSamples(f"{what} needs a phase that has a length, got {self!r}")
        return count / self.seconds

    def _share(self, what: str, part: int) -> float:
        if not self.offered:
            raise TooFewSamples(f"{what} needs 1 request, got 0 in {self!r}: {HINT}")
        return part / self.offered


def windows(
    samples: Iterable[Sample], bounds: Sequence[tuple[str, float, float]], limits: LatencyTargets = DEFAULT_TARGETS
) -> tuple[Window, ...]:
    """One window per (name, from_s, to_s), by due time. Windows may overlap; the end is not inside."""
    columns = columns_of(samples)
    good_ones = _good(columns, limits)
    return tuple(_window(columns, good_ones, *bound) for bound in bounds)


def _good(columns: Columns, limits: LatencyTargets) -> list[bool]:
    """For each sample whether its caller got a whole answer inside both bounds."""
    ttft_s, e2e_s = limits.ttft_s, limits.e2e_s
    rows = zip(columns.outcomes, columns.due_s, columns.first_s, columns.end_s, strict=True)
    return [
        code == OK and end - due <= e2e_s and (end if first < 0 else first) - due <= ttft_s
        for code, due, first, end in rows
    ]


def _window(columns: Columns, good_ones: list[bool], name: str, from_s: float, to_s: float) -> Window:
    if not from_s <= to_s:
        raise BadScenario(f"window {name!r} must end after it begins, got {from_s!r} to {to_s!r}")
    inside = [from_s <= due < to_s for due in columns.due_s]
    counts = Counter(compress(columns.outcomes, inside))
    del counts[CANCELLED]
    left = counts.pop(LEFT, 0)
    refusals = Counter(compress(columns.refusals, inside))
    ok = [code == OK for code in columns.outcomes]
    ok = list(map(and_, inside, ok))
    due_s, end_s = array("d", compress(columns.due_s, ok)), array("d", compress(columns.end_s, ok))
    # An answer whose first token went unseen showed its caller nothing before its end.
    first_s = [end if first < 0 else first for first, end in zip(compress(columns.first_s, ok), end_s, strict=True)]
    offered, answered = counts.total(), len(due_s)
    failed = offered - answered
    return Window(
        name=name,
        from_s=from_s,
        to_s=to_s,
        offered=offered,
        ok=answered,
        good=sum(compress(good_ones, inside)),
        left=left,
        refused=refusals[HINTED] + refusals[UNHINTED],
        unhinted=refusals[UNHINTED],
        outcomes=MappingProxyType({OUTCOMES[code]: count for code, count in counts.items()}),
        ttft_s=Quantiles("ttft_s", map(sub, first_s, due_s), failed),
        e2e_s=Quantiles("e2e_s", map(sub, end_s, due_s), failed),
        max_gap_s=Quantiles("max_gap_s", compress(columns.max_gap_s, ok), failed),
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
    """When the first request was due that its caller gave up because the load ended; infinite if there is none.

    Whether it would have been answered, nobody knows: it may have hung.
    """
    columns = columns_of(samples)
    rows = zip(columns.due_s, columns.outcomes, strict=True)
    return min((due for due, code in rows if code == CANCELLED), default=math.inf)
