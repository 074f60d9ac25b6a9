"""Timeline of one trial as inline SVG, complete without JavaScript."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from pytest_llmchaos.evidence.trial_result import PhaseResult, TrialResult
from pytest_llmchaos.report import lanes, svg
from pytest_llmchaos.report.binning import Curves
from pytest_llmchaos.report.formatting import figure, one_line, seconds
from pytest_llmchaos.report.lanes import HEAD, LANES, LEFT, RIGHT, WIDTH, Frame
from pytest_llmchaos.report.markers import Mark, marks

STRIP, ROW = 20, 15  # pixels of the phase strip and of one row of labels
CHAR = 6.1  # pixels of one character of a label, rounded up


def timeline(trial: TrialResult, curves: Curves, watermark: str = "") -> Markup:
    """Return the timeline of one trial, with a text alternative."""
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
        _phases(trial.phases, frame, until_s),
        svg.text((LEFT + WIDTH) / 2, tops["latency"] + 70, watermark, "watermark", "middle") if watermark else "",
        lanes.load(curves, frame),
        lanes.latency(curves, frame),
        lanes.failures(curves, frame, trial.slos),
        lanes.inflight(curves, frame),
        _axis(frame, until_s),
        _marks(seen, frame, rows),
        *labels,
    ]
    return Markup(  # noqa: S704  svg.text escaped all untrusted text
        f'<svg viewBox="0 0 {WIDTH} {y + 36:.0f}" role="img" aria-label="{Markup.escape(describe(trial))}">{"".join(parts)}</svg>'
    )


def describe(trial: TrialResult) -> str:
    """Return the text alternative of the timeline."""
    parts = [f"Timeline of {one_line(trial.scenario, 80)}, fault {one_line(trial.fault, 80)}"]
    parts += [mark.label for mark in marks(trial) if mark.key]
    return "; ".join(parts) + "."


def _phases(phases: Sequence[PhaseResult], frame: Frame, until_s: float) -> str:
    drawn = []
    for phase in phases:
        name, from_s = phase.name, phase.from_s
        to_s = until_s if phase.to_s is None else phase.to_s
        a, b = frame.x(from_s), frame.x(to_s)
        css = name if name in {"steady", "fault", "recovery"} else "other"
        if css == "fault":
            drawn.append(svg.rect(a, STRIP, b, frame.bottom, "band"))
        drawn.append(svg.rect(a, 0, b, STRIP - 3, f"phase {css}"))
        length = ", cut off" if phase.to_s is None else f" {seconds(to_s - from_s)}"
        label = f"{one_line(name, 20)}{length}"
        if len(label) * CHAR > b - a - 8:
            label = one_line(name, 20)
        if len(label) * CHAR <= b - a - 8:
            drawn.append(svg.text(a + 6, 13, label, "phase-name"))
    return "".join(drawn)


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
    """Draw key moments across all lanes, and other events as circles with a tooltip."""
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
    """Return the labels next to their lines, in as few rows as fit without overlap."""
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
