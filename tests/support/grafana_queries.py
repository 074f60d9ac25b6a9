"""Dashboard queries as Grafana sends them."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pytest_llmchaos.prometheus.http import Connection

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_llmchaos.generate.boards.panels import Panel

SCRAPE_S = 1.0
Series = tuple[dict[str, str], list[float]]


def substituted(expr: str, range_s: float, step_s: float, variables: Mapping[str, str]) -> str:
    """Replace Grafana's macros, as its documentation defines them, and each variable.

    $__rate_interval is the larger of the step plus one scrape and four scrapes.
    """
    macros = {
        "$__rate_interval": f"{max(step_s + SCRAPE_S, 4 * SCRAPE_S):g}s",
        "$__range_s": f"{range_s:.0f}",
        "$__range": f"{range_s:.0f}s",
        "$__interval": f"{step_s:g}s",
    }
    for name, value in [*macros.items(), *((f"${name}", value) for name, value in variables.items())]:
        expr = expr.replace(name, value)
    return expr


class Asked:
    """Prometheus over one span of time, queried as Grafana queries it."""

    def __init__(self, url: str, from_unix_s: float, to_unix_s: float) -> None:
        self._connection = Connection(url.rstrip("/"), 10.0, {})
        self._from_unix_s = from_unix_s
        self._to_unix_s = to_unix_s
        self._step_s = max(SCRAPE_S, math.ceil((to_unix_s - from_unix_s) / 300))

    def values(self, panel: Panel, variables: Mapping[str, str]) -> list[float]:
        """Every number of the panel. Raises Inconclusive for a refused query."""
        found: list[float] = []
        for query in panel.queries:
            expr = substituted(query.expr, self._to_unix_s - self._from_unix_s, self._step_s, variables)
            found += self._instant(expr) if panel.kind in {"number", "bars"} else self._range(expr)
        return [value for value in found if not math.isnan(value)]

    def series(self, expr: str) -> list[Series]:
        """The labels and values of each series that the expression has in the span."""
        start, end = (datetime.fromtimestamp(at, UTC) for at in (self._from_unix_s, self._to_unix_s))
        result = self._connection.ask_in_time(
            expr, lambda api: api.custom_query_range(expr, start_time=start, end_time=end, step=f"{self._step_s:g}s")
        )
        # The client library widens the range to whole seconds.
        inside = [
            (one["metric"], [float(v) for at, v in one["values"] if self._from_unix_s <= float(at) <= self._to_unix_s])
            for one in result
        ]
        return [(labels, values) for labels, values in inside if values]

    def _instant(self, expr: str) -> list[float]:
        kind, result = self._connection.query(expr, self._to_unix_s)
        return [float(result[1])] if kind == "scalar" else [float(one["value"][1]) for one in result]

    def _range(self, expr: str) -> list[float]:
        return [value for _, values in self.series(expr) for value in values]
