"""Drawings of a comparison of scaling policies, as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from pytest_llmchaos.report import svg
from pytest_llmchaos.report.formatting import figure, percent
from pytest_llmchaos.report.frontier import Cell, Frontier, Moment, Point

WIDTH, HEIGHT = 500, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 14, 40
RADIUS = 9
COURSE_WIDTH, COURSE_HEIGHT, COURSE_LEFT, COURSE_FOOT = 320, 96, 26, 16
LOAD_BINS = 60


def scatter(frontier: Frontier, fault: str) -> Markup:
    """Draw the policies under one fault: ratio within targets over replica-hours.

    Each point is a policy's mean, with lines from the least to the largest run. Points
    of the frontier are connected.
    """
    points = frontier.by_fault(fault)
    x, y = _hours(frontier), _ratio(frontier)
    drawn = [_axes(x, y, frontier.objective)]
    edge = sorted((point for point in points if point.is_frontier), key=lambda point: point.replica_h)
    drawn.append(svg.path([(x(point.replica_h), y(point.attained)) for point in edge], "line edge"))
    # The best are drawn last, so that they cover others.
    in_order = sorted(points, key=lambda point: (point.keeps, point.is_frontier))
    drawn += [_point(point, frontier.policies.index(point.policy) + 1, x, y) for point in in_order]
    about = Markup.escape(f"Policies under {fault}: ratio of requests within their targets over replica-hours")
    return Markup(  # noqa: S704 - words are escaped, the rest are numbers
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{about}">{"".join(drawn)}</svg>'
    )


def course(cell: Cell, most: int, until_s: float) -> Markup:
    """Draw the fleet of one run over time.

    Args:
        cell: The run.
        most: Replicas at the top of the scale.
        until_s: Seconds at the end of the scale.
    """
    x = svg.Scale(low=0.0, high=until_s, start=COURSE_LEFT, end=COURSE_WIDTH - 4)
    floor = COURSE_HEIGHT - COURSE_FOOT
    y = svg.Scale(low=0.0, high=max(1, most), start=floor, end=6)
    fleet = cell.trajectory or (Moment(at_s=0.0, desired=0, ready=0, cold=0, draining=0, waiting=0),)
    xs = [x(moment.at_s) for moment in fleet] + [x(until_s)]
    ready = [y(moment.ready) for moment in fleet]
    busy = [y(moment.ready + moment.draining) for moment in fleet]
    all_ = [y(moment.ready + moment.draining + moment.cold) for moment in fleet]
    drawn = [
        _course_axes(y, x, most),
        svg.steps(ready, [float(floor)] * len(ready), xs, "ok"),
        svg.steps(busy, ready, xs, "draining"),
        svg.steps(all_, busy, xs, "cold"),
        svg.stairs([y(moment.desired) for moment in fleet], xs, "offered"),
    ]
    about = Markup.escape(f"Replicas of {cell.policy} under {cell.fault}, seed {cell.seed}")
    return _small(about, drawn)


def load_curve(times_s: Sequence[float], until_s: float) -> Markup:
    """Draw the rate of the requests over time, in requests per second."""
    width_s = until_s / LOAD_BINS
    counts = [0] * LOAD_BINS
    for at_s in times_s:
        counts[min(LOAD_BINS - 1, int(at_s / width_s))] += 1
    rates = [n / width_s for n in counts]
    x = svg.Scale(low=0.0, high=until_s, start=COURSE_LEFT, end=COURSE_WIDTH - 4)
    floor = COURSE_HEIGHT - COURSE_FOOT
    y = svg.Scale(low=0.0, high=max(rates), start=floor, end=6)
    xs = [x(place * width_s) for place in range(LOAD_BINS + 1)]
    drawn = [
        _course_axes(y, x, max(rates)),
        svg.steps([y(rate) for rate in rates], [float(floor)] * LOAD_BINS, xs, "inflight"),
    ]
    return _small(Markup("Requests per second"), drawn)


def _small(about: Markup, drawn: Sequence[str]) -> Markup:
    return Markup(  # noqa: S704 - words are escaped, the rest are numbers
        f'<svg viewBox="0 0 {COURSE_WIDTH} {COURSE_HEIGHT}" class="course" role="img" aria-label="{about}">'
        f"{''.join(drawn)}</svg>"
    )


def _course_axes(y: svg.Scale, x: svg.Scale, most: float) -> str:
    floor = COURSE_HEIGHT - COURSE_FOOT
    drawn = [svg.line(COURSE_LEFT, floor, COURSE_WIDTH - 4, floor, "floor")]
    drawn += [
        svg.text(COURSE_LEFT - 4, y(value) + 4, figure(value), "tick") for value in svg.ticks(most, 3, (1, 2, 5, 10))
    ]
    drawn += [svg.text(x(at_s), COURSE_HEIGHT - 3, figure(at_s), "time") for at_s in svg.ticks(x.high, 4)]
    return "".join(drawn)


def _hours(frontier: Frontier) -> svg.Scale:
    """Return one scale for all faults, so that their drawings can be compared."""
    most = max(point.spread(lambda cell: cell.replica_h)[1] for point in frontier.points)
    return svg.Scale(low=0.0, high=max(most * 1.06, 1e-6), start=LEFT, end=WIDTH - RIGHT)


def _ratio(frontier: Frontier) -> svg.Scale:
    least = min(frontier.objective, *(point.spread(lambda cell: cell.attained)[0] for point in frontier.points))
    # A step of 5 % keeps the scale readable, and at least 10 % are shown.
    low = max(0.0, min(0.9, math.floor(least * 20) / 20))
    return svg.Scale(low=low, high=1.0, start=HEIGHT - BOTTOM, end=TOP + RADIUS)


def _axes(x: svg.Scale, y: svg.Scale, objective: float) -> str:
    floor = HEIGHT - BOTTOM
    drawn = []
    for share in svg.ticks(1.0 - y.low, 5, (1, 2, 5, 10)):
        at_y = y(1.0 - share)
        drawn += [
            svg.line(LEFT, at_y, WIDTH - RIGHT, at_y, "grid"),
            svg.text(LEFT - 6, at_y + 4, percent(1.0 - share), "tick"),
        ]
    for hours in svg.ticks(x.high, 6):
        drawn += [
            svg.line(x(hours), floor, x(hours), floor + 4, "floor"),
            svg.text(x(hours), floor + 17, figure(hours), "time"),
        ]
    drawn += [
        svg.line(LEFT, floor, WIDTH - RIGHT, floor, "floor"),
        svg.line(LEFT, y(objective), WIDTH - RIGHT, y(objective), "mark m-recovered"),
        svg.text(LEFT + 4, y(objective) - 4, f"objective {percent(objective)}", "label t-recovered"),
        svg.text(WIDTH - RIGHT, HEIGHT - 6, "replica-hours", "tick"),
    ]
    return "".join(drawn)


def _point(point: Point, number: int, x: svg.Scale, y: svg.Scale) -> str:
    at_x, at_y = x(point.replica_h), y(point.attained)
    low, high = point.spread(lambda cell: cell.attained)
    low_h, high_h = point.spread(lambda cell: cell.replica_h)
    css = "kept" if point.keeps else "missed"
    title = Markup.escape(f"{point.policy}: {percent(point.attained)}, {figure(point.replica_h)} replica-hours")
    return (
        f'<g class="point {css}"><title>{title}</title>'
        f"{svg.line(at_x, y(low), at_x, y(high), 'whisker')}{svg.line(x(low_h), at_y, x(high_h), at_y, 'whisker')}"
        f'<circle cx="{at_x:.1f}" cy="{at_y:.1f}" r="{RADIUS}"/>{svg.text(at_x, at_y + 4, number, "number", "middle")}</g>'
    )
