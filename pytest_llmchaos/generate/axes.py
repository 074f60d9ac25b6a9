"""Scales, axes, bands and legends of the pictures: where a value lands on the paper, and how it is written."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_llmchaos.generate.boards.panels import Panel

COLOURS = ("#3274d9", "#e0752d", "#3f9c35", "#c4162a", "#8f3bb8", "#b8860b", "#0f8a8a", "#d6459b", "#6b7280", "#7a5230")
GOOD, BAD = "#2f8f3e", "#c4162a"
_OVER = f"fill:{BAD};paint-order:stroke;stroke:#fff;stroke-width:3px"  # readable over whatever is drawn there
_BAND_COLOURS = {"steady": "#e8f3ea", "fault": "#fbe9e7", "recovery": "#e7eefb"}
Box = tuple[float, float, float, float]  # left, top, width, height
Span = tuple[float, float]  # Unix seconds
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One series: its name in the legend, and (Unix seconds, value) points."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True)
class Band:
    """A span of time behind the lines: a phase, or a fault."""

    label: str
    from_unix_s: float
    to_unix_s: float
    fault: bool


def x_of(at_unix_s: float, span: Span, plot: Box) -> float:
    return plot[0] + (at_unix_s - span[0]) / (span[1] - span[0]) * plot[2]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """From values to heights; `log` for what spans milliseconds to minutes. Ticks are round numbers of `unit`."""

    low: float
    high: float
    log: bool = False
    unit: float = 1.0

    def y_of(self, value: float, plot: Box) -> float:
        low, high, at = (self._bent(v) for v in (self.low, self.high, min(max(value, self.low), self.high)))
        return plot[1] + plot[3] * (1 - (at - low) / (high - low))

    def ticks(self) -> list[float]:
        if not self.log:
            step = self.unit * _round_step((self.high - self.low) / 4 / self.unit)
            first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
            return [number * step for number in range(first, last + 1)]
        first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
        return [10.0**power for power in range(first, last + 1)]

    def _bent(self, value: float) -> float:
        return math.log10(value) if self.log else value


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 2.5, 5 times a power of ten that is not below."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(times * power for times in (1, 2, 2.5, 5, 10) if times * power >= least * (1 - 1e-9))


def scale_of(panel: Panel, values: Sequence[float], marks: Sequence[float]) -> Scale:
    """Room for all the values, and for a limit that is not far above them."""
    if panel.log:
        positive = [value for value in values if value > 0] or [0.1]
        return Scale(low=10 ** math.floor(math.log10(min(positive))), high=max(positive) * 1.5, log=True)
    most = max(values, default=0.0)
    near = [mark for mark in marks if mark < 3 * most]
    low = min(values, default=0.0) if panel.lowest is None else panel.lowest
    if panel.bad_below is not None:
        low = min(*values, panel.bad_below) * 0.98
    high = (panel.highest or max([most, *near])) * 1.06 or 1.0
    limit, divisor, _ = _UNITS.get(panel.unit, _UNITS["short"])[2]
    return Scale(low=low, high=high, unit=divisor if high >= limit else 1.0)


def runs(points: Points, span: Span, *, split_at_change: bool = False) -> list[list[tuple[float, float]]]:
    """Unbroken stretches: a gap of more than two steps stays a gap, and what is no number is one."""
    step_s = max(1.0, (span[1] - span[0]) / 300)
    found: list[list[tuple[float, float]]] = []
    for t, v in points:
        if not math.isfinite(v):
            continue
        joins = found and t - found[-1][-1][0] <= 2.5 * step_s and not (split_at_change and v != found[-1][-1][1])
        if joins:
            found[-1].append((t, v))
        else:
            found.append([(t, v)])
    return found


def stacked(answers: Sequence[Answer]) -> list[Points]:
    """Each series on top of those before it."""
    below: dict[float, float] = {}
    found: list[Points] = []
    for answer in answers:
        points = [(t, v + below.get(t, 0.0)) for t, v in answer.points if math.isfinite(v)]
        below |= dict(points)
        found.append(points)
    return found


def phases(spans: Sequence[Band], span: Span, plot: Box) -> str:
    """Pale bands behind everything."""
    parts = []
    for band in (band for band in spans if not band.fault):
        left, right = _edges(band, span, plot)
        colour = _BAND_COLOURS.get(band.label, "#eef1f4")
        parts.append(
            f'<rect x="{left:.1f}" y="{plot[1]:.1f}" width="{right - left:.1f}" height="{plot[3]:.1f}" fill="{colour}"/>'
        )
    return "".join(parts)


def faults(spans: Sequence[Band], span: Span, plot: Box, *, named: bool = True) -> str:
    """In front of everything: a stripe over the time that each was in place, a line where it began, and its name."""
    parts = []
    for band in (band for band in spans if band.fault):
        left, right = _edges(band, span, plot)
        parts.append(
            f'<rect x="{left:.1f}" y="{plot[1] - 4:.1f}" width="{right - left:.1f}" height="4" fill="{BAD}"/>'
            f'<line x1="{left:.1f}" x2="{left:.1f}" y1="{plot[1]:.1f}" y2="{plot[1] + plot[3]:.1f}" stroke="{BAD}"/>'
        )
        if named:
            label = (
                f'<text class="f" x="{left + 4:.1f}" y="{plot[1] + 10:.1f}" style="{_OVER}">{escape(band.label)}</text>'
            )
            parts.append(label)
    return "".join(parts)


def _edges(band: Band, span: Span, plot: Box) -> tuple[float, float]:
    left, right = (x_of(min(max(t, span[0]), span[1]), span, plot) for t in (band.from_unix_s, band.to_unix_s))
    return left, right


def time_axis(span: Span, plot: Box) -> str:
    """Seconds from the left edge, and the clock's time there."""
    seconds = span[1] - span[0]
    step = next(s for s in (5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 86_400) if seconds / s <= 8 or s == 86_400)
    floor = plot[1] + plot[3]
    parts = [f'<line x1="{plot[0]}" x2="{plot[0] + plot[2]}" y1="{floor}" y2="{floor}" stroke="#9aa5b1"/>']
    for second in range(0, int(seconds) + 1, step):
        x = x_of(span[0] + second, span, plot)
        if second and x - plot[0] < 66:
            continue  # the clock's time stands there
        word = time.strftime("%H:%M:%S", time.gmtime(span[0])) if second == 0 else f"+{second} s"
        anchor = "start" if second == 0 else "middle"
        parts.append(f'<text class="f" x="{x:.1f}" y="{floor + 12:.1f}" text-anchor="{anchor}">{word}</text>')
    return "".join(parts)


