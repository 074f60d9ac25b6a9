"""Rows of a server's table: a metric, and what a value is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lab_engine.engine import Engine, Gauges
    from lab_engine.scheduler import Scheduler
    from lab_engine.stats import Stats
    from lab_engine.work import Limits

    Value = Callable[["Now"], float]
    Bounds = tuple[float, ...]


class Now:
    """Values that one scrape reads."""

    __slots__ = ("gauges", "scheduler")

    def __init__(self, engine: Engine) -> None:
        self.gauges: Gauges = engine.gauges()
        self.scheduler: Scheduler = engine.scheduler

    @property
    def stats(self) -> Stats:
        return self.scheduler.stats

    @property
    def limits(self) -> Limits:
        return self.scheduler.limits

    @property
    def done(self) -> int:
        """Requests that ended with a whole answer."""
        return self.stats.finished["stop"] + self.stats.finished["length"]

    def finished(self, reason: str) -> int:
        return self.stats.finished[reason]


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """One series of a row, with the labels that distinguish it."""

    value: Value
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A gauge or counter.

    Attributes:
        name: on the wire. A counter's `_total` is part of it, if it has one.
        text: its help.
        kind: gauge or counter.
        series: its series.
        labels: labels instead of the table's, from the limits of the engine.
        late: a series appears when it is first counted, a gauge with the first step.
    """

    name: str
    text: str
    kind: Literal["gauge", "counter"]
    series: tuple[Series, ...]
    labels: Callable[[Limits], dict[str, str]] | None = None
    late: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class HistogramRow:
    """A histogram of the engine's counts.

    Attributes:
        name: on the wire, without a suffix.
        text: its help.
        of: name of the histogram in `Stats`, in base units.
        bounds: in the unit on the wire. A function of the longest context, or fixed.
        scale: multiply a base unit with it for the unit on the wire.
        labels: labels in addition to the table's.
        late: it appears with the first value.
    """

    name: str
    text: str
    of: str
    bounds: Bounds | Callable[[int], Bounds]
    scale: float = 1.0
    labels: Mapping[str, str] = field(default_factory=dict)
    late: bool = False

    def bounds_for(self, limits: Limits) -> Bounds:
        return self.bounds(limits.max_model_tokens) if callable(self.bounds) else self.bounds


@dataclass(frozen=True, kw_only=True, slots=True)
class Names:
    """The names of one server.

    Attributes:
        labels: labels of all series, from the model's name.
        rows: in the order of the page.
        path: path of the page, where it is not `/metrics`. It has both then.
    """

    labels: Callable[[str], dict[str, str]]
    rows: tuple[Row | HistogramRow, ...]
    path: str = "/metrics"

    def bounds(self, limits: Limits) -> dict[str, Bounds]:
        """Bounds of the histograms in `Stats`, in base units."""
        return {
            row.of: tuple(bound / row.scale for bound in row.bounds_for(limits))
            for row in self.rows
            if isinstance(row, HistogramRow)
        }


def gauge(name: str, text: str, value: Value, *, late: bool = False, **labels: str) -> Row:
    return Row(name=name, text=text, kind="gauge", series=(Series(value=value, labels=labels),), late=late)


def counter(name: str, text: str, value: Value, *, late: bool = False, **labels: str) -> Row:
    return Row(name=name, text=text, kind="counter", series=(Series(value=value, labels=labels),), late=late)


def one_two_five(limit: int) -> Bounds:
    """1, 2, 5, 10, 20, 50 … up to and including the last one not above `limit`."""
    return tuple(digit * 10**power for power in range(12) for digit in (1, 2, 5) if digit * 10**power <= limit)
