"""Values that describe a dashboard: boards, panels, queries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pytest_llmchaos.servers.canonical import BY_KEY

Kind = Literal["lines", "stacked", "number", "heatmap", "states", "bars"]
Unit = Literal["s", "reqps", "percentunit", "short", "celsius", "watt", "mbytes", "none", "percent"]


@dataclass(frozen=True, kw_only=True)
class Query:
    """One PromQL query. `legend` names each series, with {{label}} filled in."""

    expr: str
    legend: str


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One panel of a dashboard.

    `description` explains a change of the line to a person on call. Values from
    `bad_from` on, or below `bad_below`, are red. `width` is in 24ths of the page.
    `may_be_empty`: no series is a good state, or only some backends have the metric.
    """

    title: str
    description: str
    kind: Kind
    unit: Unit
    queries: tuple[Query, ...]
    width: int = 12
    height: int = 8
    bad_from: float | None = None
    bad_below: float | None = None
    lowest: float | None = 0
    highest: float | None = None
    log: bool = False
    may_be_empty: bool = False

    def __post_init__(self) -> None:
        if not (self.title and self.description and self.queries):
            raise ValueError(f"a panel needs a title, a description and a query, got {self.title!r}")


def optional_panel(title: str, description: str, kind: Kind, unit: Unit, *queries: Query, width: int = 12) -> Panel:
    """Return a panel that stays empty in a lab without the services of its board."""
    return Panel(
        title=title,
        description=description,
        kind=kind,
        unit=unit,
        queries=queries,
        width=width,
        may_be_empty=True,
    )


@dataclass(frozen=True, kw_only=True)
class Variable:
    """A choice at the top of the page: the values of `label` in the series `metric`."""

    name: str
    title: str
    metric: str
    label: str


@dataclass(frozen=True, kw_only=True)
class Board:
    """One dashboard: rows of panels, each with a heading."""

    uid: str
    title: str
    description: str
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]
    variables: tuple[Variable, ...] = ()

    def layout(self) -> tuple[tuple[str | Panel, int, int], ...]:
        """Return headings and panels with their column and line in Grafana's grid."""
        found: list[tuple[str | Panel, int, int]] = []
        top = 0
        for heading, panels in self.rows:
            found.append((heading, 0, top))
            top, left, tallest = top + 1, 0, 0
            for panel in panels:
                if left + panel.width > 24:
                    top, left, tallest = top + tallest, 0, 0
                found.append((panel, left, top))
                left, tallest = left + panel.width, max(tallest, panel.height)
            top += tallest
        return tuple(found)

    @property
    def panels(self) -> tuple[Panel, ...]:
        return tuple(panel for _, panels in self.rows for panel in panels)


REPLICA = Variable(name="replica", title="Replica", metric="llmlab_inflight_requests", label="replica")
ENGINES = Variable(name="engine", title="Engine", metric=BY_KEY["running"].name, label="service")


def quantiles(metric: str, selector: str = "") -> tuple[Query, ...]:
    """Return p50, p95 and p99 of a histogram, each over the panel's time step."""
    rate = f"sum by (le) (rate({metric}_bucket{selector}[$__rate_interval]))"
    return tuple(Query(expr=f"histogram_quantile({q}, {rate})", legend=f"p{round(100 * q)}") for q in (0.5, 0.95, 0.99))


def firing_alerts() -> Panel:
    """Return a full-width panel of all firing alerts."""
    return Panel(
        title="Alerts",
        description="All alerts that are firing. Empty is good.",
        kind="states",
        unit="none",
        queries=(
            Query(
                expr='max by (alertname, service) (ALERTS{alertstate="firing"})',
                legend="{{alertname}} {{service}}",
            ),
        ),
        width=24,
        height=8,
        highest=1,
        may_be_empty=True,
    )
