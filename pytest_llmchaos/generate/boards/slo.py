"""Overview dashboards, generated from the SLOs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmchaos.generate.boards.panels import Board, Panel, Query, firing_alerts
from pytest_llmchaos.generate.rules import alerts_of, lab_windows
from pytest_llmchaos.model import CLIENT_OFFERED
from pytest_llmchaos.slo.arithmetic import BURN_ALERTS, DAY_S
from pytest_llmchaos.slo.recorded import error_ratio

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_llmchaos.slo.arithmetic import Slo


Row = tuple[str, tuple[Panel, ...]]


def overview(slos: Sequence[Slo], scale: float) -> Board:
    """Return the overview of the lab."""
    return Board(
        uid="llmchaos-overview",
        title="LLM lab: service levels",
        description="Are the SLOs met, and how much error budget remains?",
        rows=(_promises(slos), _burn(slos, scale), _now()),
    )


def own_overview(slos: Sequence[Slo], source: str, scale: float) -> Board:
    """Return the overview of any stack: its SLOs and the firing alerts."""
    return Board(
        uid="slo-overview",
        title="Service levels",
        description="Are the SLOs met, and how much error budget remains? "
        f"Generated from {source} by `llmchaos generate`. Change that file and generate again.",
        rows=(_promises(slos), _burn(slos, scale), ("Now", (firing_alerts(),))),
    )


def _promises(slos: Sequence[Slo]) -> Row:
    """Return the panels of objectives, measured values and remaining budget."""
    return (
        "Objectives",
        (
            *(_share(slo, width) for slo, width in zip(slos, _widths(len(slos)), strict=True)),
            Panel(
                title="Bad events in the shown time, as a multiple of the share that the SLO allows",
                description="1 is the share that the SLO allows. Above 1, the error budget burns too fast.",
                kind="bars",
                unit="short",
                queries=tuple(
                    Query(expr=f"{_bad_share(slo)} / {slo.error_budget:.6g}", legend=_promise(slo)) for slo in slos
                ),
                highest=BURN_ALERTS[0].factor(),
                height=9,
                bad_from=1,
            ),
            Panel(
                title="Error budget that remains of the SLO's window",
                description="What the failures in the shown time leave of the budget, at the same load and without "
                "other failures in the window. One experiment should spend less than 1 %.",
                kind="bars",
                unit="percentunit",
                queries=tuple(Query(expr=f"1 - {_cost(slo)}", legend=slo.display_name or slo.name) for slo in slos),
                highest=1,
                height=9,
                bad_below=0.99,
            ),
        ),
    )


def _burn(slos: Sequence[Slo], scale: float) -> Row:
    """Return the panels of burn rates."""
    shown = lab_windows(scale)[0].long
    alerting = [slo for slo in slos if slo.alerts] or slos
    quickest = ((slo, alerts_of(slo, scale)[:1]) for slo in slos)
    pages = [one.alert.factor(slo.window_days) for slo, alerts in quickest for one in alerts]
    return (
        "Burn",
        (
            Panel(
                title=f"Burn rate over {shown}",
                description="1 spends the budget exactly in the SLO's window. Above the red line, an alert pages.",
                kind="lines",
                unit="short",
                queries=(Query(expr=f"slo:burn_rate:rate{shown}", legend="{{slo}}"),),
                bad_from=min(pages, default=None),
            ),
            Panel(
                title=f"Share of bad events over {shown}",
                description="The input of the fast burn alert, for the SLOs that have alerts.",
                kind="lines",
                unit="percentunit",
                queries=(
                    Query(
                        expr=f'{error_ratio(shown)}{{slo=~"{"|".join(slo.name for slo in alerting)}"}}',
                        legend="{{slo}}",
                    ),
                ),
                highest=1,
            ),
        ),
    )


def _now() -> Row:
    """Return the panels of the current state."""
    return (
        "Now",
        (
            Panel(
                title="Services up",
                description="The api and its replicas, from the lab's own signals. Red: fewer than 3 are up.",
                kind="number",
                unit="short",
                queries=(Query(expr="sum(lab:service_up)", legend="up"),),
                width=6,
                height=5,
                bad_below=2.5,
            ),
            Panel(
                title="Firing alerts",
                description="Pages and tickets. Zero is good.",
                kind="number",
                unit="short",
                queries=(Query(expr='count(ALERTS{alertstate="firing"}) or vector(0)', legend="firing"),),
                width=6,
                height=5,
                bad_from=1,
            ),
            Panel(
                title="Offered load",
                description="Requests per second that were due, sent or not.",
                kind="number",
                unit="reqps",
                queries=(Query(expr=f"sum(rate({CLIENT_OFFERED}_total[$__rate_interval]))", legend="offered"),),
                width=6,
                height=5,
            ),
            Panel(
                title="Whole answer, p95",
                description="Time until the last token, as clients saw it over the last 5 s. Failed requests count as "
                "slower than any answer.",
                kind="number",
                unit="s",
                queries=(Query(expr="lab:clients_latency_seconds:p95_5s", legend="p95"),),
                width=6,
                height=5,
                bad_from=2.56,
            ),
            firing_alerts(),
        ),
    )


def _widths(count: int) -> list[int]:
    """Return the widths of panels in one row. The first ones get the remainder."""
    least, more = divmod(24, count) if count <= 8 else (3, 0)
    return [least + (number < more) for number in range(count)]


def _promise(slo: Slo) -> str:
    return f"{slo.display_name or slo.name} (objective {100 * slo.objective:.12g} %)"


def _good(slo: Slo) -> str:
    return slo.good_events(_increase)


def _total(slo: Slo) -> str:
    return _increase(slo.total)


def _increase(selector: str) -> str:
    return f"sum(increase({selector}[$__range]))"


def _bad_share(slo: Slo) -> str:
    return f"clamp_min(1 - {_good(slo)} / ({_total(slo)} > 0), 0)"


def _cost(slo: Slo) -> str:
    """Return PromQL for the share of the window's budget spent in the shown range."""
    return f"{_bad_share(slo)} / {slo.error_budget:.6g} * $__range_s / {slo.window_days * DAY_S:.0f}"


def _share(slo: Slo, width: int) -> Panel:
    return Panel(
        title=slo.display_name or slo.name,
        description=f"Over the shown time. {slo.description}",
        kind="number",
        unit="percentunit",
        queries=(
            Query(
                expr=f"clamp_max({_good(slo)} / ({_total(slo)} > 0), 1)",
                legend=f"objective {100 * slo.objective:.12g} %",
            ),
        ),
        width=width,
        height=4,
        bad_below=slo.objective,
        lowest=None,
    )
