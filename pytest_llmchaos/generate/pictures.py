"""Draws each dashboard from a Prometheus server's answers, for people and places without a Grafana.

python -m pytest_llmchaos.generate.pictures --prometheus http://127.0.0.1:9090 --last 120 --to docs/dashboards
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import LlmchaosError
from pytest_llmchaos.generate.axes import Answer, Band
from pytest_llmchaos.generate.boards.all_boards import boards
from pytest_llmchaos.generate.rules import LAB_SCALE
from pytest_llmchaos.generate.svg import page
from pytest_llmchaos.prometheus.http import Connection
from pytest_llmchaos.slo.openslo import slos_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_llmchaos.generate.boards.panels import Board, Panel

SCRAPE_S = 1.0
_BANDS = (("llmchaos_phase == 1", "{{phase}}"), ("llmchaos_fault_active == 1", "{{fault}} {{target}}"))


def substituted(expr: str, range_s: float, step_s: float, variables: Mapping[str, str]) -> str:
    """The query as Grafana would send it: its macros by its documentation, each variable by a choice.

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
    """Prometheus over one span of time, asked as Grafana would ask."""

    def __init__(self, url: str, from_unix_s: float, to_unix_s: float) -> None:
        self._connection = Connection(url.rstrip("/"), 10.0)
        self.from_unix_s = from_unix_s
        self.to_unix_s = to_unix_s
        self.step_s = max(SCRAPE_S, math.ceil((to_unix_s - from_unix_s) / 300))

    def answers(self, panel: Panel, variables: Mapping[str, str]) -> tuple[Answer, ...]:
        """What every query of the panel gives, named by its legend. Raises what Prometheus refuses."""
        found: list[Answer] = []
        for query in panel.queries:
            expr = substituted(query.expr, self.to_unix_s - self.from_unix_s, self.step_s, variables)
            instant = panel.kind in ("number", "bars")
            found += self._instant(expr, query.legend) if instant else self._range(expr, query.legend)
        return tuple(found)

    def bands(self) -> tuple[Band, ...]:
        """Where a phase or a fault was on."""
        return tuple(
            Band(label=answer.name, from_unix_s=points[0][0], to_unix_s=points[-1][0] + self.step_s, fault=number == 1)
            for number, (expr, legend) in enumerate(_BANDS)
            for answer in self._range(expr, legend)
            for points in _unbroken(answer.points, self.step_s)
        )

    def _instant(self, expr: str, legend: str) -> list[Answer]:
        kind, result = self._connection.query(expr, self.to_unix_s)
        if kind == "scalar":
            return [Answer(name=legend, points=((self.to_unix_s, float(result[1])),))]
        return [_answer(one["metric"], [one["value"]], legend) for one in result]

    def _range(self, expr: str, legend: str) -> list[Answer]:
        from datetime import UTC, datetime  # noqa: PLC0415 (the client library wants these; numbers do elsewhere)

        start, end = (datetime.fromtimestamp(at, UTC) for at in (self.from_unix_s, self.to_unix_s))
        result = self._connection.asked(
            expr, lambda api: api.custom_query_range(expr, start_time=start, end_time=end, step=f"{self.step_s:g}s")
        )
        # The client library asks for whole seconds; what lies outside of ours is not drawn.
        inside = [
            (one["metric"], [v for v in one["values"] if self.from_unix_s <= float(v[0]) <= self.to_unix_s])
            for one in result
        ]
        return [_answer(metric, values, legend) for metric, values in inside if values]


def draw(board: Board, asked: Asked) -> str:
    """The board as an SVG picture."""
    variables = {variable.name: ".*" for variable in board.variables}
    return page(
        board,
        {panel.title: asked.answers(panel, variables) for panel in board.panels},
        asked.bands(),
        (asked.from_unix_s, asked.to_unix_s),
    )


def main(args: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pytest_llmchaos.generate.pictures", description=__doc__)
    parser.add_argument("--prometheus", required=True, help="its address")
    parser.add_argument("--end", type=float, default=None, help="Unix seconds of the right edge (default: now)")
    parser.add_argument("--last", type=float, default=120.0, help="seconds to show")
    parser.add_argument("--slo", type=Path, default=Path("stack/slo.yaml"))
    parser.add_argument("--to", type=Path, required=True, help="the folder for the pictures")
    given = parser.parse_args(args)
    end_s = given.end or time.time()
    asked = Asked(given.prometheus, end_s - given.last, end_s)
    given.to.mkdir(parents=True, exist_ok=True)
    try:
        for board in boards(slos_of(given.slo), LAB_SCALE):
            picture = draw(board, asked)
            path = given.to / f"{board.uid}.svg"
            path.write_text(picture, encoding="utf-8")
            sys.stdout.write(f"wrote {path}\n")
    except LlmchaosError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _answer(metric: Mapping[str, str], values: Sequence[Sequence[object]], legend: str) -> Answer:
    name = re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda label: metric.get(label[1], ""), legend).strip()
    points = tuple((float(str(t)), float(str(v))) for t, v in values)
    return Answer(name=name, points=points)


def _unbroken(points: Sequence[tuple[float, float]], step_s: float) -> list[list[tuple[float, float]]]:
    spans: list[list[tuple[float, float]]] = []
    for point in points:
        if spans and point[0] - spans[-1][-1][0] <= 1.5 * step_s:
            spans[-1].append(point)
        else:
            spans.append([point])
    return spans


if __name__ == "__main__":
    sys.exit(main())
