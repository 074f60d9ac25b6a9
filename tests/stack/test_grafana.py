"""The real Grafana, provisioned from files.

Skipped if its image is missing.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path

import pytest
import requests
import yaml

from pytest_llmchaos import loads
from pytest_llmchaos.evidence.trial_result import Planned
from pytest_llmchaos.generate.boards.all_boards import boards
from pytest_llmchaos.generate.rules import LAB_SCALE
from pytest_llmchaos.host.measurement_lock import measuring
from pytest_llmchaos.slo.openslo import load_slos

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

ROOT = Path(__file__).parent.parent.parent
BOARDS = boards(load_slos((ROOT / "stack" / "slo.yaml").read_text(), "stack/slo.yaml"), LAB_SCALE)
IMAGE_DEADLINE_S, START_DEADLINE_S = 180, 90


def compose(lab, *arguments, deadline_s=START_DEADLINE_S):
    command = [*lab.runtime.compose.command(), "--profile", "grafana", *arguments]
    return subprocess.run(
        command, env=lab.runtime.compose.environment(), capture_output=True, text=True, timeout=deadline_s, check=False
    )


def require_image(lab):
    config = json.loads(compose(lab, "config", "--format", "json").stdout)
    image = config["services"]["grafana"]["image"]
    there = subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False).returncode == 0
    if there:
        return
    pull = subprocess.run(
        ["docker", "pull", "--quiet", image], capture_output=True, text=True, timeout=IMAGE_DEADLINE_S, check=False
    )
    if pull.returncode != 0:
        pytest.skip(f"no Grafana here: {image} cannot be pulled ({pull.stderr.strip()[-120:]})")


@pytest.fixture(scope="module")
def grafana(sim_run):
    """Its address, after a short load. It runs next to the lab and is removed."""
    lab = sim_run.lab()
    require_image(lab)
    try:
        up = compose(lab, "up", "--detach", "--no-deps", "--wait", "grafana")
        assert up.returncode == 0, up.stderr + compose(lab, "logs", "grafana").stdout[-3000:]
        port = compose(lab, "port", "grafana", "3000").stdout.strip().rpartition(":")[2]
        with (
            measuring(),
            lab.recording(Planned(scenario="grafana", fault="")),
            lab.load(loads.open_loop(rate_rps=30, max_tokens=8), longest_s=60),
        ):
            lab.hold(20)
        yield f"http://127.0.0.1:{port}", lab
    finally:
        compose(lab, "rm", "--stop", "--force", "grafana")


def test_the_datasource_answers(grafana):
    url, _ = grafana

    answer = requests.get(f"{url}/api/datasources/uid/llmchaos-prometheus/health", timeout=10)

    assert answer.json()["status"] == "OK", answer.text


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_a_dashboard_is_loaded_under_its_uid(grafana, board):
    url, _ = grafana

    answer = requests.get(f"{url}/api/dashboards/uid/{board.uid}", timeout=10).json()

    assert answer["dashboard"]["title"] == board.title
    assert answer["meta"]["provisioned"] is True


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_every_panel_is_answered_with_data_by_grafanas_own_queries(grafana, board):
    url, _ = grafana
    loaded = requests.get(f"{url}/api/dashboards/uid/{board.uid}", timeout=10).json()["dashboard"]
    may_be_empty = {panel.title for panel in board.panels if panel.may_be_empty}
    names = [variable["name"] for variable in loaded.get("templating", {}).get("list", [])]
    empty = []
    for panel in (panel for panel in loaded["panels"] if panel["type"] != "row"):
        queries = [{**target, "intervalMs": 1000, "maxDataPoints": 300} for target in panel["targets"]]
        for query in queries:
            for name in names:  # the page fills in variables, unlike the query API
                query["expr"] = re.sub(rf"\${name}\b", ".*", query["expr"])
        body = {"queries": queries, "from": str(int(time.time() - 60) * 1000), "to": str(int(time.time()) * 1000)}
        answer = requests.post(f"{url}/api/ds/query", json=body, timeout=20)
        assert answer.status_code == 200, f"{panel['title']}: {answer.text[:500]}"
        frames = [frame for result in answer.json()["results"].values() for frame in result.get("frames", [])]
        has_data = any(column for frame in frames for column in frame["data"]["values"])
        if not has_data and panel["title"] not in may_be_empty:
            empty.append(panel["title"])

    assert empty == []


def test_a_visitor_may_look_and_change_nothing(grafana):
    url, _ = grafana

    change = requests.post(f"{url}/api/dashboards/db", json={"dashboard": {"title": "mine"}}, timeout=10)

    assert change.status_code in (401, 403)
    assert requests.get(url, timeout=10).status_code == 200


def test_it_is_reached_from_this_machine_only(grafana):
    _, lab = grafana
    published = compose(lab, "port", "grafana", "3000").stdout.strip()

    assert published.startswith("127.0.0.1:")


def test_its_log_has_no_error_of_the_provisioning(grafana):
    _, lab = grafana

    log = compose(lab, "logs", "--no-color", "grafana").stdout

    assert log, "Grafana wrote no log"
    assert [line for line in log.splitlines() if "level=error" in line and "provision" in line] == []


def test_the_folder_and_the_refresh_are_those_of_the_files(grafana):
    url, _ = grafana
    (provider,) = yaml.safe_load(
        (ROOT / "stack" / "grafana" / "provisioning" / "dashboards" / "llmchaos.yml").read_text()
    )["providers"]

    found = requests.get(f"{url}/api/search", params={"type": "dash-db"}, timeout=10).json()

    assert {one["uid"] for one in found} == {board.uid for board in BOARDS}
    assert {one["folderTitle"] for one in found} == {provider["folder"]}
