"""Lanes of a trial's timeline as SVG: load, latency, failures, in flight."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from pytest_llmchaos.evidence.trial_result import SloVerdict
from pytest_llmchaos.report import svg
from pytest_llmchaos.report.binning import KINDS, Curves
from pytest_llmchaos.report.formatting import figure, percent

WIDTH, LEFT, RIGHT = 1040, 52, 12
HEAD = 27  # pixels above a lane for its name
LANES = {"load": 66, "latency": 104, "failures": 60, "inflight": 44}
LOG_LOW_S, LOG_HIGH_S = 0.1, 1.0  # the latency scale shows at least this decade


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Layout: the time axis, the top of each lane, the bin edges in pixels."""

    x: svg.Scale
    tops: dict[str, float]
    bottom: float
    edges: list[float]

    def floor(self, lane: str) -> float:
        return self.tops[lane] + LANES[lane]


def _head(frame: Frame, lane: str, title: str, keys: Sequence[tuple[str, str]] = ()) -> str:
    """Draw the lane's name on the left, its colour keys on the right, and its floor."""
    y = frame.tops[lane] - 7
    drawn = [svg.text(LEFT, y, title, "lane")]
    drawn.append(svg.keys(WIDTH - RIGHT, y, keys))
    drawn.append(svg.line(LEFT, frame.floor(lane), WIDTH - RIGHT, frame.floor(lane), "floor"))
    return "".join(drawn)


def _grid(frame: Frame, lane: str, high: float, most: int = 2) -> tuple[svg.Scale, str]:
    """Return a linear scale for the lane and its drawn grid."""
    scale = svg.Scale(low=0.0, high=high, start=frame.floor(lane), end=frame.tops[lane])
    drawn = []
    for tick in svg.ticks(high, most):
        y = scale(tick)
        drawn.append(svg.text(LEFT - 7, y + 4, figure(tick), "tick"))
        if tick:
            drawn.append(svg.line(LEFT, y, WIDTH - RIGHT, y, "grid"))
    return scale, "".join(drawn)


def load(curves: Curves, frame: Frame) -> str:
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


def latency(curves: Curves, frame: Frame) -> str:
    """Draw quantiles on a logarithmic scale.

    A bar at the top marks a p95 without a value, because too many requests failed.
    """
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
        keys.append(("lost", "p95 without a value"))
    return keys


def failures(curves: Curves, frame: Frame, slos: Sequence[SloVerdict]) -> str:
    """Draw failures by kind, and the running total with the budget it spent."""
    kinds = [kind for kind in KINDS if any(curves.bad[kind])]
    totals = curves.per_second([sum(counts) for counts in zip(*curves.bad.values(), strict=True)])
    scale, grid = _grid(frame, "failures", max(totals, default=0) * 1.08 or 1)
    words = {"failed": "failed", "wrong": "cut short or wrong", "shed": "rejected (429)"}
    so_far = list(accumulate(sum(counts) for counts in zip(*curves.bad.values(), strict=True)))
    keys = [(f"bad-{kind}", words[kind]) for kind in kinds]
    keys += [("sofar", f"total: {so_far[-1]:,}{_budget(slos)}")] if kinds else []
    drawn = [_head(frame, "failures", "failures per second", keys)]
    if not kinds:
        drawn.append(svg.text(LEFT + 8, frame.floor("failures") - 8, "none", "none"))
        return "".join(drawn)
    drawn.append(grid)
    below = [0.0] * len(totals)
    for kind in kinds:
        above = [low + rate for low, rate in zip(below, curves.per_second(curves.bad[kind]), strict=True)]
        drawn.append(svg.steps([scale(n) for n in above], [scale(n) for n in below], frame.edges, f"bad-{kind}"))
        below = above
    height = svg.Scale(low=0.0, high=so_far[-1], start=frame.floor("failures"), end=frame.tops["failures"])
    points = zip(frame.edges, [height(total) for total in [0, *so_far]], strict=True)
    drawn.append(svg.path(points, "line sofar"))
    return "".join(drawn)


def _budget(slos: Sequence[SloVerdict]) -> str:
    """Return the share of the month's budget spent by the availability SLO."""
    spent = next((slo.budget_spent for slo in slos if slo.name == "availability"), None)
    return "" if spent is None else f", {percent(spent)} of the month's budget"


def inflight(curves: Curves, frame: Frame) -> str:
    scale, grid = _grid(frame, "inflight", max(curves.inflight, default=0) * 1.08 or 1)
    floor = [frame.floor("inflight")] * len(curves.inflight)
    return (
        _head(frame, "inflight", "in flight, most at once")
        + grid
        + svg.steps([scale(n) for n in curves.inflight], floor, frame.edges, "inflight")
    )
