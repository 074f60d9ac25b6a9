"""Counts, shares and quantiles of a load's requests per window.

A failed request counts as slower than every answer (right-censored), so an outage
cannot improve a quantile. A request that was open when the load ended and could still
have become good (`cancelled`) is unknown. One whose client left early (`left`) counts
nowhere. It is unknown if it saw no token at a time at which no other client stayed:
only a waiting client could have seen whether the service was slow or hung.
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
    """Bounds of a good answer: complete and inside both, from the due time.

    Attributes:
        ttft_s: Most seconds to the first token, above 0.
        e2e_s: Most seconds to the whole answer, above 0.

    Raises:
        BadScenario: A bound is not a number above 0.
    """

    ttft_s: float = 2.0
    e2e_s: float = 10.0

    def __post_init__(self) -> None:
        """Check both bounds.

        Raises:
            BadScenario: A bound is not a number above 0.
        """
        for name, value in (("ttft_s", self.ttft_s), ("e2e_s", self.e2e_s)):
            number = isinstance(value, int | float) and not isinstance(value, bool)  # type: ignore[redundant-expr]
            if not number or not (0 < value <= sys.float_info.max or value == math.inf):
                raise BadScenario(
                    f"LatencyTargets: {name} must be a number of seconds above 0, got {value!r}: try {name}=2"
                )


DEFAULT_TARGETS = LatencyTargets()
ENDS = Known("outcome", OUTCOMES)
# A client that stayed stands for those due within this time that left.
SPEAKS_WITHIN_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Window(NoClaim):
    """Requests of a part of a load, as clients saw them.

    Unknown requests are in no share, count or quantile. A comparison that depends on
    them raises `OpenRequests`. A comparison whose result the window cannot change
    raises `VacuousClaim`.

    Attributes:
        name: Name of the part.
        from_s: Start in seconds since the load's start, by due time.
        to_s: End in seconds since the load's start, by due time.
        offered: Requests whose end is known, without `left`.
        ok: Requests with a complete, correct answer.
        good: Those that met every latency bound.
        outcomes: Requests by outcome.
        ttft_s: Seconds to the first token, as quantiles.
        e2e_s: Seconds to the whole answer, as quantiles.
        max_gap_s: Longest seconds between two tokens of an answer, as quantiles.
        left: Requests that impatient clients left while they could still become good.
        refused: Requests answered with 429 or 503.
        unhinted: Refused requests without a valid Retry-After.
        unknown: Requests that were open when the load ended and younger than their
            limits, or were left without a token while no other client stayed.
        could_offer: Requests that could have been due in the window at its longest. A
            window that ends with the recovery is short if the service was quick.
        hint: Advice that gives the window more requests.
        is_live: True while the window runs and can become any other. Its counts have no
            maximum, and its shares need no number of requests.
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
        """Length in seconds."""
        return self.to_s - self.from_s

    @property
    def failed(self) -> float:
        """Offered requests without a complete, correct answer."""
        return self._count("failed", self.offered - int(self.ok), "failed")

    @property
    def availability(self) -> float:
        """Share of the offered requests with a complete, correct answer, 0 to 1.

        Raises:
            TooFewSamples: There was no request.
        """
        return self._share("availability", self.ok)

    @property
    def goodput_ratio(self) -> float:
        """Share of the offered requests that were good, 0 to 1. A failed one lowers it.

        Raises:
            TooFewSamples: There was no request.
        """
        return self._share("goodput_ratio", self.good)

    @property
    def goodput_rps(self) -> float:
        """Good answers per second.

        Raises:
            TooFewSamples: There was no request, or the window has no length.
        """
        return self._share("goodput_rps", self.good, rate_rps=self._rate("goodput_rps", self.offered))

    @property
    def offered_rps(self) -> float:
        """Offered requests per second.

        Raises:
            TooFewSamples: The window has no length.
        """
        return self._rate("offered_rps", self.offered)

    @property
    def without_retry_after(self) -> float:
        """Requests refused with 429 or 503 without a valid Retry-After.

        Raises:
            TooFewSamples: No request was refused.
        """
        if not int(self.refused):
            raise TooFewSamples(
                f"without_retry_after needs 1 answer with 429 or 503, got 0 in {self!r}: offer more than the service takes"
            )
        return self._count("without_retry_after", self.unhinted, "been refused without Retry-After")

    def count_of(self, outcome: Outcome) -> float:
        """Return the number of requests with an outcome.

        Args:
            outcome: Name of the outcome, such as `cut`.

        Raises:
            BadScenario: There is no such outcome.
        """
        return self.outcomes[outcome]

    def _rate(self, what: str, count: int) -> float:
        if not 0 < self.seconds < math.inf:
            raise TooFewSamples(f"{what} needs a window that has a length, got {self!r}")
        return count / self.seconds

    def _count(self, what: str, value: float, ended: str, *, is_known: bool = False) -> float:
        """Return a count of requests.

        `is_known`: it has no request of unknown end and is not part of the offered
        ones.
        """
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
        """Return `part` of the offered requests as a share, 0 to 1, or as a rate."""
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
    """A part of a trial.

    Attributes:
        name: Name of the part.
        from_s: Start in seconds since the load's start.
        to_s: End in seconds since the load's start.
        hint: Advice that gives it more requests.
        could_offer: Requests that it could have at its longest.
        is_live: True while it runs.
    """

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
    """Return one window per (name, from_s, to_s), by due time.

    Windows may overlap. The end is not inside.
    """
    return parts(samples, [Part(*bound, is_live=is_live) for bound in bounds], limits)


