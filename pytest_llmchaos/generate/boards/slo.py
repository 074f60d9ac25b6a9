"""The overview dashboards, made from the SLOs, as values."""

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
    """The lab's own."""
    return Board(
        uid="llmchaos-overview",
        title="LLM lab: service levels",
        description="Does the lab keep its promises, and what is left of the error budget?",
        rows=(_promises(slos), _burn(slos, scale), _now()),
    )


def own_overview(slos: Sequence[Slo], source: str, scale: float) -> Board:
    """What a board can show of any stack: its SLOs, and the alerts that fire."""
    return Board(
        uid="slo-overview",
        title="Service levels",
        description="Are the promises kept, and what is left of the error budget? "
        f"Generated from {source} by `llmchaos generate`; change that file and generate again.",
        rows=(_promises(slos), _burn(slos, scale), ("Now", (firing_alerts(),))),
    )


def _promises(slos: Sequence[Slo]) -> Row:
    """What was promised, what was kept, and what is left."""
    return (
        "Promises",
        (
            *(_share(slo, width) for slo, width in zip(slos, _widths(len(slos)), strict=True)),
            Panel(
                title="Bad events in this picture's time, in multiples of what the promise allows",
                description="1 is what a whole window of days may look like; above it the promise is not kept.",
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
                title="Left of the month's error budget, if nothing else went wrong in it",
                description="What the time that is shown leaves of the bad events that the same load may have in its "
                "whole window of days. One experiment should not take more than a hundredth.",
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
    """How fast the budgets burn."""
    shown = lab_windows(scale)[0].long
    alerting = [slo for slo in slos if slo.alerts] or slos
    quickest = ((slo, alerts_of(slo, scale)[:1]) for slo in slos)
    pages = [one.alert.factor(slo.window_days) for slo, alerts in quickest for one in alerts]
    return (
        "Burn",
        (
            Panel(
                title=f"Burn rate over {shown} (1: just as fast as allowed)",
                description="1 spends the budget exactly in its window of days; above the red line is a page.",
                kind="lines",
                unit="short",
                queries=(Query(expr=f"slo:burn_rate:rate{shown}", legend="{{slo}}"),),
                bad_from=min(pages, default=None),
            ),
            Panel(
                title=f"Share of bad events over {shown}",
                description="What the fast burn alert looks at, for the levels that have alerts.",
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
    """What the lab sees of itself."""
    return (
        "Now",
        (
            Panel(
                title="Services up",
                description="The api and its replicas, as far as the lab itself can see.",
                kind="number",
                unit="short",
                queries=(Query(expr="sum(lab:service_up)", legend="up"),),
                width=6,
                height=5,
                bad_below=2.5,
            ),
            Panel(
                title="Alerts that fire",
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
                description="Requests a second that clients want answered.",
                kind="number",
                unit="reqps",
                queries=(Query(expr=f"sum(rate({CLIENT_OFFERED}_total[$__rate_interval]))", legend="offered"),),
                width=6,
                height=5,
            ),
            Panel(
                title="Whole answer, p95",
                description="What clients waited over the last seconds; failed requests count as slower than any.",
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
    """Columns for so many panels side by side; what is left over goes to the first ones."""
    least, more = divmod(24, count) if count <= 8 else (3, 0)
    return [least + (number < more) for number in range(count)]


def _promise(slo: Slo) -> str:
    return f"{slo.display_name or slo.name} (promised {100 * slo.objective:.12g} %)"


def _good(slo: Slo) -> str:
    return f"sum(increase({slo.good}[$__range]))"


def _total(slo: Slo) -> str:
    return f"sum(increase({slo.total}[$__range]))"


def _bad_share(slo: Slo) -> str:
    return f"clamp_min(1 - {_good(slo)} / ({_total(slo)} > 0), 0)"


def _cost(slo: Slo) -> str:
    """Over the range that is shown: its bad share, times the part that the range is of the window, over the budget."""
    return f"{_bad_share(slo)} / {slo.error_budget:.6g} * $__range_s / {slo.window_days * DAY_S:.0f}"


def _share(slo: Slo, width: int) -> Panel:
    return Panel(
        title=slo.display_name or slo.name,
        description=f"Over the time that is shown. {slo.description}",
        kind="number",
        unit="percentunit",
        queries=(
            Query(
                expr=f"clamp_max({_good(slo)} / ({_total(slo)} > 0), 1)",
                legend=f"promised {100 * slo.objective:.12g} %",
            ),
        ),
        width=width,
        height=4,
        bad_below=slo.objective,
        lowest=None,
    )
