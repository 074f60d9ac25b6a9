"""One trial on one clock as inline SVG, complete without JavaScript: load, latency, failures, in flight, phases, marks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from pytest_llmchaos.report import svg
from pytest_llmchaos.report.curves import KINDS, Curves
from pytest_llmchaos.report.moments import Mark, marks
from pytest_llmchaos.report.words import figure, number, one_line, seconds

WIDTH, LEFT, RIGHT = 1040, 52, 12
STRIP, ROW, HEAD = 20, 15, 27  # phase strip, one row of mark labels, the space above a lane for its name
LANES = {"load": 66, "latency": 104, "failures": 56, "inflight": 44}
CHAR = 6.1  # pixels that one character takes at the label's size, rounded up
LOG_LOW_S, LOG_HIGH_S = 0.1, 1.0  # the latency scale shows at least this decade


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Where things go: the time axis, the top of each lane, the bin edges in pixels."""

    x: svg.Scale
    tops: dict[str, float]
    bottom: float
    edges: list[float]

    def floor(self, lane: str) -> float:
        return self.tops[lane] + LANES[lane]


def timeline(trial: Mapping[str, Any], curves: Curves, watermark: str = "") -> Markup:
    """The timeline of one trial, as long as its curves. The text alternative tells the story in one sentence."""
    until_s = curves.until_s
    seen = [mark for mark in marks(trial) if 0 <= mark.at_s <= until_s * 1.001]
    x = svg.Scale(low=0.0, high=max(until_s, 1e-3), start=LEFT, end=WIDTH - RIGHT)
    labels, rows = _labels([mark for mark in seen if mark.key], x)
    y = float(STRIP + rows * ROW + 10)
    tops = {}
    for lane, height in LANES.items():
        y += HEAD
        tops[lane] = y
        y += height
    frame = Frame(x=x, tops=tops, bottom=y, edges=[x(edge_s) for edge_s in curves.edges_s])
    parts = [
        _phases(trial["phases"], frame, until_s),
        svg.text((LEFT + WIDTH) / 2, tops["latency"] + 70, watermark, "watermark", "middle") if watermark else "",
        _load(curves, frame),
        _latency(curves, frame),
        _failures(curves, frame),
        _inflight(curves, frame),
        _axis(frame, until_s),
        _marks(seen, frame, rows),
        *labels,
    ]
    return Markup(  # noqa: S704  every piece of foreign text in it went through svg.text, which escapes
        f'<svg viewBox="0 0 {WIDTH} {y + 36:.0f}" role="img" aria-label="{Markup.escape(told(trial))}">{"".join(parts)}</svg>'
    )


def told(trial: Mapping[str, Any]) -> str:
    """What the picture shows, for those who cannot see it."""
    parts = [f"Timeline of {one_line(trial['scenario'], 80)}, fault {one_line(trial['fault'], 80)}"]
    parts += [mark.label for mark in marks(trial) if mark.key]
    return "; ".join(parts) + "."


def sparkline(curves: Curves) -> Markup:
    """Answered in full against failed over the trial, as small as a word."""
    xs = [i * 150 / len(curves.offered) for i in range(len(curves.offered) + 1)]
    most = max(curves.offered, default=0) or 1
    good = [26 - 24 * ok / most for ok in curves.ok]
    all_ = [26 - 24 * offered / most for offered in curves.offered]
    drawn = svg.steps(all_, good, xs, "bad-failed") + svg.steps(good, [26.0] * len(good), xs, "ok")
    return Markup(f'<svg viewBox="0 0 150 26" class="spark" aria-hidden="true">{drawn}</svg>')  # noqa: S704  numbers only


def strip(values_s: Sequence[float]) -> Markup:
    """Every value as a dot on a scale from 0, the mean as a bar: the spread at a glance."""
    x = svg.Scale(low=0.0, high=max(*values_s, 1e-3) * 1.05, start=6, end=164)
    drawn = svg.line(6, 16, 164, 16, "floor") + "".join(
        f'<circle cx="{x(value):.1f}" cy="16" r="4"/>' for value in values_s
    )
    mean = x(sum(values_s) / len(values_s))
    drawn += svg.line(mean, 8, mean, 22, "mean")
    return Markup(f'<svg viewBox="0 0 170 22" class="strip" aria-hidden="true">{drawn}</svg>')  # noqa: S704  numbers only


