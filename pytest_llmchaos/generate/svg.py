"""Draws panels as SVG: text and shapes, no script, nothing loaded from elsewhere. It asks nobody anything."""

from __future__ import annotations

import itertools
import math
from html import escape
from typing import TYPE_CHECKING

from pytest_llmchaos.generate import axes
from pytest_llmchaos.generate.axes import BAD, COLOURS, GOOD, Answer, Band, Box

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_llmchaos.generate.boards.panels import Board, Panel

COLUMN, LINE, GAP = 52, 30, 8
NAMES = 230  # room for the names beside bars of states
PAGE_WIDTH = 24 * COLUMN + GAP
INK, FAINT, PAPER, FRAME = "#1f2933", "#6b7785", "#ffffff", "#d9dee4"
STYLE = (
    f"text{{font:12px 'Inter','Helvetica Neue',Arial,sans-serif;fill:{INK}}}"
    f".f{{fill:{FAINT};font-size:10px}}.t{{font-weight:600}}.h{{font-size:18px;font-weight:700}}"
    ".r{font-size:14px;font-weight:700}.n{font-size:34px;font-weight:700}"
)


def page(
    board: Board, answers: Mapping[str, tuple[Answer, ...]], bands: Sequence[Band], span: tuple[float, float]
) -> str:
    """The whole board, rows below each other as Grafana lays them out."""
    parts: list[str] = []
    top = 56.0
    for heading, panels in board.rows:
        parts.append(f'<text class="r" x="{GAP}" y="{top + 14:.0f}">{escape(heading)}</text>')
        top += 24
        left, tallest = 0, 0.0
        for panel in panels:
            if left + panel.width > 24:
                top, left, tallest = top + tallest, 0, 0.0
            box = (GAP + left * COLUMN, top, panel.width * COLUMN - GAP, panel.height * LINE - GAP)
            parts.append(_panel(panel, answers[panel.title], bands, span, box))
            left += panel.width
            tallest = max(tallest, panel.height * LINE)
        top += tallest + 6
    head = (
        f'<text class="h" x="{GAP}" y="24">{escape(board.title)}</text>'
        f'<text class="f" x="{GAP}" y="42">{escape(board.description)}</text>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {PAGE_WIDTH} {top:.0f}" width="{PAGE_WIDTH}" '
        f'height="{top:.0f}" role="img" aria-label="{escape(board.title)}"><style>{STYLE}</style>'
        f'<rect width="100%" height="100%" fill="#f4f6f8"/>{head}{"".join(parts)}</svg>\n'
    )


def _panel(
    panel: Panel, answers: tuple[Answer, ...], bands: Sequence[Band], span: tuple[float, float], box: Box
) -> str:
    left, top, width, height = box
    frame = (
        f'<rect x="{left}" y="{top}" width="{width}" height="{height}" rx="3" fill="{PAPER}" stroke="{FRAME}"/>'
        f'<text class="t" x="{left + 8}" y="{top + 17}">{axes.cut(panel.title, width - 12, 7.3)}</text>'
    )
    inner = (left + 8, top + 26, width - 16, height - 34)
    if not answers:
        word = "nothing, which is as it should be" if panel.may_be_empty else "no data"
        return frame + f'<text class="f" x="{inner[0]}" y="{inner[1] + 20}">{word}</text>'
    if panel.kind == "number":
        return frame + _number(panel, answers[0], inner)
    if panel.kind == "bars":
        return frame + _bars(panel, answers, inner)
    plot = (inner[0] + 52, inner[1] + 6, inner[2] - 56, inner[3] - 22 - axes.legend_height(answers, inner[2]))
    if panel.kind == "heatmap":
        plot = (plot[0], plot[1], plot[2], inner[3] - 22)
    if panel.kind == "states":
        plot = (inner[0] + NAMES, inner[1] + 6, inner[2] - NAMES - 4, inner[3] - 22)
    drawn = {"heatmap": _heatmap, "states": _states}.get(panel.kind, _lines)(panel, answers, span, plot)
    plain = panel.kind in ("heatmap", "states")
    return "".join(
        (
            frame,
            axes.phases(bands, span, plot),
            drawn,
            axes.faults(bands, span, plot, named=panel.kind != "states"),
            axes.time_axis(span, plot),
            "" if plain else axes.legend(answers, plot, inner),
        )
    )


def _lines(panel: Panel, answers: tuple[Answer, ...], span: tuple[float, float], plot: Box) -> str:
    stacked = panel.kind == "stacked"
    stacks = axes.stacked(answers) if stacked else [answer.points for answer in answers]
    marks = [limit for limit in (panel.bad_from, panel.bad_below) if limit is not None]
    scale = axes.scale_of(panel, [v for points in stacks for _, v in points if math.isfinite(v)], marks)
    parts = [axes.value_axis(panel, scale, plot)]
    order = list(enumerate(stacks))
    for number, points in reversed(order) if stacked else order:
        colour = COLOURS[number % len(COLOURS)]
        for run in axes.runs(points, span):
            at = [(axes.x_of(t, span, plot), scale.y_of(v, plot)) for t, v in run]
            if stacked:
                floor = plot[1] + plot[3]
                at = [(at[0][0], floor), *at, (at[-1][0], floor)]
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
            look = f'fill="{colour}"' if stacked else f'fill="none" stroke="{colour}" stroke-width="1.8"'
            parts.append(f'<{"polygon" if stacked else "polyline"} points="{path}" {look}/>')
    for mark in marks:
        if scale.low <= mark <= scale.high:
            y = scale.y_of(mark, plot)
            parts.append(
                f'<line x1="{plot[0]}" x2="{plot[0] + plot[2]}" y1="{y:.1f}" y2="{y:.1f}" stroke="{BAD}" '
                'stroke-dasharray="4 3"/>'
            )
    return "".join(parts)


