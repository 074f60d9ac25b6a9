"""Numbers with the least and the most that their window could have shown.

A claim compares such a number with a bound. A comparison with the same result whatever
happened to the window's requests is no evidence, so it raises.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from typing import ClassVar, NoReturn, Self

from pytest_llmchaos.errors import BadScenario, BetweenEdges, Inconclusive, OpenRequests, TooFewSamples, VacuousClaim

Compare = Callable[[float, float], bool]
_SIGNS: dict[Compare, str] = {operator.lt: "<", operator.le: "<=", operator.gt: ">", operator.ge: ">="}


# Types that a claim may compare with a number of a window. A Decimal on the left
# compares itself.
NUMBERS = (int, float, Decimal, Fraction)


class NoClaim:
    """A value that is no claim by itself.

    `assert trial.slo("availability")`, without `.met`, would always pass, so it raises.

    Attributes:
        how_to_claim: An assertion that can fail.
    """

    __slots__ = ()
    how_to_claim: ClassVar[str]

    def __bool__(self) -> NoReturn:
        raise BadScenario(f"{self!r} is neither true nor false: write an assertion that can fail, {self.how_to_claim}")


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The range of one value in a window.

    Attributes:
        what: The value and its window, as messages name them.
        least: The smallest value that the window could have shown.
        most: The largest one.
        at_least: What would have given `least`, such as "none of the 160 requests had
            failed".
        at_most: What would have given `most`.
        advice: What to do instead.
        events: Events that a share rests on, None for other values. One event moves a
            share by (most - least) / events. A bound nearer to the end than that step
            can be broken by the window and cannot be held by it.
        of: Events that a count is a part of, None for other values. Divided by that
            number, it is a share that rests on so many events.
        coarse: Why a histogram bounds the value only, and what to do. Empty if it is
            exact.
        undecided: Why the value may still change, and what to do. Empty if open
            requests are the reason.
    """

    what: str
    least: float
    most: float
    at_least: str
    at_most: str
    advice: str
    events: float | None = None
    of: float | None = None
    coarse: str = ""
    undecided: str = ""

    def needed(self, distance: float) -> float:
        """Return the events that a bound needs that is `distance` from the scale's end.

        Infinite for a distance next to 0.
        """
        steps = round((self.most - self.least) / distance, 6)
        return math.ceil(steps) if math.isfinite(steps) else steps