def _phases(phases: Sequence[Mapping[str, Any]], frame: Frame, until_s: float) -> str:
    drawn = []
    for phase in phases:
        from_s, to_s = number(phase.get("from_s")), number(phase.get("to_s"))
        if from_s is None:
            continue
        a, b = frame.x(from_s), frame.x(until_s if to_s is None else to_s)
        name = str(phase.get("name"))
        css = name if name in {"steady", "fault", "recovery"} else "other"
        if css == "fault":
            drawn.append(svg.rect(a, STRIP, b, frame.bottom, "band"))
        drawn.append(svg.rect(a, 0, b, STRIP - 3, f"phase {css}"))
        label = f"{one_line(name, 20)} {seconds((until_s if to_s is None else to_s) - from_s)}"
        if len(label) * CHAR > b - a - 8:
            label = one_line(name, 20)
        if len(label) * CHAR <= b - a - 8:
            drawn.append(svg.text(a + 6, 13, label, "phase-name"))
    return "".join(drawn)


def _head(frame: Frame, lane: str, title: str, keys: Sequence[tuple[str, str]] = ()) -> str:
    """The lane's name at its left, its colour keys at its right, its floor line."""
    y = frame.tops[lane] - 7
    drawn = [svg.text(LEFT, y, title, "lane")]
    drawn.append(svg.keys(WIDTH - RIGHT, y, keys))
    drawn.append(svg.line(LEFT, frame.floor(lane), WIDTH - RIGHT, frame.floor(lane), "floor"))
    return "".join(drawn)


def _grid(frame: Frame, lane: str, high: float, most: int = 2) -> tuple[svg.Scale, str]:
    """A linear scale for the lane, with its lines and numbers."""
    scale = svg.Scale(low=0.0, high=high, start=frame.floor(lane), end=frame.tops[lane])
    drawn = []
    for tick in svg.ticks(high, most):
        y = scale(tick)
        drawn.append(svg.text(LEFT - 7, y + 4, figure(tick), "tick"))
        if tick:
            drawn.append(svg.line(LEFT, y, WIDTH - RIGHT, y, "grid"))
    return scale, "".join(drawn)


def _load(curves: Curves, frame: Frame) -> str:
    offered = curves.per_second(curves.offered)
    scale, grid = _grid(frame, "load", max(offered, default=0) * 1.08 or 1)
    floor = [frame.floor("load")] * len(offered)
    good = [scale(rate) for rate in curves.per_second(curves.ok)]
    return (
        _head(frame, "load", "requests per second", [("offered", "offered"), ("ok", "answered in full")])
        + grid
        + svg.steps(good, floor, frame.edges, "ok")
        + svg.stairs([scale(n) for n in offered], frame.edges, "offered")
    )


def _latency(curves: Curves, frame: Frame) -> str:
    """Logarithmic. Where a quantile has no value because too many requests failed, a bar at the top says so."""
    rows = (("e2e95", curves.e2e_p95_s), ("ttft95", curves.ttft_p95_s), ("ttft50", curves.ttft_p50_s))
    finite = [value for _, row in rows for value in row if value is not None and value < math.inf]
    finite += [ttft_s for _, ttft_s in curves.dots]
    least = min((value for value in finite if value > 0), default=LOG_LOW_S)
    low = max(min(LOG_LOW_S, 10 ** math.floor(math.log10(least))), 1e-4)
    high = max([LOG_HIGH_S, *(value * 1.3 for value in finite)])
    top, floor = frame.tops["latency"] + 7, frame.floor("latency")
    scale = svg.Scale(low=low, high=high, start=floor, end=top, log=True)
    drawn = [_head(frame, "latency", "latency, seconds (log)", _latency_keys(curves))]
    for value in svg.decades(low, high):
        y = scale(value)
        drawn.append(svg.line(LEFT, y, WIDTH - RIGHT, y, "grid"))
        drawn.append(svg.text(LEFT - 7, y + 4, figure(value), "tick"))
    middles = [(a + b) / 2 for a, b in zip(frame.edges, frame.edges[1:], strict=False)]
    lost = [frame.tops["latency"] if value == math.inf else top - 2 for value in curves.ttft_p95_s]
    drawn.append(svg.steps(lost, [top - 2] * len(lost), frame.edges, "lost"))
    drawn.append(svg.dots(((frame.x(due_s), scale(ttft_s)) for due_s, ttft_s in curves.dots), "dots"))
    for css, row in rows:
        points = (
            (middle, scale(value)) if value is not None and value < math.inf else None
            for middle, value in zip(middles, row, strict=True)
        )
        drawn.append(svg.path(points, f"line {css}"))
    return "".join(drawn)


