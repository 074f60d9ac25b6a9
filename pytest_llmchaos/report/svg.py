"""SVG elements: scales, ticks, paths, escaped text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from pytest_llmchaos.report.formatting import one_line


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Maps `low..high` to pixels `start..end`, linear or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = (math.log10(self.low), math.log10(self.high)) if self.log else (self.low, self.high)
        here = math.log10(max(value, self.low)) if self.log else value
        share = (here - low) / (high - low) if high > low else 0.0
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)


def ticks(high: float, most: int, factors: Sequence[float] = (1, 2, 4, 5, 10, 20)) -> list[float]:
    """Return round values from 0 to `high`, in the finest step with at most `most`."""
    if high <= 0 or not math.isfinite(high):
        return [0.0]
    power = 10.0 ** math.floor(math.log10(high / most))
    step = next(power * factor for factor in factors if int(high / (power * factor) + 1e-9) <= most)
    return [step * i for i in range(int(high / step + 1e-9) + 1)]


def decades(low: float, high: float) -> list[float]:
    """Return round values of a logarithmic scale between two positive bounds.

    1, 2 and 5 of each decade if there is room, else only 1.
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if high / low < 300 else (1,)
    return [value for power in powers for factor in factors if low * 0.999 <= (value := factor * 10.0**power) <= high]


def text(x: float, y: float, words: object, css: str = "", anchor: str = "") -> str:
    """Return a text element with escaped words."""
    attributes = f' class="{css}"' if css else ""
    attributes += f' text-anchor="{anchor}"' if anchor else ""
    return f'<text x="{x:.0f}" y="{y:.0f}"{attributes}>{escape(one_line(words))}</text>'


def keys(right: float, y: float, entries: Sequence[tuple[str, str]]) -> str:
    """Return a colour key as one right-aligned text, independent of font widths."""
    spans = "\u2003".join(f'<tspan class="{css} swatch">■</tspan> {escape(label)}' for css, label in entries)
    return f'<text x="{right:.0f}" y="{y:.0f}" class="key" text-anchor="end">{spans}</text>' if entries else ""


def rect(x: float, y: float, to_x: float, to_y: float, css: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(0.0, to_x - x):.1f}" height="{max(0.0, to_y - y):.1f}" class="{css}"/>'


def line(x: float, y: float, to_x: float, to_y: float, css: str) -> str:
    return f'<path d="M{x:.1f} {y:.1f}L{to_x:.1f} {to_y:.1f}" class="{css}"/>'


def path(points: Iterable[tuple[float, float] | None], css: str) -> str:
    """Return a line through the points in whole pixels.

    None breaks the line. A single point becomes a dot.
    """
    data: list[str] = []
    pen = False
    last = (0, 0)
    for point in points:
        if point is None:
            if pen and data[-1].startswith("M"):
                data.append("h0")
            pen = False
            continue
        here = (round(point[0]), round(point[1]))
        data.append(f"l{here[0] - last[0]} {here[1] - last[1]}" if pen else f"M{here[0]} {here[1]}")
        pen, last = True, here
    if pen and data[-1].startswith("M"):
        data.append("h0")
    return f'<path d="{"".join(data).replace(" -", "-")}" class="{css}"/>' if data else ""


def steps(tops: Sequence[float], floors: Sequence[float], xs: Sequence[float], css: str) -> str:
    """Return bars from floor to top, with neighbours of one floor as one outline."""
    data: list[str] = []
    low: int | None = None  # floor of the open outline
    high = 0
    for i, (top, floor) in enumerate(zip(tops, floors, strict=True)):
        here, ground = min(round(top), round(floor) - 1), round(floor)
        x = round(xs[i])
        if floor - top < 0.05 or ground != low:
            if low is not None:
                data.append(f"H{x}V{low}z")
            low = None
            if floor - top < 0.05:
                continue
            data.append(f"M{x} {ground}V{here}")
            low, high = ground, here
        elif here != high:
            data.append(f"H{x}V{here}")
            high = here
    if low is not None:
        data.append(f"H{round(xs[-1])}V{low}z")
    return f'<path d="{"".join(data)}" class="{css}"/>' if data else ""


def stairs(ys: Sequence[float], xs: Sequence[float], css: str) -> str:
    """Return a stepped line at height ys[i] between xs[i] and xs[i+1]."""
    data = [f"M{xs[0]:.0f} {ys[0]:.0f}"]
    for i, y in enumerate(ys):
        if i and round(y) != round(ys[i - 1]):
            data.append(f"V{y:.0f}")
        if i + 1 == len(ys) or round(ys[i + 1]) != round(y):
            data.append(f"H{xs[i + 1]:.0f}")
    return f'<path d="{"".join(data)}" class="{css}"/>'


def dots(points: Iterable[tuple[float, float]], css: str) -> str:
    """Return dots as one path of zero-length strokes with round caps, 6 bytes each."""
    data: list[str] = []
    last = (0, 0)
    for point in points:
        here = (round(point[0]), round(point[1]))
        data.append(f"m{here[0] - last[0]} {here[1] - last[1]}h0".replace(" -", "-"))
        last = here
    return f'<path d="M0 0{"".join(data)}" class="{css}"/>' if data else ""