class BoundedFloat(float):
    """A float of a window whose comparisons raise where they prove nothing.

    Values derived from it by plain numbers and rounding do too: `100 * budget_spent`
    has the same ends, times 100. Arithmetic with another number of a window gives a
    plain float.

    Attributes:
        scale: Its range.
        low: The least value, over the possible ends of unknown requests and the edges
            of a coarse histogram.
        high: The largest value, over the same.
        is_derived: True if arithmetic made it.
        is_distance: True if `abs` made it.
    """

    scale: Scale
    low: float
    high: float
    is_derived: bool = False
    is_distance: bool = False

    def __new__(cls, value: float, scale: Scale, *, low: float | None = None, high: float | None = None) -> Self:
        made = super().__new__(cls, value)
        made.scale = scale
        made.low = float(value if low is None else low)
        made.high = float(value if high is None else high)
        return made

    def __reduce__(self) -> tuple[type[float], tuple[float]]:
        """Return a plain number as the copy."""
        return float, (float(self),)

    def __add__(self, other: float, /) -> float:
        return self._derived(float.__add__, other, "{} + {:g}")

    def __radd__(self, other: float, /) -> float:
        return self._derived(float.__radd__, other, "{} + {:g}")

    def __sub__(self, other: float, /) -> float:
        return self._derived(float.__sub__, other, "{} - {:g}")

    def __rsub__(self, other: float, /) -> float:
        return self._derived(float.__rsub__, other, "{1:g} - {0}")

    def __mul__(self, other: float, /) -> float:
        return self._derived(float.__mul__, other, "{} * {:g}")

    def __rmul__(self, other: float, /) -> float:
        return self._derived(float.__rmul__, other, "{} * {:g}")

    def __truediv__(self, other: float, /) -> float:
        return self._derived(float.__truediv__, other, "{} / {:g}")

    def __neg__(self) -> float:
        return self._changed(operator.neg, f"-({self.scale.what})")

    def __abs__(self) -> float:
        """Return the distance from 0, which `pytest.approx` uses.

        Nearer than one event moves the number is `==` in other words, which needs no
        number of events. A part of it is plain: `pytest.approx(window.availability,
        rel=0.1)` makes a tolerance of it.
        """
        crosses = self.scale.least < 0 < self.scale.most
        least = (0.0, f"{self.scale.what} had been 0") if crosses else None
        return self._changed(abs, f"|{self.scale.what}|", least)

    def __round__(self, digits: int | None = None, /) -> float:  # type: ignore[override] # a whole number with ends
        return self._changed(lambda value: float(round(value, digits or 0)), f"{self.scale.what}, rounded")

    def _derived(self, operate: Callable[[float, float], float], other: object, how: str) -> float:
        """Return the result of an operation with a plain number."""
        if not isinstance(other, int | float):
            return NotImplemented  # type: ignore[no-any-return] # Python then raises its own TypeError
        number = float(other)
        if self.is_distance or isinstance(other, BoundedFloat):
            return operate(float(self), number)
        made = self._changed(lambda value: operate(value, number), how.format(self.scale.what, number))
        if operate is float.__truediv__ and number == self.scale.of and isinstance(made, BoundedFloat):
            made.scale = replace(made.scale, most=1.0, events=number)
        return made

    def _changed(self, change: Callable[[float], float], what: str, end: tuple[float, str] | None = None) -> float:
        """Return the number and its ends after a change that keeps or reverses order.

        The result is plain if the change loses an end. `end` is one more value that it
        could have, and the reason, for a change that does neither.
        """
        scale, value = self.scale, change(float(self))
        ends = [(change(float(scale.least)), scale.at_least), (change(float(scale.most)), scale.at_most)]
        (least, at_least), *_, (most, at_most) = sorted([*ends, *([end] if end else [])])
        if math.isnan(least) or math.isnan(most):
            return value
        events = None if change is abs else scale.events
        changed = Scale(
            what=what,
            least=least,
            most=most,
            at_least=at_least,
            at_most=at_most,
            advice=scale.advice,
            events=events,
            coarse=scale.coarse,
            undecided=scale.undecided,
        )
        low, high = sorted((change(self.low), change(self.high)))
        if end and self.low < 0 < self.high:
            low = end[0]
        made = BoundedFloat(value, changed, low=low, high=high)
        made.is_derived, made.is_distance = True, change is abs
        return made

    def __lt__(self, other: float, /) -> bool:
        return self._compare(operator.lt, other)

    def __le__(self, other: float, /) -> bool:
        return self._compare(operator.le, other)

    def __gt__(self, other: float, /) -> bool:
        return self._compare(operator.gt, other)

    def __ge__(self, other: float, /) -> bool:
        return self._compare(operator.ge, other)

    def __eq__(self, other: object, /) -> bool:
        if not isinstance(other, NUMBERS):
            return NotImplemented
        other = float(other)
        self._require_two_ends(f"== {other:g}")
        self._require_known(f"== {other:g}", self.low == self.high or not self.low <= other <= self.high)
        return float(self) == other

    def __ne__(self, other: object, /) -> bool:
        if not isinstance(other, NUMBERS):
            return NotImplemented
        return not self == other

    def __bool__(self) -> bool:
        raise BadScenario(
            f"{self.scale.what} is a number, neither true nor false: compare it with a bound, such as <= {float(self):.3g}"
        )

    __hash__ = float.__hash__

    def _compare(self, compare: Compare, other: object) -> bool:
        if not isinstance(other, NUMBERS):
            return NotImplemented  # type: ignore[no-any-return] # Python then raises its own TypeError
        bound = float(other)
        # A part of another number of the window is a plain bound: 95 % of no answers is
        # 0, which all exceed.
        least = most = low = high = bound
        if isinstance(other, BoundedFloat) and not other.is_derived:
            least, most, low, high = other.scale.least, other.scale.most, other.low, other.high
        claim = f"{_SIGNS[compare]} {bound:.12g}"
        is_upper = compare in {operator.lt, operator.le}
        scale = self.scale
        worst, best = (scale.most, scale.least) if is_upper else (scale.least, scale.most)
        hardest, easiest = (least, most) if is_upper else (most, least)
        if compare(worst, hardest):
            self._raise_vacuous(claim, "cannot fail", at_most=is_upper, bound=bound)
        if not compare(best, easiest):
            self._raise_vacuous(claim, "cannot hold", at_most=not is_upper, bound=bound)
        held = compare(float(self), bound)
        ends = (compare(self.low, high), compare(self.high, low))
        self._require_known(claim, all(end == held for end in ends))
        distance = bound - scale.least if is_upper else scale.most - bound
        if held and distance > 0 and scale.events is not None and scale.events < scale.needed(distance):
            raise TooFewSamples(
                f"{scale.what} {claim} needs {scale.needed(distance)} events to hold, got {scale.events:g}: one bad event of "
                f"so few would break it, so it was not shown to hold; offer load for longer, raise "
                "rate_rps, or bound the bad ones by number"
            )
        return held

    def _raise_vacuous(self, claim: str, fate: str, *, at_most: bool, bound: float = 0.0) -> None:
        scale = self.scale
        is_percent = scale.events is not None and scale.most == 1 and 2 <= bound <= 100
        unit = f"{bound:g} % is {bound / 100:g}; " if is_percent else ""
        if_so, value = (scale.at_most, scale.most) if at_most else (scale.at_least, scale.least)
        raise VacuousClaim(
            f"{scale.what} {claim} {fate}: even if {if_so}, it would be {value:.3g}; {unit}{scale.advice}"
        )

    def _require_two_ends(self, claim: str) -> None:
        if self.scale.least == self.scale.most:
            self._raise_vacuous(claim, "proves nothing", at_most=True)

    def _require_known(self, claim: str, is_known: bool) -> None:
        if not is_known and self.scale.coarse:
            raise BetweenEdges(
                f"{self.scale.what} {claim} is not decided: it lies between {self.low:.6g} and {self.high:.6g}, because "
                f"{self.scale.coarse}"
            )
        if not is_known and self.scale.undecided:
            raise OpenRequests(
                f"{self.scale.what} {claim} is not decided: it lies between {self.low:.6g} and {self.high:.6g}, because "
                f"{self.scale.undecided}"
            )
        if not is_known:
            raise OpenRequests(
                f"{self.scale.what} {claim} depends on requests that were still open when the load ended, or that all clients "
                f"of their second left: by their end it lies between {self.low:.6g} and {self.high:.6g}; lower the latency "
                "targets, offer load for longer, or let some clients stay (impatient_ratio=0.5)"
            )