def value_axis(panel: Panel, scale: Scale, plot: Box) -> str:
    parts = []
    for value in scale.ticks():
        y = scale.y_of(value, plot)
        parts.append(
            f'<line x1="{plot[0]}" x2="{plot[0] + plot[2]}" y1="{y:.1f}" y2="{y:.1f}" stroke="#dfe3e8"/>'
            f'<text class="f" x="{plot[0] - 6}" y="{y + 3:.1f}" text-anchor="end">{shown(value, panel.unit)}</text>'
        )
    return "".join(parts)


def cut(text: str, width: float, per_letter: float) -> str:
    """The text, or as much of it as fits, escaped."""
    letters = int(width / per_letter)
    return escape(text if len(text) <= letters else text[: max(1, letters - 1)] + "\N{HORIZONTAL ELLIPSIS}")


def legend_height(answers: Sequence[Answer], width: float) -> float:
    return 15.0 * len(_legend_lines(answers, width)) + 4


def legend(answers: Sequence[Answer], plot: Box, inner: Box) -> str:
    parts = []
    y = plot[1] + plot[3] + 28
    for line in _legend_lines(answers, inner[2]):
        x = inner[0] + 4
        for number, name in line:
            colour = COLOURS[number % len(COLOURS)]
            parts.append(
                f'<rect x="{x:.0f}" y="{y - 8:.0f}" width="10" height="8" fill="{colour}"/>'
                f'<text class="f" x="{x + 14:.0f}" y="{y:.0f}">{escape(name)}</text>'
            )
            x += 26 + 5.8 * len(name)
        y += 15
    return "".join(parts)


def _legend_lines(answers: Sequence[Answer], width: float) -> list[list[tuple[int, str]]]:
    lines: list[list[tuple[int, str]]] = [[]]
    used = 0.0
    for number, answer in enumerate(answers):
        wide = 26 + 5.8 * len(answer.name)
        if lines[-1] and used + wide > width:
            lines.append([])
            used = 0.0
        lines[-1].append((number, answer.name))
        used += wide
    return lines


# unit -> what one of it is called, and from how many on the next larger one reads better: (limit, divisor, name)
_UNITS: dict[str, tuple[float, str, tuple[float, float, str]]] = {
    "percentunit": (100, " %", (math.inf, 1, "")),
    "percent": (1, " %", (math.inf, 1, "")),
    "s": (1, " s", (math.inf, 1, "")),
    "reqps": (1, "/s", (math.inf, 1, "")),
    "mbytes": (1, " MiB", (1024, 1024, " GiB")),
    "celsius": (1, " \N{DEGREE SIGN}C", (math.inf, 1, "")),
    "watt": (1, " W", (math.inf, 1, "")),
    "short": (1, "", (10_000, 1000, " k")),
}


def shown(value: float, unit: str) -> str:
    """A value with its unit, as short as it can be read."""
    if not math.isfinite(value):
        return "never" if value > 0 else "no data"
    if unit == "s" and 0 < abs(value) < 1:
        return f"{1000 * value:.3g} ms"
    if unit == "percentunit" and abs(value) >= 0.01:
        return f"{100 * value:.2f}".rstrip("0").rstrip(".") + " %"
    times, name, (limit, divisor, larger) = _UNITS.get(unit, _UNITS["short"])
    return f"{value / divisor:.3g}{larger}" if abs(value) >= limit else f"{value * times:.3g}{name}"


def edge(name: str) -> str:
    """A bucket's upper edge; the last one is where requests are that never ended."""
    return "never" if name == "+Inf" else shown(float(name), "s")


def is_bad(panel: Panel, value: float) -> bool:
    beyond = panel.bad_from is not None and value >= panel.bad_from
    return beyond or (panel.bad_below is not None and value < panel.bad_below)