def _heatmap(_: Panel, answers: tuple[Answer, ...], span: tuple[float, float], plot: Box) -> str:
    """Rows are buckets from their upper edge down to the next one; cumulative counts are made differences first."""
    rows = sorted(answers, key=lambda answer: float(answer.name.replace("+Inf", "inf")))
    counts: list[dict[float, float]] = []
    below: dict[float, float] = {}
    for row in rows:
        now = dict(row.points)
        counts.append({t: max(0.0, v - below.get(t, 0.0)) for t, v in now.items()})
        below = now
    first = next((i for i, row in enumerate(counts) if any(v > 0.01 for v in row.values())), 0)
    shown = list(zip(rows, counts, strict=True))[max(0, first - 1) :]
    most = max((v for _, row in shown for v in row.values()), default=0) or 1
    times = sorted({t for _, row in shown for t in row})
    step_s = min((b - a for a, b in itertools.pairwise(times)), default=1.0)
    tall = plot[3] / max(1, len(shown))
    every = math.ceil(11 / tall)  # a label needs that many pixels; the last row, of what never ended, always has one
    parts = []
    for number, (row, cells) in enumerate(shown):
        y = plot[1] + plot[3] - (number + 1) * tall
        last = len(shown) - 1
        named = number == last or (number % every == 0 and number <= last - every)
        parts += [
            f'<text class="f" x="{plot[0] - 6}" y="{y + tall / 2 + 3:.1f}" text-anchor="end">{axes.edge(row.name)}</text>'
        ] * named
        end = plot[0] + plot[2]
        wide = max(1.0, step_s / (span[1] - span[0]) * plot[2] - 0.5)
        for t, v in ((t, v) for t, v in cells.items() if v > 0.01):
            x = axes.x_of(t, span, plot)
            parts.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{min(wide, end - x):.1f}" height="{max(1, tall - 1):.1f}" '
                f'fill="#b4460f" fill-opacity="{0.15 + 0.85 * math.sqrt(v / most):.2f}"/>'
            )
    return "".join(parts)


def _states(panel: Panel, answers: tuple[Answer, ...], span: tuple[float, float], plot: Box) -> str:
    """A bar where the series is there: green for 1 and red for 0, or red throughout where being there is the news."""
    tall = min(26.0, plot[3] / max(1, len(answers)))
    parts = []
    for number, answer in enumerate(sorted(answers, key=lambda answer: answer.name)):
        y = plot[1] + number * tall
        parts.append(
            f'<text class="f" x="{plot[0] - 6}" y="{y + tall / 2 + 3:.1f}" text-anchor="end">'
            f"{axes.cut(answer.name, NAMES - 8, 5.9)}</text>"
        )
        for run in axes.runs(answer.points, span, split_at_change=True):
            colour = GOOD if run[0][1] >= 1 and not panel.may_be_empty else BAD
            x = axes.x_of(run[0][0], span, plot)
            right = min(plot[0] + plot[2], axes.x_of(run[-1][0] + 1, span, plot))  # the last sample counts for a second
            wide = max(2.0, right - x)
            parts.append(
                f'<rect x="{x:.1f}" y="{y + 1:.1f}" width="{wide:.1f}" height="{tall - 3:.1f}" fill="{colour}"/>'
            )
    return "".join(parts)


def _number(panel: Panel, answer: Answer, box: Box) -> str:
    value = answer.points[-1][1]
    colour = INK
    if panel.bad_from is not None or panel.bad_below is not None:
        colour = BAD if axes.is_bad(panel, value) else GOOD
    y = box[1] + box[3] / 2 + 8
    x = box[0] + box[2] / 2
    word = axes.shown(value, panel.unit)
    return (
        f'<text class="n" x="{x:.0f}" y="{y:.0f}" text-anchor="middle" style="fill:{colour}">{word}</text>'
        f'<text class="f" x="{x:.0f}" y="{y + 20:.0f}" text-anchor="middle">{axes.cut(answer.name, box[2], 5.9)}</text>'
    )


def _bars(panel: Panel, answers: tuple[Answer, ...], box: Box) -> str:
    tall = min(34.0, box[3] / len(answers))
    low, high = panel.lowest or 0.0, panel.highest or 1.0
    parts = []
    for number, answer in enumerate(answers):
        value = answer.points[-1][1]
        y = box[1] + number * tall
        share = min(1.0, max(0.0, (value - low) / (high - low)))
        colour = BAD if axes.is_bad(panel, value) else GOOD
        room = box[2] - 376
        parts.append(
            f'<text x="{box[0]}" y="{y + tall / 2 + 4:.1f}">{axes.cut(answer.name, 292, 7)}</text>'
            f'<rect x="{box[0] + 296}" y="{y + 3:.1f}" width="{room:.1f}" height="{tall - 8:.1f}" fill="#eceff2"/>'
            f'<rect x="{box[0] + 296}" y="{y + 3:.1f}" width="{room * share:.1f}" height="{tall - 8:.1f}" fill="{colour}"/>'
            f'<text x="{box[0] + box[2]}" y="{y + tall / 2 + 4:.1f}" text-anchor="end">{axes.shown(value, panel.unit)}</text>'
        )
    return "".join(parts)
