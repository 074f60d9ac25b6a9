"""Samples to numbers: counts, shares and quantiles per window, and when a service was good again. Pure: no clock, no I/O.

A failed request counts as slower than every answer (right-censored): an outage can make no quantile look better.
A request that the end of the run cut off (`cancelled`) counts nowhere.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from pytest_llmchaos.errors import BadScenario, TooFewSamples
from pytest_llmchaos.model import Outcome, Sample
from pytest_llmchaos.quantiles import HINT, Quantiles


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What callers call good: an ok answer inside both bounds, counted from the due time."""

    ttft_s: float = 2.0
    e2e_s: float = 10.0

    def __post_init__(self) -> None:
        for name, value in (("ttft_s", self.ttft_s), ("e2e_s", self.e2e_s)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:  # type: ignore[redundant-expr]
                raise BadScenario(f"Limits: {name} must be a number of seconds above 0, got {value!r}: try {name}=2")

    def good(self, sample: Sample) -> bool:
        return good(sample, self)


DEFAULT_LIMITS = Limits()


def good(sample: Sample, limits: Limits = DEFAULT_LIMITS) -> bool:
    """Whether the caller got a whole answer inside every bound."""
    if sample.outcome != "ok" or sample.end_s - sample.due_s > limits.e2e_s:
        return False
    return (sample.end_s if sample.first_s is None else sample.first_s) - sample.due_s <= limits.ttft_s


@dataclass(frozen=True, kw_only=True)
class Window:
    """What callers saw of the requests that were due from `from_s` up to `to_s`. `good` met every latency bound."""

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
    def goodput(self) -> float:
        """Share of *offered* requests that were good: a failed one lowers it."""
        return self._share("goodput", self.good)

    @property
    def goodput_rps(self) -> float:
        self._share("goodput_rps", self.good)
        return self.good / self.seconds

    @property
    def offered_rps(self) -> float:
        return self.offered / self.seconds

    def _share(self, what: str, part: int) -> float:
        if not self.offered:
            raise TooFewSamples(f"{what} needs 1 request, got 0 in {self!r}: {HINT}")
        return part / self.offered


class _Counting:
    """One window while samples stream past."""

    def __init__(self, name: str, from_s: float, to_s: float) -> None:
        if not from_s <= to_s:
            raise BadScenario(f"window {name!r} must end after it begins, got {from_s!r} to {to_s!r}")
        self.name, self.from_s, self.to_s = name, from_s, to_s
        self.ok = self.good = 0
        self.outcomes: dict[Outcome, int] = {}
        self.ttft_s, self.e2e_s, self.max_gap_s = array("d"), array("d"), array("d")

    def add(self, sample: Sample, is_good: bool) -> None:
        outcome = sample.outcome
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        if outcome != "ok":
            return
        self.ok += 1
        self.good += is_good
        self.e2e_s.append(sample.end_s - sample.due_s)
        self.max_gap_s.append(sample.max_gap_s)
        # An answer whose first token went unseen showed its caller nothing before its end.
        first_s = sample.end_s if sample.first_s is None else sample.first_s
        self.ttft_s.append(first_s - sample.due_s)

    def window(self) -> Window:
        offered = sum(self.outcomes.values())
        failed = offered - self.ok
        return Window(
            name=self.name,
            from_s=self.from_s,
            to_s=self.to_s,
            offered=offered,
            ok=self.ok,
            good=self.good,
            outcomes=MappingProxyType(self.outcomes),
            ttft_s=Quantiles("ttft_s", self.ttft_s, failed),
            e2e_s=Quantiles("e2e_s", self.e2e_s, failed),
            max_gap_s=Quantiles("max_gap_s", self.max_gap_s, failed),
        )


def windows(
    samples: Iterable[Sample], bounds: Sequence[tuple[str, float, float]], limits: Limits = DEFAULT_LIMITS
) -> tuple[Window, ...]:
    """One window per (name, from_s, to_s), by due time, in one pass. Windows may overlap; the end is not inside."""
    counting = [_Counting(*bound) for bound in bounds]
    for sample in samples:
        if sample.outcome == "cancelled":
            continue
        due_s = sample.due_s
        is_good = good(sample, limits)
        for one in counting:
            if one.from_s <= due_s < one.to_s:
                one.add(sample, is_good)
    return tuple(one.window() for one in counting)


def first_bad_s(
    samples: Iterable[Sample], from_s: float, limits: Limits = DEFAULT_LIMITS, until_s: float = math.inf
) -> float | None:
    """When the first request was due, from `from_s` to `until_s`, that did not get a good answer."""
    return min(
        (s.due_s for s in samples if from_s <= s.due_s <= until_s and s.outcome != "cancelled" and not good(s, limits)),
        default=None,
    )


def first_sustained_good_s(
    samples: Iterable[Sample],
    from_s: float,
    stable_s: float,
    limits: Limits = DEFAULT_LIMITS,
    until_s: float = math.inf,
) -> float | None:
    """When the service was good for good: the due time of the first good request, at or after `from_s`, that is followed by
    `stable_s` seconds with at least one more request and none that was bad. Those seconds must end by `until_s`.

    While a load still runs, `until_s` is the due time of its oldest unanswered request: nothing later is known to be good.
    """
    seen = sorted(
        (s.due_s, good(s, limits)) for s in samples if from_s <= s.due_s <= until_s and s.outcome != "cancelled"
    )
    bad_s = [due_s for due_s, is_good in seen if not is_good]
    next_bad = 0
    for i, (due_s, is_good) in enumerate(seen):
        end_s = due_s + stable_s
        if end_s > until_s:
            return None
        if not is_good:
            continue
        while next_bad < len(bad_s) and bad_s[next_bad] < due_s:
            next_bad += 1
        another = i + 1 < len(seen) and seen[i + 1][0] <= end_s
        if another and (next_bad == len(bad_s) or bad_s[next_bad] > end_s):
            return due_s
    return None


@dataclass(frozen=True, kw_only=True)
class Second:
    """One second of a chart, by due time. Its quantiles are of few requests: they draw a line, and prove nothing."""

    at_s: int
    offered: int
    ok: int
    failed: Mapping[Outcome, int]
    ttft_p50_s: float | None
    ttft_p95_s: float | None
    e2e_p95_s: float | None
    inflight: int


def per_second(samples: Iterable[Sample]) -> tuple[Second, ...]:
    """Every second from 0 to the last request's. `inflight` counts requests without an answer when the second begins."""
    counting: dict[int, _Counting] = {}
    begun: Counter[int] = Counter()
    for sample in samples:
        if sample.outcome == "cancelled":
            continue
        at_s = math.floor(sample.due_s)
        if at_s not in counting:
            counting[at_s] = _Counting("second", at_s, at_s + 1)
        counting[at_s].add(sample, is_good=False)
        begun[math.ceil(sample.due_s)] += 1
        begun[math.ceil(sample.end_s)] -= 1
    rows: list[Second] = []
    inflight = 0
    for at_s in range(max(counting, default=-1) + 1):
        inflight += begun[at_s]
        window = counting.get(at_s, _Counting("second", at_s, at_s + 1)).window()
        rows.append(
            Second(
                at_s=at_s,
                offered=window.offered,
                ok=window.ok,
                failed={outcome: count for outcome, count in window.outcomes.items() if outcome != "ok"},
                ttft_p50_s=window.ttft_s.nearest(0.50),
                ttft_p95_s=window.ttft_s.nearest(0.95),
                e2e_p95_s=window.e2e_s.nearest(0.95),
                inflight=inflight,
            )
        )
    return tuple(rows)
