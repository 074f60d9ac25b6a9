"""Dashboards, read through Grafana's SDK and checked for consistency."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import warnings
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from support import infra
from support.grafana_queries import substituted

from lab_agents.metrics import Metrics as AgentMetrics
from lab_autoscaler.metrics import Metrics as AutoscalerMetrics
from lab_desk.metrics import Metrics as DeskMetrics
from pytest_llmchaos.generate.boards.agents import AGENTS
from pytest_llmchaos.generate.boards.all_boards import boards
from pytest_llmchaos.generate.boards.autoscaling import AUTOSCALING
from pytest_llmchaos.generate.boards.panels import Board, Panel, Query
from pytest_llmchaos.generate.rules import LAB_SCALE
from pytest_llmchaos.loadgen.metrics import Counts
from pytest_llmchaos.session.run import dashboards_line
from pytest_llmchaos.slo.openslo import load_slos

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of the schema that every Grafana from 10 on provisions
    from grafana_foundation_sdk.models import dashboard as dm

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "dashboards").glob("*.json"))
PROVISIONING = ROOT / "stack" / "grafana" / "provisioning"
BOARDS = boards(load_slos((ROOT / "stack" / "slo.yaml").read_text(), "stack/slo.yaml"), LAB_SCALE)
VARIABLE = re.compile(r"\$(?!__)(\w+)")


def read(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text())
    return value


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def datasource() -> dict[str, Any]:
    (one,) = yaml.safe_load((PROVISIONING / "datasources" / "prometheus.yml").read_text())["datasources"]
    return dict(one)


def test_there_is_one_for_each_question_of_an_operator() -> None:
    assert {path.stem for path in FILES} == {
        "llmchaos-overview",
        "llmchaos-requests",
        "llmchaos-latency",
        "llmchaos-repair",
        "llmchaos-saturation",
        "llmchaos-engine",
        "llmchaos-providers",
        "llmchaos-agents",
        "llmchaos-autoscaling",
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
class TestFile:
    def test_a_dashboard_survives_the_typed_sdk_without_loss(self, path: Path) -> None:
        again = JSONEncoder(sort_keys=True).encode(dm.Dashboard.from_json(read(path)))

        assert json.loads(again) == read(path)

    def test_a_dashboard_has_its_own_uid_and_the_provisioned_grafanas_version(self, path: Path) -> None:
        board = read(path)

        assert board["uid"] == path.stem
        assert len(board["uid"]) <= 40
        assert board["schemaVersion"] >= 36

    def test_a_panel_queries_only_the_provisioned_datasource(self, path: Path) -> None:
        board = read(path)
        asked = [*board["annotations"]["list"], *board.get("templating", {}).get("list", []), *panels(board)]
        asked += [target for panel in panels(board) for target in panel["targets"]]

        wanted = {"type": datasource()["type"], "uid": datasource()["uid"]}
        assert [one["datasource"] for one in asked] == [wanted] * len(asked)

    def test_a_dashboard_describes_each_panel_and_its_unit(self, path: Path) -> None:
        for panel in panels(read(path)):
            assert panel["title"], panel
            assert len(panel["description"]) > 10, panel["title"]
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]

    def test_names_every_query_and_its_series(self, path: Path) -> None:
        for panel in panels(read(path)):
            references = [target["refId"] for target in panel["targets"]]
            assert references == sorted(set(references)), panel["title"]
            assert all(references), panel["title"]
            for target in panel["targets"]:
                assert target["legendFormat"], panel["title"]

    def test_a_dashboard_has_no_panel_on_top_of_another(self, path: Path) -> None:
        places = [panel["gridPos"] for panel in read(path)["panels"]]

        assert all(place["x"] + place["w"] <= 24 for place in places)
        for one, other in itertools.combinations(places, 2):
            apart_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
            apart_y = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
            assert apart_x or apart_y, (one, other)

    def test_prometheus_can_parse_the_query_of_a_panel(self, path: Path) -> None:
        for panel in panels(read(path)):
            for target in panel["targets"]:
                names = VARIABLE.findall(target["expr"])
                assert promql_parser.parse(substituted(target["expr"], 300, 1, dict.fromkeys(names, ".*")))

    def test_uses_no_variable_that_it_does_not_offer(self, path: Path) -> None:
        board = read(path)
        offered = {one["name"] for one in board.get("templating", {}).get("list", [])}
        used = {name for panel in panels(board) for t in panel["targets"] for name in VARIABLE.findall(t["expr"])}

        assert used == offered

    def test_shows_faults_and_phases_as_bands(self, path: Path) -> None:
        shown_bands = {one["name"]: one["expr"] for one in read(path)["annotations"]["list"]}

        assert shown_bands["Faults"] == "llmchaos_fault_active == 1"
        assert shown_bands["Phases"] == "llmchaos_phase == 1"

    def test_a_panels_rate_has_a_window_that_fits_the_step(self, path: Path) -> None:
        """A fixed range would skip samples of a day, or be empty for a minute."""
        for panel in panels(read(path)):
            for target in panel["targets"]:
                assert not re.search(r"(rate|increase)\([^\[]*\[\d", target["expr"]), panel["title"]


def test_records_that_panels_read_are_made_by_the_rules() -> None:
    made = {
        rule["record"]
        for path in (ROOT / "stack" / "prometheus" / "rules").glob("*.yml")
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
        if "record" in rule
    }
    read_ = {
        name
        for board in BOARDS
        for panel in board.panels
        for query in panel.queries
        for name in re.findall(r"\b(?:slo|lab):[a-z0-9_:]+", query.expr)
    }

    assert read_
    assert read_ <= made


def test_every_metric_and_label_of_the_agents_panels_is_exported() -> None:
    """The lab of tests/stack/test_infra.py has no agents."""
    agent = AgentMetrics()
    agent.tool_calls.labels("refund", "ok")
    families = (*agent.registry.collect(), *DeskMetrics().registry.collect(), *Counts(lambda: 0).collect())
    known = {"up": {"__name__", "job"}, **infra.exported(families)}

    def complaints(board: Board) -> list[str]:
        return infra.unknown(lambda metric: known.get(metric, set()), infra.questions([], [board]))

    assert complaints(AGENTS) == []
    query = AGENTS.panels[2].queries[0]
    for old, new, complaint in (
        ("agent_tasks", "agents_tasks", "llmlab_agents_tasks_total does not exist"),
        ("(status)", "(state)", "no metric of sum by (state) (rate(llmlab_agent_tasks_total[4s])) has the label state"),
    ):
        wrong = dataclasses.replace(query, expr=query.expr.replace(old, new))
        panel = dataclasses.replace(AGENTS.panels[2], queries=(wrong,))
        assert complaint in complaints(dataclasses.replace(AGENTS, rows=(("x", (panel,)),)))


def test_every_metric_and_label_of_the_autoscaling_panels_is_exported() -> None:
    """The lab of tests/stack/test_infra.py has no autoscaler."""
    families = AutoscalerMetrics().registry.collect()
    known = {"up": {"__name__", "job"}, **infra.exported(families)}
    own = {name for name in known if name.startswith("lab_autoscaler_") and not name.endswith("_created")}
    labels = {"__name__", "job", "error_type", "le"}  # of the gateway's and the engines' metrics
    asked = infra.questions([], [AUTOSCALING])

    found = infra.unknown(lambda metric: known[metric] if metric in own or metric == "up" else labels, asked)
    assert [one for one in found if "lab_autoscaler" in one] == []
    text = " ".join(query.expr for panel in AUTOSCALING.panels for query in panel.queries)
    # Acts are for the log alone.
    assert {name for name in own if name not in text} == {"lab_autoscaler_acts_total"}


def test_every_slo_has_its_share_and_its_cost_on_the_overview() -> None:
    overview = BOARDS[0]
    for slo in load_slos((ROOT / "stack" / "slo.yaml").read_text(), "stack/slo.yaml"):
        titles = [panel.title for panel in overview.panels]
        assert slo.display_name in titles
        assert sum(slo.good in query.expr for panel in overview.panels for query in panel.queries) >= 3


def test_the_overview_begins_with_objectives_remaining_budget_and_burn_rate() -> None:
    titles = [panel.title for panel in BOARDS[0].panels]
    order = [
        titles.index(next(title for title in titles if title.startswith(start)))
        for start in ("Availability", "Error budget that remains", "Burn rate", "Services up", "Alerts")
    ]

    assert order == sorted(order)
    assert order[0] == 0


def test_the_provider_reads_the_folder_that_compose_mounts() -> None:
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards" / "llmchaos.yml").read_text())["providers"]
    compose = yaml.safe_load((ROOT / "stack" / "compose.yaml").read_text())
    mounts = {volume.split(":")[-2]: volume for volume in compose["services"]["grafana"]["volumes"]}

    assert "dashboards" in mounts[provider["options"]["path"]]
    assert "./grafana/provisioning" in mounts["/etc/grafana/provisioning"]
    assert provider["allowUiUpdates"] is False


def test_the_datasource_is_the_stacks_prometheus_with_its_scrape_interval() -> None:
    scraped = yaml.safe_load((ROOT / "stack" / "prometheus" / "prometheus.yml").read_text())["global"]

    assert datasource()["url"] == "http://prometheus:9090"
    assert datasource()["jsonData"]["timeInterval"] == scraped["scrape_interval"]


def test_a_run_prints_where_dashboards_are_or_how_to_get_them() -> None:
    assert dashboards_line("http://127.0.0.1:3000") == "dashboards at http://127.0.0.1:3000"
    assert dashboards_line(None).startswith("dashboards are not served: Grafana's image is missing")


@pytest.mark.parametrize(("makefile", "command"), [(True, "`make setup`"), (False, "stack/bootstrap.py all --backend")])
def test_the_way_to_get_dashboards_is_one_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, makefile: bool, command: str
) -> None:
    if makefile:
        (tmp_path / "Makefile").touch()
    monkeypatch.setattr("pytest_llmchaos.subject.lab.stack_dir", lambda: tmp_path / "stack")

    assert command in dashboards_line(None)


class TestMacros:
    def test_macros_are_replaced_as_grafana_documents(self) -> None:
        expr = 'a[$__rate_interval] b[$__interval] c[$__range] * $__range_s {x=~"$replica"}'

        assert substituted(expr, 300, 1, {"replica": ".*"}) == 'a[4s] b[1s] c[300s] * 300 {x=~".*"}'

    def test_macros_of_a_long_range_follow_the_step(self) -> None:
        assert substituted("a[$__rate_interval]", 86_400, 288, {}) == "a[289s]"


def test_a_panel_without_words_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a title, a description and a query"):
        Panel(title="t", description="", kind="lines", unit="s", queries=(Query(expr="x", legend="l"),))
