"""Effects of one arm of an experiment against another, with 95 % intervals.

An effect is the first arm minus the second. Its interval treats requests as
independent, so it shows how well this pair of trials was measured. Requests of one
outage are not independent: `--chaos-repeat` shows how pairs vary. Requests of unknown
end widen the interval by both of their possible ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NoReturn

from pytest_llmchaos.errors import BadScenario, Inconclusive
from pytest_llmchaos.stats.bounded import BoundedFloat, NoClaim, Scale
from pytest_llmchaos.stats.intervals import Estimate, contrast, ratio, share
from pytest_llmchaos.stats.quantiles import Quantiles
from pytest_llmchaos.stats.windows import Window


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Side:
    """One arm's part of an effect.

    Attributes:
        arm: Name of the arm.
        estimate: Its value and 95 % interval.
        requests: Requests that the value is about.
    """

    arm: str
    estimate: Estimate
    requests: int


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Effect(NoClaim):
    """A value of the first arm minus that of the second, with its 95 % interval.

    Claims bound the end of the interval that noise would break: `.low` for "at least",
    `.high` for "at most". Two effects are never compared.

    Attributes:
        measure: The value and its window, such as "during_fault.availability".
        value: The difference, or for a ratio the quotient.
        low: Lower end of the interval.
        high: Upper end of the interval.
        first: Value of the first arm.
        second: Value of the second arm.
        arms: Names of both arms.
        requests: Number of requests in each arm.
        is_ratio: True for a ratio.
        pair: The values that it is made from.
    """

    how_to_claim: ClassVar[str] = "such as .low >= 0.05 or .high <= 0"

    measure: str
    value: float
    low: float
    high: float
    first: float
    second: float
    arms: tuple[str, str]
    requests: tuple[int, int]
    is_ratio: bool
    pair: Pair

    def __repr__(self) -> str:
        name, signed = self.measure.rpartition("fault.")[2].removeprefix("whole."), "" if self.is_ratio else "+"
        value, low, high = (f"{float(one):{signed}.3g}" for one in (self.value, self.low, self.high))
        return (
            f"<{name} {f' {self._sign} '.join(self.arms)}: {value} (95 % {low} to {high}), {float(self.first):.3g} against "
            f"{float(self.second):.3g}, {self.requests[0]} and {self.requests[1]} requests>"
        )

    @property
    def _sign(self) -> str:
        return "/" if self.is_ratio else "-"

    @property
    def ratio(self) -> Effect:
        """The first arm's value divided by the second's, with its 95 % interval.

        `ratio.high <= 0.5` claims that the value is at least halved.

        Raises:
            Inconclusive: Both values are 0, or both infinite.
            BadScenario: It is a ratio already.
        """
        if self.is_ratio:
            raise BadScenario(f"{self!r} is a ratio already: drop the second .ratio")
        return self.pair.ratio()

    def _refuse(self, _other: object) -> NoReturn:
        raise BadScenario(f"{self!r} has an interval: compare its .low or .high, {self.how_to_claim}")

    __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __eq__ = __ne__ = _refuse
    __hash__ = object.__hash__


Note = Callable[[Effect], None]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Pair:
    """One value of two arms.

    Attributes:
        measure: The value and its window.
        first: The first arm's part.
        second: The second arm's part.
        most: The most that the value could be, infinite without a limit.
        note: Called with each effect that a claim reads.
    """

    measure: str
    first: Side
    second: Side
    most: float
    note: Note

    def difference(self) -> Effect:
        """Return the first arm minus the second.

        Raises:
            Inconclusive: Both values are infinite.
        """
        return self._effect("-", contrast(self.first.estimate, self.second.estimate), -self.most, self.most)

    def ratio(self) -> Effect:
        """Return the first arm divided by the second.

        Raises:
            Inconclusive: Both values are 0, or both infinite.
        """
        return self._effect("/", ratio(self.first.estimate, self.second.estimate), 0.0, math.inf)

    def _effect(self, sign: str, found: Estimate | None, least: float, most: float) -> Effect:
        first, second = self.first, self.second
        what = f"{self.measure} {first.arm} {sign} {second.arm}"
        if found is None:
            raise Inconclusive(
                f"{what} is unknown, because both arms have {first.estimate.value:g}: compare another value, such as "
                "availability, or claim it of each arm"
            )
        scale = Scale(
            what=what,
            least=least,
            most=most,
            at_least=f"{first.arm!r} had the least and {second.arm!r} the most",
            at_most=f"{first.arm!r} had the most and {second.arm!r} the least",
            advice=f"bound it above {least:g} and below {most:g}",
        )
        value, low, high = (BoundedFloat(end, scale) for end in (found.value, found.low, found.high))
        made = Effect(
            measure=self.measure,
            value=value,
            low=low,
            high=high,
            first=first.estimate.value,
            second=second.estimate.value,
            arms=(first.arm, second.arm),
            requests=(first.requests, second.requests),
            is_ratio=sign == "/",
            pair=self,
        )
        self.note(made)
        return made


class QuantileEffects(NoClaim):
    """Effects on the quantiles of one latency, in seconds.

    A failed request is slower than every answer, in both arms.
    """

    how_to_claim: ClassVar[str] = "such as .p95.high <= 0.005 or .p99.ratio.high <= 0.5"

    def __init__(self, measure: str, first: Quantiles, second: Quantiles, arms: tuple[str, str], note: Note) -> None:
        self._measure, self._first, self._second = measure, first, second
        self._arms, self._note = arms, note

    def __repr__(self) -> str:
        return f"<{self._measure} {' - '.join(self._arms)}>"

    def at(self, q: float) -> Effect:
        """Return the effect on a quantile, in seconds.

        Args:
            q: Share of the requests, above 0, below 1. p99 is 0.99.

        Raises:
            BadScenario: `q` is outside its bounds.
            TooFewSamples: An arm has too few requests for the interval.
            Inconclusive: So many requests of both arms failed that both values are
                infinite.
        """
        first, second = (
            Side(arm=arm, estimate=of.estimate(q), requests=of.count)
            for arm, of in zip(self._arms, (self._first, self._second), strict=True)
        )
        measure = f"{self._measure}.p{100 * q:g}"
        return Pair(measure=measure, first=first, second=second, most=math.inf, note=self._note).difference()

    @property
    def p50(self) -> Effect:
        """Effect on the median in seconds. Needs 6 requests in each arm."""
        return self.at(0.50)

    @property
    def p95(self) -> Effect:
        """Effect on the 95th percentile in seconds. Needs 72 requests in each arm."""
        return self.at(0.95)

    @property
    def p99(self) -> Effect:
        """Effect on the 99th percentile in seconds. Needs 368 requests in each arm."""
        return self.at(0.99)


class WindowEffects(NoClaim):
    """Effects on what clients saw in one part of both trials: first arm minus second.

    Args:
        name: Name of the part, such as "during_fault".
        first: The part of the first arm.
        second: The part of the second arm.
        arms: Names of both arms.
        note: Called with each effect that a claim reads.
    """

    how_to_claim: ClassVar[str] = "such as .availability.low >= 0.05"

    def __init__(
        self, name: str, first: Window, second: Window, arms: tuple[str, str], note: Note = lambda _: None
    ) -> None:
        self._name, self._first, self._second = name, first, second
        self._arms, self._note = arms, note

    def __repr__(self) -> str:
        return f"<{self._name} {' - '.join(self._arms)}: {self._first.offered} and {self._second.offered} requests>"

    @property
    def availability(self) -> Effect:
        """Effect on the share of the requests with a complete, correct answer, -1 to 1.

        Raises:
            TooFewSamples: An arm had no request.
        """
        return self._share("availability", lambda window: window.ok)

    @property
    def failed_ratio(self) -> Effect:
        """Effect on the share of the requests without such an answer, -1 to 1.

        `failed_ratio.ratio.high <= 0.5` claims that failures are at least halved.

        Raises:
            TooFewSamples: An arm had no request.
        """
        return self._share("failed_ratio", lambda window: window.failed)

    @property
    def goodput_ratio(self) -> Effect:
        """Effect on the share of the requests that met every latency bound, -1 to 1.

        Raises:
            TooFewSamples: An arm had no request.
        """
        return self._share("goodput_ratio", lambda window: window.good)

    @property
    def goodput_rps(self) -> Effect:
        """Effect on the good answers per second.

        The interval is that of the share. The offered rate is known.

        Raises:
            TooFewSamples: An arm had no request, or its window has no length.
        """
        return self._share("goodput_rps", lambda window: window.good, lambda window: window.offered_rps)

    @property
    def ttft_s(self) -> QuantileEffects:
        """Effects on the seconds to the first token."""
        return self._quantiles("ttft_s", self._first.ttft_s, self._second.ttft_s)

    @property
    def e2e_s(self) -> QuantileEffects:
        """Effects on the seconds to the whole answer."""
        return self._quantiles("e2e_s", self._first.e2e_s, self._second.e2e_s)

    @property
    def max_gap_s(self) -> QuantileEffects:
        """Effects on the longest seconds between two tokens of an answer."""
        return self._quantiles("max_gap_s", self._first.max_gap_s, self._second.max_gap_s)

    def _quantiles(self, name: str, first: Quantiles, second: Quantiles) -> QuantileEffects:
        return QuantileEffects(f"{self._name}.{name}", first, second, self._arms, self._note)

    def _share(
        self, name: str, hits: Callable[[Window], float], whole: Callable[[Window], float] = lambda _: 1.0
    ) -> Effect:
        windows = (self._first, self._second)
        first, second = (
            Side(arm=arm, estimate=_share_of(window, int(hits(window)), whole(window)), requests=window.offered)
            for arm, window in zip(self._arms, windows, strict=True)
        )
        most = max(map(whole, windows))
        return Pair(measure=f"{self._name}.{name}", first=first, second=second, most=most, note=self._note).difference()


def _share_of(window: Window, hits: int, whole: float) -> Estimate:
    """Return a share of a window's requests, times `whole`.

    Requests of unknown end are no hits for the lower end, and hits for the upper one.

    Raises:
        TooFewSamples: There was no request.
    """
    window.availability  # noqa: B018 - raises without a request
    every = window.offered + window.unknown
    return Estimate(
        value=hits / window.offered * whole,
        low=share(hits, every).low * whole,
        high=share(hits + window.unknown, every).high * whole,
    )
