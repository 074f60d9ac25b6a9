"""Grafana JSON of the dashboards, through Grafana's typed SDK."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    timeseries,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as cm
from grafana_foundation_sdk.models import dashboard as dm
from grafana_foundation_sdk.models import heatmap as hm
from grafana_foundation_sdk.models import prometheus as pm

if TYPE_CHECKING:
    from pytest_llmchaos.generate.boards.panels import Board, Panel, Variable

# The uid of the provisioned datasource.
DATASOURCE = cm.DataSourceRef(type_val="prometheus", uid="llmchaos-prometheus")
_STEP = "1s"
_LEAST_POINTS = 200
_RED, _GREEN = "red", "green"
_BANDS = (
    ("Faults", "llmchaos_fault_active == 1", "{{fault}} {{target}}", "red"),
    ("Phases", "llmchaos_phase == 1", "{{phase}}", "light-blue"),
    ("Engine faults", "llmchaos_engine_fault_active == 1", "{{service}} {{kind}}", "purple"),
)


def dashboard_json(board: Board) -> str:
    """Return the board as a file that Grafana provisions."""
    built = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags(["llmchaos"])
        .time("now-5m", "now")
        .refresh("5s")
        .timepicker(dashboard.TimePicker().refresh_intervals(["1s", "5s", "10s", "30s", "1m"]))
        .timezone("browser")
        .tooltip(dm.DashboardCursorSync.CROSSHAIR)
        .readonly()
        .link(dashboard.DashboardLink("Lab").type(dm.DashboardLinkType.DASHBOARDS).tags(["llmchaos"]).keep_time(True))
    )
    for name, expr, title, colour in _BANDS:
        built = built.annotation(
            dashboard.AnnotationQuery()
            .name(name)
            .datasource(DATASOURCE)
            .enable(True)
            .icon_color(colour)
            .expr(expr)
            .step(_STEP)
            .title_format(title)
        )
    for variable in board.variables:
        built = built.with_variable(_variable(variable))
    for one, left, top in board.layout():
        if isinstance(one, str):
            built = built.with_row(dashboard.Row(one).grid_pos(dm.GridPos(x=0, y=top, w=24, h=1)))
        else:
            place = dm.GridPos(x=left, y=top, w=one.width, h=one.height)
            built = built.with_panel(_panel(one).grid_pos(place))
    return json.dumps(json.loads(JSONEncoder(sort_keys=True).encode(built.build())), indent=2, sort_keys=True) + "\n"


def _variable(variable: Variable) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(variable.name)
        .label(variable.title)
        .datasource(DATASOURCE)
        .query(f"label_values({variable.metric}, {variable.label})")
        .refresh(dm.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dm.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(dm.VariableOption(text="All", value="$__all", selected=True))
    )


def _panel(panel: Panel) -> Any:
    made = _MAKERS[panel.kind](panel)
    made = (
        made.title(panel.title)
        .description(panel.description)
        .datasource(DATASOURCE)
        .unit(panel.unit)
        .thresholds(_thresholds(panel))
        .no_value("none" if panel.may_be_empty else "no data")
        .interval(_STEP)
    )
    if panel.lowest is not None and panel.kind != "states" and not panel.log:
        made = made.min(panel.lowest)
    if panel.highest is not None and panel.kind != "states":
        made = made.max(panel.highest)
    for index, query in enumerate(panel.queries):
        asked = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(chr(ord("A") + index))
        asked = asked.datasource(DATASOURCE)
        asked = asked.instant() if panel.kind in ("number", "bars") else asked.range()
        if panel.kind == "heatmap":
            asked = asked.format(pm.PromQueryFormat.HEATMAP)
        made = made.with_target(asked)
    return made


def _lines(panel: Panel) -> timeseries.Panel:
    made = (
        timeseries.Panel()
        .line_width(2)
        .fill_opacity(10)
        .show_points(cm.VisibilityMode.NEVER)
        # A failed scrape must stay a gap: a line across it would look healthy.
        .span_nulls(False)
        .legend(_legend(cm.LegendDisplayMode.TABLE, ["mean", "max", "lastNotNull"]))
        .tooltip(common.VizTooltipOptions().mode(cm.TooltipDisplayMode.MULTI).sort(cm.SortOrder.DESCENDING))
    )
    if panel.log:
        made = made.scale_distribution(common.ScaleDistributionConfig().type(cm.ScaleDistribution.LOG).log(10))
    if panel.bad_from is not None or panel.bad_below is not None:
        made = made.thresholds_style(common.GraphThresholdsStyleConfig().mode(cm.GraphThresholdsStyleMode.LINE))
    if panel.kind == "stacked":
        made = made.stacking(common.StackingConfig().mode(cm.StackingMode.NORMAL)).fill_opacity(60).line_width(0)
    return made


def _number(panel: Panel) -> stat.Panel:
    graph = cm.BigValueGraphMode.NONE
    made = stat.Panel().decimals(2) if panel.unit == "percentunit" else stat.Panel()
    return (
        made.graph_mode(graph)
        .color_mode(cm.BigValueColorMode.BACKGROUND if _judges(panel) else cm.BigValueColorMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        .text_mode(cm.BigValueTextMode.VALUE_AND_NAME)
    )


def _bars(_: Panel) -> bargauge.Panel:
    return (
        bargauge.Panel()
        .display_mode(cm.BarGaugeDisplayMode.BASIC)
        .orientation(cm.VizOrientation.HORIZONTAL)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        .name_placement(cm.BarGaugeNamePlacement.LEFT)
        .value_mode(cm.BarGaugeValueMode.TEXT)
        .decimals(2)
    )


def _heatmap(_: Panel) -> heatmap.Panel:
    return (
        heatmap.Panel()
        .calculate(False)
        .color(heatmap.HeatmapColorOptions().mode(hm.HeatmapColorMode.SCHEME).scheme("Oranges").steps(64).exponent(0.5))
        .y_axis(heatmap.YAxisConfig().unit("s").axis_placement(cm.AxisPlacement.LEFT))
        .cell_gap(1)
        .show_legend()
    )


def _states(panel: Panel) -> statetimeline.Panel:
    # A panel that may be empty shows bad states: firing alerts, active faults.
    yes, no = (_RED, _GREEN) if panel.may_be_empty else (_GREEN, _RED)
    up = dm.ValueMappingResult(text="yes", color=yes)
    down = dm.ValueMappingResult(text="no", color=no)
    return (
        statetimeline.Panel()
        .mappings([dm.ValueMap(options={"1": up, "0": down})])
        .show_value(cm.VisibilityMode.NEVER)
        .row_height(0.9)
        .fill_opacity(80)
        .line_width(0)
        .legend(_legend(cm.LegendDisplayMode.LIST, []))
    )


_MAKERS: dict[str, Any] = {
    "lines": _lines,
    "stacked": _lines,
    "number": _number,
    "bars": _bars,
    "heatmap": _heatmap,
    "states": _states,
}


def _legend(mode: cm.LegendDisplayMode, calculations: list[str]) -> common.VizLegendOptions:
    return (
        common.VizLegendOptions()
        .display_mode(mode)
        .placement(cm.LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs(calculations)
    )


def _judges(panel: Panel) -> bool:
    return panel.bad_from is not None or panel.bad_below is not None


def _thresholds(panel: Panel) -> dashboard.ThresholdsConfig:
    """Return green up to the bad bound, on either side."""
    steps = [dm.Threshold(value=None, color=_GREEN)]
    if panel.bad_from is not None:
        steps.append(dm.Threshold(value=panel.bad_from, color=_RED))
    if panel.bad_below is not None:
        steps = [dm.Threshold(value=None, color=_RED), dm.Threshold(value=panel.bad_below, color=_GREEN)]
    return dashboard.ThresholdsConfig().mode(dm.ThresholdsMode.ABSOLUTE).steps(steps)
