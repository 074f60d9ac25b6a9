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
LEAST_WINDOW_S = 2.0  # a rate needs two scrapes
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
            window = name.removeprefix(ERROR_RATIO)
            judged = _judged(lab, series.points, error_ratio_expression(slo, window))
            odd, most = strays(series.points, judged), max(1, STRAY_SHARE * len(series.points))
            if len(odd) > most:
                # A rule that missed the newest scrapes saw a shorter window.
                shorter = [
                    _judged(lab, series.points, error_ratio_expression(slo, window, missed_s))
                    for missed_s in range(1, LAG_POINTS + 1)
                    if float(window[:-1]) - missed_s >= LEAST_WINDOW_S
                ]
                odd = strays(series.points, judged, shorter)
            if len(odd) > most:
                at, recorded, low, high = odd[len(odd) // 2]
                ours = f"{low:.3f}" if high - low < 0.001 else f"{low:.3f} to {high:.3f}"
                raise TruthsDisagree(
                    f"the rule {name} of {slo.name} is odd: at {at:.3f} it recorded {recorded:.3f}, {slo.share} "
                    f"give {ours} (differs at {len(odd)} of {len(series.points)} instants): generate the rules again"
                )


def _judged(lab: Lab, points: Sequence[tuple[float, float]], expression: str) -> dict[float, float]:
    return lab.prometheus.series_over(expression, points[0][0], points[-1][0], STEP_S)


def strays(
    points: Sequence[tuple[float, float]], judged: Mapping[float, float], shorter: Sequence[Mapping[float, float]] = ()
) -> list[tuple[float, float, float, float]]:
    """Return the recorded points that differ from the judge's query.

    Each has its instant, its value, and the least and greatest value of the query at
    that instant and just before.

    Args:
        points: Instants and values that a rule recorded.
        judged: The judge's values by instant.
        shorter: The same for windows without their newest scrapes. A point may equal
            one of them, too.
    """
    found = []
    lately: list[float] = []
    at_ms = {round(at * 1000): value for at, value in judged.items()}
    shorter_ms = [{round(at * 1000): value for at, value in one.items()} for one in shorter]
    for at, recorded in points:
        value = at_ms.get(round(at * 1000))
        if value is None:
            lately.clear()
            continue
        lately = [*lately[-LAG_POINTS:], value]
        seen = [*lately, *(one[round(at * 1000)] for one in shorter_ms if round(at * 1000) in one)]
        low, high = min(seen), max(seen)
        if not low - TOLERANCE <= recorded <= high + TOLERANCE and len(lately) > LAG_POINTS:
            found.append((at, recorded, low, high))
    return found