def parts(
    samples: Iterable[Sample], wanted: Iterable[Part], limits: LatencyTargets = DEFAULT_TARGETS
) -> tuple[Window, ...]:
    """Return one window per part, by due time."""
    columns = columns_of(samples)
    judged = _judged(columns, limits)
    made = []
    for part in wanted:
        inside = [part.from_s <= due < part.to_s for due in columns.due_s]
        made.append(_window(judged, inside, part))
    return tuple(made)


def around(
    samples: Iterable[Sample], before: Part, during: Part, after: Part, limits: LatencyTargets = DEFAULT_TARGETS
) -> tuple[Window, Window, Window]:
    """Return three consecutive windows, each request in one of them.

    A request that was due before `during` begins and had not ended by then was in
    flight when the fault struck. It belongs to `during`. Any other belongs where it was
    due.
    """
    columns = columns_of(samples)
    judged = _judged(columns, limits)
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
    """The samples, which were good, and which were left silently and alone.

    `has_tokens` is False for tasks of an agent.
    """

    columns: Columns
    good: list[bool]
    mute: list[bool]
    has_tokens: bool


def _judged(columns: Columns, limits: LatencyTargets) -> _Judged:
    has_tokens = limits.ttft_s < math.inf or any(first >= 0 for first in columns.first_s)
    return _Judged(columns=columns, good=_good(columns, limits), mute=_mute(columns), has_tokens=has_tokens)


def _mute(columns: Columns) -> list[bool]:
    """Return for each sample if its client left without a token and alone.

    Alone: no other request due within a second of it stayed to the end.
    """
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
    """Return for each sample if its client got a whole answer inside both bounds."""
    ttft_s, e2e_s = limits.ttft_s, limits.e2e_s
    rows = zip(columns.outcomes, columns.due_s, columns.first_s, columns.end_s, strict=True)
    return [
        code == OK and end - due <= e2e_s and (end if first < 0 else first) - due <= ttft_s
        for code, due, first, end in rows
    ]


def _window(judged: _Judged, inside: list[bool], part: Part) -> Window:
    """Return the window of the samples that are `inside`."""
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
    # An answer whose first token was not seen counts as received at its end.
    first_s = [end if first < 0 else first for first, end in zip(compress(columns.first_s, ok), end_s, strict=True)]
    offered, answered = counts.total(), len(due_s)

    def quantiles(what: str, values: Iterable[float], *, exists: bool = judged.has_tokens) -> Quantiles:
        failed = offered - answered
        return Quantiles(what, values, failed, unknown=unknown, where=part.name, hint=part.hint, exists=exists)

    return Window(
        name=part.name,
        from_s=part.from_s,
        to_s=part.to_s,
        offered=offered,
        ok=answered,
        good=sum(compress(judged.good, inside)),
        outcomes={OUTCOMES[code]: count for code, count in counts.items()},
        ttft_s=quantiles("ttft_s", map(sub, first_s, due_s)),
        e2e_s=quantiles("e2e_s", map(sub, end_s, due_s), exists=True),
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
    """Return due time and goodness of the requests due from `from_s` to `until_s`."""
    columns = columns_of(samples)
    rows = zip(columns.due_s, _good(columns, limits), columns.outcomes, strict=True)
    return ((due, is_good) for due, is_good, code in rows if from_s <= due <= until_s and code not in (CANCELLED, LEFT))


def unserved_s(samples: Iterable[Sample]) -> tuple[float, ...]:
    """Return the starts of the whole seconds with due requests and no ok answer."""
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
    """Return the due time of the first request cut off by the end of the load.

    Infinite if there is no such request. It may have hung.
    """
    columns = columns_of(samples)
    rows = zip(columns.due_s, columns.outcomes, strict=True)
    return min((due for due, code in rows if code == CANCELLED), default=math.inf)
