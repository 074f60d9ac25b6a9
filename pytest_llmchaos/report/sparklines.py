"""Word-sized SVG drawings for tables."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from pytest_llmchaos.report import svg
from pytest_llmchaos.report.binning import Curves


def sparkline(curves: Curves) -> Markup:
    """Draw answered and failed requests over the trial."""
    x = svg.Scale(low=0.0, high=curves.until_s, start=0, end=150)
    xs = [x(edge_s) for edge_s in curves.edges_s]
    offered = curves.per_second(curves.offered)
    most = max(offered) or 1
    good = [26 - 24 * rate / most for rate in curves.per_second(curves.ok)]
    all_ = [26 - 24 * rate / most for rate in offered]
    drawn = svg.steps(all_, good, xs, "bad-failed") + svg.steps(good, [26.0] * len(good), xs, "ok")
    return Markup(f'<svg viewBox="0 0 150 26" class="spark" aria-hidden="true">{drawn}</svg>')  # noqa: S704  numbers only


def strip(values_s: Sequence[float]) -> Markup:
    """Draw every value as a dot on a scale from 0, and the mean as a bar."""
    x = svg.Scale(low=0.0, high=max(*values_s, 1e-3) * 1.05, start=6, end=164)
    drawn = svg.line(6, 16, 164, 16, "floor") + "".join(
        f'<circle cx="{x(value):.1f}" cy="16" r="4"/>' for value in values_s
    )
    mean = x(sum(values_s) / len(values_s))
    drawn += svg.line(mean, 8, mean, 22, "mean")
    return Markup(f'<svg viewBox="0 0 170 22" class="strip" aria-hidden="true">{drawn}</svg>')  # noqa: S704  numbers only
