"""Renders a comparison of scaling policies as one offline HTML page."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence

from markupsafe import Markup

from pytest_llmchaos.report import frontier_drawing
from pytest_llmchaos.report.assets import asset, environment, security_policy
from pytest_llmchaos.report.column_labels import label
from pytest_llmchaos.report.formatting import figure, percent, seconds
from pytest_llmchaos.report.frontier import Cell, Frontier, Point, below

CUT = 400  # characters of one text
_HEADS = (
    *(
        "least to most",
        "first token",
        "token gaps",
        "TTFT p95",
        "replica-hours",
        "least to most",
        "cold",
        "most replicas",
    ),
    *("offered", "shed", "lost", "at zero", "open", "cut by scale-down", "flaps", "blind", "fault"),
)
_COUNTS: tuple[Callable[[Cell], int], ...] = (
    lambda cell: cell.offered,
    lambda cell: cell.shed,
    lambda cell: cell.lost,
    lambda cell: cell.lost_at_zero,
    lambda cell: cell.open,
    lambda cell: cell.cut_by_scale_down,
    lambda cell: cell.flaps,
)


def frontier_page(frontier: Frontier, facts: Mapping[str, str], times_s: Sequence[float], until_s: float) -> str:
    """Return the page.

    Args:
        frontier: The comparison.
        facts: Names and values of what was simulated, such as the load. Each is shown
            as text.
        times_s: Arrivals of the first seed in seconds since the start.
        until_s: Seconds that were simulated.
    """
    style = asset("page_files/page.css") + asset("page_files/frontier.css")
    points = {(point.policy, point.fault): point for point in frontier.points}
    most = max(cell.max_replicas for point in frontier.points for cell in point.cells)
    courses = [
        (
            number,
            policy,
            [frontier_drawing.course(points[policy, fault].cells[0], most, until_s) for fault in frontier.faults],
        )
        for number, policy in enumerate(frontier.policies, 1)
    ]
    return label(
        environment(CUT)
        .get_template("frontier.html.j2")
        .render(
            frontier=frontier,
            number={policy: place for place, policy in enumerate(frontier.policies, 1)},
            facts=facts,
            scatters=[(fault, frontier_drawing.scatter(frontier, fault)) for fault in frontier.faults],
            results=[(point, _row(point, frontier.objective)) for point in frontier.points],
            result_heads=_HEADS,
            courses=courses,
            shown=lambda ratio: below(ratio, frontier.objective),
            load=frontier_drawing.load_curve(times_s, until_s),
            seeds=len(frontier.points[0].cells),
            style=Markup(style),  # noqa: S704 - our own files
            policy=security_policy(style, []),
        )
    )


def _row(point: Point, objective: float) -> tuple[str, ...]:
    """Return the cells of one row of the results, in the order of their heads."""
    cells = point.cells
    low, high = point.spread(lambda cell: cell.attained)
    low_h, high_h = point.spread(lambda cell: cell.replica_h)
    hours = sum(cell.replica_s for cell in cells)
    return (
        f"{below(low, objective)} to {below(high, objective)}",
        percent(_mean([cell.first_token_attained for cell in cells])),
        percent(_mean([cell.token_gap_attained for cell in cells])),
        seconds(max(math.inf if cell.first_token_p95_s is None else cell.first_token_p95_s for cell in cells)),
        figure(point.replica_h),
        f"{figure(low_h)} to {figure(high_h)}",
        percent(sum(cell.cold_s for cell in cells) / hours if hours else None),
        figure(max(cell.max_replicas for cell in cells)),
        *(f"{point.total(counted):,}" for counted in _COUNTS),
        percent(point.total(lambda cell: cell.blind_syncs) / max(1, point.total(lambda cell: cell.syncs))),
        "" if point.struck else "did not strike",
    )


def _mean(shares: Sequence[float | None]) -> float | None:
    known = [share for share in shares if share is not None]
    return statistics.fmean(known) if known else None
