"""Recording rules compared with the judge's own queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import TruthsDisagree
from pytest_llmchaos.slo.recorded import ERROR_RATIO, error_ratio_expression

if TYPE_CHECKING:
    from pytest_llmchaos.lab.lab import Lab

STEP_S = 1.0
# A rule evaluates what was scraped by then. The judge may find one scrape more of the same instant, two on a busy machine.
LAG_POINTS = 2
TOLERANCE = 0.02
# So many points of a recorded series may lie beyond that before the rule is odd: a group's evaluation was late.
STRAY_SHARE = 0.05


def require_recorded(lab: Lab, from_unix_s: float, to_unix_s: float) -> None:
    """What rules recorded of each SLO's error ratio is what the judge's own query gives at the same instants.

    Raises TruthsDisagree naming the rule: alerts and dashboards read it. Rules that record no such series are not judged.
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
                    f"give {ours}; so it is at {len(odd)} of {len(series.points)} instants: generate the rules again"
                )


def strays(
    points: Sequence[tuple[float, float]], judged: Mapping[float, float]
) -> list[tuple[float, float, float, float]]:
    """Recorded points beyond what the judge's own query gave then and just before: instant, value, least and most of it."""
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