def _latency_keys(curves: Curves) -> list[tuple[str, str]]:
    keys = [("ttft50", "first token p50"), ("ttft95", "p95"), ("e2e95", "whole answer p95")]
    if math.inf in curves.ttft_p95_s:
        keys.append(("lost", "p95 never came"))
    return keys


def _failures(curves: Curves, frame: Frame) -> str:
    kinds = [kind for kind in KINDS if any(curves.bad[kind])]
    totals = curves.per_second([sum(counts) for counts in zip(*curves.bad.values(), strict=True)])
    scale, grid = _grid(frame, "failures", max(totals, default=0) * 1.08 or 1)
    words = {"failed": "failed", "wrong": "cut short or wrong", "shed": "refused politely (429)"}
    drawn = [_head(frame, "failures", "failures per second", [(f"bad-{kind}", words[kind]) for kind in kinds])]
    if not kinds:
        drawn.append(svg.text(LEFT + 8, frame.floor("failures") - 8, "none", "none"))
        return "".join(drawn)
    drawn.append(grid)
    below = [0.0] * len(totals)
    for kind in kinds:
        above = [low + rate for low, rate in zip(below, curves.per_second(curves.bad[kind]), strict=True)]
        drawn.append(svg.steps([scale(n) for n in above], [scale(n) for n in below], frame.edges, f"bad-{kind}"))
        below = above
    return "".join(drawn)


def _inflight(curves: Curves, frame: Frame) -> str:
    scale, grid = _grid(frame, "inflight", max(curves.inflight, default=0) * 1.08 or 1)
    floor = [frame.floor("inflight")] * len(curves.inflight)
    return (
        _head(frame, "inflight", "in flight, most at once")
        + grid
        + svg.steps([scale(n) for n in curves.inflight], floor, frame.edges, "inflight")
    )


def _axis(frame: Frame, until_s: float) -> str:
    drawn = []
    for tick in svg.ticks(until_s, 12, (1, 2, 5, 10, 20)):
        x = frame.x(tick)
        drawn += [
            svg.line(x, frame.bottom, x, frame.bottom + 4, "floor"),
            svg.text(x, frame.bottom + 17, figure(tick), "time"),
        ]
    drawn.append(svg.text(WIDTH - RIGHT, frame.bottom + 32, "seconds since the load began", "tick"))
    return "".join(drawn)


def _marks(seen: Sequence[Mark], frame: Frame, rows: int) -> str:
    """Key moments cut through every lane; other events are ticks on a line of their own, with a title to hover."""
    y = STRIP + rows * ROW + 6
    drawn = []
    for mark in seen:
        x = frame.x(mark.at_s)
        if mark.key:
            drawn.append(svg.line(x, STRIP, x, frame.bottom, f"mark m-{mark.css}"))
        else:
            title = Markup.escape(f"{seconds(mark.at_s)} {mark.label}")
            drawn.append(
                f'<circle cx="{x:.1f}" cy="{y}" r="3.5" class="event e-{mark.css}"><title>{title}</title></circle>'
            )
    return "".join(drawn)


def _labels(keys: Sequence[Mark], x: svg.Scale) -> tuple[list[str], int]:
    """Labels in as few rows as they need so that none covers another, each beside its line."""
    ends: list[float] = []
    drawn = []
    for mark in keys:
        width = len(mark.label) * CHAR + 10
        at_x = x(mark.at_s)
        left = at_x + 5 if at_x + 5 + width <= WIDTH else at_x - 5 - width
        row = next((i for i, end in enumerate(ends) if end <= left), len(ends))
        ends[row : row + 1] = [left + width]
        drawn.append(svg.text(left, STRIP + 11 + row * ROW, mark.label, f"label t-{mark.css}"))
    return drawn, len(ends)
