"""Comparison of recording rules with the judge's own queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import TruthsDisagree
from pytest_llmchaos.slo.recorded import ERROR_RATIO, error_ratio_expression

if TYPE_CHECKING:
    from pytest_llmchaos.lab.lab import Lab

STEP_S = 1.0
# A rule sees the scrapes that exist when it is evaluated. For the same instant the
# judge may see one scrape more, or two on a busy machine.
LAG_POINTS = 2
TOLERANCE = 0.02
# Share of a series' points that may lie beyond, as a group can be evaluated late.
STRAY_SHARE = 0.05


def require_recorded(lab: Lab, from_unix_s: float, to_unix_s: float) -> None:
    """Require that recorded error ratios equal the judge's query at the same instants.

    Alerts and dashboards read these rules. Other rules are not checked.

    Raises:
        TruthsDisagree: A rule differs. The message names it.
    """
    for slo in lab.slos:
        selector = f'{{__name__=~"{ERROR_RATIO}[0-9]+s",slo="{slo.name}"}}'
        for series in lab.prometheus.raw(selector, from_unix_s, to_unix_s):
            name = series.labels["__name__"]
            expression = error_ratio_expression(slo, name.removeprefix(ERROR_RATIO))
            judged = lab.prometheus.series_over(expression, series.points[0][0], series.points[-1][0], STEP_S)
            odd = strays(series.points, judged)
            if len(odd) > max(1, STRAY_SHARE * len(series.points)):
                at, recorded, low, high = odd[len(odd) // 2]
                ours = f"{low:.3f}" if high - low < 0.001 else f"{low:.3f} to {high:.3f}"
                raise TruthsDisagree(
                    f"the rule {name} of {slo.name} is odd: at {at:.3f} it recorded {recorded:.3f}, {slo.good} of {slo.total} "
                    f"give {ours} (differs at {len(odd)} of {len(series.points)} instants): generate the rules again"
                )


def strays(
    points: Sequence[tuple[float, float]], judged: Mapping[float, float]
) -> list[tuple[float, float, float, float]]:
    """Return the recorded points that differ from the judge's query.

    Each has its instant, its value, and the least and greatest value of the query at
    that instant and just before.
    """
    found = []
    lately: list[float] = []
    at_ms = {round(at * 1000): value for at, value in judged.items()}
    for at, recorded in points:
        value = at_ms.get(round(at * 1000))
        if value is None:
            lately.clear()
            continue
        lately = [*lately[-LAG_POINTS:], value]
        low, high = min(lately), max(lately)
        if not low - TOLERANCE <= recorded <= high + TOLERANCE and len(lately) > LAG_POINTS:
            found.append((at, recorded, low, high))
    return found