class BoundedCount(BoundedFloat):
    """A whole number of requests.

    It prints and indexes as an int. `not window.failed` means that it is 0.
    """

    def __repr__(self) -> str:
        return repr(int(self))

    __str__ = __repr__

    def __index__(self) -> int:
        return int(self)

    def __bool__(self) -> bool:
        return self != 0

    def __format__(self, spec: str, /) -> str:
        return format(int(self), spec)


class Seconds(float):
    """A time that is at most this long.

    Attributes:
        resolution_s: Seconds by which it may have been shorter.
        blind: Reason why it may have been any shorter time, or None. A comparison whose
            result such a time would change raises it.
    """

    resolution_s: float
    blind: Inconclusive | None

    def __new__(cls, value: float, resolution_s: float = 0.0, blind: Inconclusive | None = None) -> Self:
        made = super().__new__(cls, value)
        made.resolution_s = resolution_s
        made.blind = blind
        return made

    def __lt__(self, other: float, /) -> bool:
        return self._compare(operator.lt, other)

    def __le__(self, other: float, /) -> bool:
        return self._compare(operator.le, other)

    def __gt__(self, other: float, /) -> bool:
        return self._compare(operator.gt, other)

    def __ge__(self, other: float, /) -> bool:
        return self._compare(operator.ge, other)

    def __eq__(self, other: object, /) -> bool:
        if not isinstance(other, NUMBERS):
            return NotImplemented
        most, other = float(self), float(other)
        if self.blind is not None and most > 0 and 0 <= other <= most:
            raise self.blind
        return most == other

    def __ne__(self, other: object, /) -> bool:
        if not isinstance(other, NUMBERS):
            return NotImplemented
        return not self == other

    __hash__ = float.__hash__

    def _compare(self, compare: Compare, other: object) -> bool:
        if not isinstance(other, NUMBERS):
            return NotImplemented  # type: ignore[no-any-return] # Python then raises its own TypeError
        held = compare(float(self), float(other))
        if self.blind is not None and compare(0.0, float(other)) != held:
            raise self.blind
        return held

    def __repr__(self) -> str:
        return f"{float(self):g} (seen to {self.resolution_s:g} s)" if self.resolution_s else f"{float(self):g}"

    def __bool__(self) -> NoReturn:
        raise BadScenario(f"{float(self):g} s is a time, neither true nor false: compare it with a bound, such as <= 5")
