"""The lab's monitoring: scrapes, queries, rules, dashboards, alerts.

Each check is shown to catch its defect: the tests named "... is noticed" break one
thing and expect the complaint.
"""

from __future__ import annotations

import dataclasses
import json
import time
import uuid
from pathlib import Path

import pytest
import requests
import yaml
from support import alert_arms, infra
from support.dying import chosen
from support.grafana_queries import Asked
from support.waiting import until

from pytest_llmchaos import faults, loads
from pytest_llmchaos.errors import NoData
from pytest_llmchaos.evidence.trial_result import Planned
from pytest_llmchaos.generate.boards.all_boards import boards
from pytest_llmchaos.generate.boards.panels import Variable
from pytest_llmchaos.generate.rules import LAB_SCALE
from pytest_llmchaos.host.measurement_lock import measuring
from pytest_llmchaos.slo.openslo import load_slos

pytestmark = pytest.mark.stack

ROOT = Path(__file__).parent.parent.parent
CONFIG = yaml.safe_load((ROOT / "stack" / "prometheus" / "prometheus.yml").read_text())
FILES = sorted((ROOT / "stack" / "prometheus" / "rules").glob("*.yml"))
GROUPS_OF = {path.name: yaml.safe_load(path.read_text())["groups"] for path in FILES}
GROUPS = [group for groups in GROUPS_OF.values() for group in groups]
# Without the rules for engines: the names of other servers do not exist here.
OF_THE_LAB_ALONE = [group for name, groups in GROUPS_OF.items() if name != "servers.yml" for group in groups]
SLOS = load_slos((ROOT / "stack" / "slo.yaml").read_text(), "stack/slo.yaml")
BOARDS = boards(SLOS, LAB_SCALE)
ALERTS = [rule["alert"] for group in GROUPS for rule in group["rules"] if "alert" in rule]
ARMS = alert_arms.arms(SLOS)
OF_THE_LAB = 'count({__name__=~"llmlab_.*|gen_ai_.*|llmchaos_client_.*"})'
SERVICES = ("api", "model-1", "model-2", "prometheus", "pushgateway", "remediator", "docker-proxy")
# Series of other engines, used by panels that work with all of them, and one of users
# with a file of prices.
OF_OTHER_ENGINES = ("llmchaos:requests_failed_total", "llmchaos:cost_per_1000_good_answers")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Observed:
    """A lab after load, with the api killed and repaired, and the times of it."""

    lab: object
    from_unix_s: float
    to_unix_s: float


def await_scrapes(lab):
    """Wait for new targets, which Prometheus starts to scrape within 5 s."""

    def unscraped():
        return infra.unscraped(CONFIG, SERVICES, lab.prometheus.targets())

    until(lambda: not unscraped(), "every service is scraped", 30, every_s=0.2, seen=unscraped)


@pytest.fixture(scope="module")
def observed(sim_run):
    lab = sim_run.lab()
    lab.remediator.ensure(True)
    await_scrapes(lab)
    started = time.time()
    with (
        measuring(),
        lab.recording(Planned(scenario="infra", fault="kill api")),
        lab.load(loads.open_loop(rate_rps=30, max_tokens=8), longest_s=90),
    ):
        lab.signals.phase("steady")
        lab.hold(8)
        lab.signals.phase("fault")
        with lab.inject(faults.kill("api")):
            lab.hold(12)
        lab.signals.phase("recovery")
        lab.hold(6)
    lab.signals.phase("none")
    return Observed(lab=lab, from_unix_s=started, to_unix_s=time.time())


@pytest.fixture(scope="module")
def fired(request, observed):
    """Alerts that fired in each selected arm, without a remediator."""
    lab, arms = observed.lab, chosen(request, "arm") or ARMS[:1]
    found = {}
    lab.remediator.ensure(False)
    try:
        for wire in sorted({arm.wire for arm in arms}):
            with (
                measuring(),
                lab.recording(Planned(scenario="infra", fault="one after the other")),
                lab.load(loads.open_loop(rate_rps=30, max_tokens=8), longest_s=300, remediator=False, wire=wire),
            ):
                lab.hold(2)
                found |= {arm.says: alert_arms.fired_in(lab, arm) for arm in arms if arm.wire == wire}
        return found
    finally:
        lab.remediator.ensure(True)
        await_scrapes(lab)


def complaints_about(observed, expressions):
    told = infra.unknown(
        lambda metric: infra.labels_of(observed.lab.prometheus, metric, observed.from_unix_s, observed.to_unix_s),
        expressions,
    )
    return [one for one in told if not any(name in one for name in OF_OTHER_ENGINES)]


class TestScrapes:
    """Scrape jobs and targets."""

    def test_every_service_is_scraped_and_up(self, observed):
        assert infra.unscraped(CONFIG, SERVICES, observed.lab.prometheus.targets()) == []

    def test_a_missing_scrape_job_is_noticed(self, observed):
        jobs = [job for job in CONFIG["scrape_configs"] if job["job_name"] != "pushgateway"]

        found = infra.unscraped({"scrape_configs": jobs}, SERVICES, observed.lab.prometheus.targets())

        assert found == ["pushgateway is not scraped"]

    def test_the_window_is_covered_but_for_the_victim(self, observed):
        # This lab has no agents and no autoscaler: their jobs have no target here.
        absent = {"agent", "desk", "autoscaler"}
        jobs = [job["job_name"] for job in CONFIG["scrape_configs"] if job["job_name"] not in absent]

        observed.lab.prometheus.require_coverage(
            jobs, observed.from_unix_s, observed.to_unix_s, allow_down=("api", "remediator")
        )

    def test_a_window_without_scrapes_is_noticed(self, observed):
        with pytest.raises(NoData, match="job grafana has no scrape"):
            observed.lab.prometheus.require_coverage(["grafana"], observed.from_unix_s, observed.to_unix_s)


class TestQuestions:
    """Metrics and labels that expressions use."""

    def test_every_metric_and_label_that_rules_and_panels_use_exists(self, observed):
        # A lab without these services: tests/test_dashboards.py compares their panels.
        shown = [board for board in BOARDS if board.uid not in {"llmchaos-agents", "llmchaos-autoscaling"}]

        assert complaints_about(observed, infra.questions(OF_THE_LAB_ALONE, shown)) == []

    def test_every_metric_and_label_that_the_slos_use_exists(self, observed):
        assert complaints_about(observed, [selector for slo in SLOS for selector in (slo.good, slo.total)]) == []

    def test_every_metric_and_label_that_the_remediator_uses_exists(self, observed):
        texts = [(ROOT / "stack" / name).read_text() for name in ("remediation.yaml", "remediation.slo.yaml")]
        signals = [one for text in texts for one in yaml.safe_load(text)["signals"].values()]

        assert complaints_about(observed, [one["query"] for one in signals if "query" in one]) == []

    @pytest.mark.parametrize(
        ("expression", "complaint"),
        [
            ("sum(rate(llmlab_request_total[5s]))", "llmlab_request_total does not exist"),
            ('llmlab_requests_total{result="ok"}', "llmlab_requests_total has no label result"),
            (
                "sum by (backend) (llmlab_inflight_requests)",
                "no metric of sum by (backend) (llmlab_inflight_requests) has the label backend",
            ),
        ],
        ids=["metric", "label", "grouping"],
    )
    def test_a_misspelt_name_is_noticed(self, observed, expression, complaint):
        assert complaints_about(observed, [expression]) == [complaint]


class TestRules:
    """Alerting and recording rules."""

    def test_every_rule_is_loaded_and_healthy(self, observed):
        names = [rule.get("alert") or rule["record"] for group in GROUPS for rule in group["rules"]]

        assert infra.broken_rules(infra.loaded_rules(observed.lab.prometheus), names) == []

    def test_a_rule_that_is_not_loaded_or_fails_is_noticed(self, observed):
        loaded = infra.loaded_rules(observed.lab.prometheus)
        failing = {**loaded["GpuHot"], "health": "err", "lastError": "many-to-many matching"}
        found = infra.broken_rules({**loaded, "GpuHot": failing}, ["ServiceDown", "ServiceDownn"])

        assert found == ["ServiceDownn is not loaded", "GpuHot: many-to-many matching"]


class TestDashboards:
    """Panels, variables and annotations of the dashboards."""

    def asked(self, observed):
        return Asked(observed.lab.prometheus.url, observed.from_unix_s, observed.to_unix_s)

    def test_every_panel_has_data(self, observed):
        assert infra.empty_panels(BOARDS, self.asked(observed)) == []

    def test_every_variable_has_choices(self, observed):
        assert infra.without_choices(BOARDS, observed.lab.prometheus, observed.to_unix_s) == []

    def test_a_variable_without_choices_is_noticed(self, observed):
        variable = Variable(name="pod", title="Pod", metric="llmlab_inflight_requests", label="pod")
        mutant = dataclasses.replace(BOARDS[0], variables=(variable,))

        found = infra.without_choices([mutant], observed.lab.prometheus, observed.to_unix_s)

        assert found == [f"{mutant.title}: $pod has nothing to choose from"]

    def test_a_broken_panel_is_noticed(self, observed):
        board = BOARDS[1]
        heading, (panel, *others) = board.rows[0]
        query = dataclasses.replace(panel.queries[0], expr=panel.queries[0].expr.replace("offered", "ofered"))
        broken = dataclasses.replace(panel, title="Broken", queries=(query,))
        mutant = dataclasses.replace(board, rows=((heading, (broken, *others)), *board.rows[1:]))

        assert infra.empty_panels([mutant], self.asked(observed)) == [f"{board.title}: Broken"]

    @pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
    def test_its_bands_are_the_fault_and_the_phases(self, observed, board):
        bands = json.loads((ROOT / "dashboards" / f"{board.uid}.json").read_text())["annotations"]["list"]
        found = {band["name"]: self.asked(observed).series(band["expr"]) for band in bands}

        assert [(labels["fault"], labels["target"]) for labels, _ in found["Faults"]] == [("kill", "api")]
        assert {labels["phase"] for labels, _ in found["Phases"]} == {"steady", "fault", "recovery"}


class TestSeries:
    """Series: their labels, their number, their counters."""

    def test_no_label_takes_its_values_from_requests(self, observed):
        at = observed.to_unix_s

        assert infra.crowded(observed.lab.prometheus, at) == []
        assert infra.request_like(observed.lab.prometheus, at) == []

    def test_more_requests_make_no_more_series(self, observed):
        prometheus = observed.lab.prometheus
        before = prometheus.value(OF_THE_LAB, time.time())
        with (
            observed.lab.recording(Planned(scenario="infra", fault="")),
            observed.lab.load(loads.open_loop(rate_rps=40, max_tokens=4), longest_s=30),
        ):
            observed.lab.hold(6)

        assert prometheus.value(OF_THE_LAB, time.time()) <= before

    def test_a_label_that_takes_its_values_from_requests_is_noticed(self, observed):
        prometheus, pushed = observed.lab.prometheus, f"{observed.lab.runtime.url('pushgateway')}/metrics/job/mutant"
        before = prometheus.value(OF_THE_LAB, time.time())
        lines = [f'llmlab_mutant{{request="{uuid.uuid4()}"}} 1\n' for _ in range(3)]
        requests.post(pushed, data="".join(lines), timeout=5).raise_for_status()
        try:
            until(lambda: prometheus.value(OF_THE_LAB, time.time()) == before + 3, "three series more")
            found = infra.request_like(prometheus, time.time())
        finally:
            requests.delete(pushed, timeout=5).raise_for_status()
        until(lambda: prometheus.value(OF_THE_LAB, time.time()) == before, "their end")

        assert len(found) == 3

    def test_a_crowd_of_series_is_noticed(self, observed, monkeypatch):
        monkeypatch.setattr(infra, "MOST_SERIES", 5)

        assert infra.crowded(observed.lab.prometheus, observed.to_unix_s)

    def test_counters_of_the_killed_api_keep_their_increase(self, observed):
        """Compare with the clients' count, which a restart does not interrupt.

        Only the last second before the kill is lost.
        """
        window = f"{round(observed.to_unix_s - observed.from_unix_s)}s"
        api, clients = (
            observed.lab.prometheus.value(f'sum(increase({metric}{{outcome="ok"}}[{window}]))', observed.to_unix_s)
            for metric in ("llmlab_requests_total", "llmchaos_client_requests_total")
        )

        resets = observed.lab.prometheus.value(
            f'max(resets(llmlab_requests_total{{outcome="ok"}}[{window}]))', observed.to_unix_s
        )
        assert resets == 1
        assert clients * 0.85 <= api <= clients * 1.1

    def test_the_remediators_restart_is_counted_with_its_rule(self, observed):
        window = f"{round(observed.to_unix_s - observed.from_unix_s)}s"
        counted = observed.lab.prometheus.vector(
            f'sum by (reason) (increase(service_container_restarts_total{{service="api"}}[{window}])) > 0.5',
            observed.to_unix_s,
        )

        assert {dict(labels)["reason"] for labels in counted} == {"api-exited"}

    def test_a_restart_policys_restart_is_counted_as_the_runtimes(self, observed):
        """Restarts by an operator are tested by ServiceFlapping."""
        lab = observed.lab
        if "crash" not in lab.runtime.abilities:
            pytest.skip("to end a process behind the engine's back needs root on its machine")
        with alert_arms.watched_on_hold(lab), alert_arms.restart_policy(lab, "model-2"):
            assert alert_arms.counted(lab, "model-2", "runtime", lambda: lab.runtime.crash("model-2"))


class TestAlerts:
    """Alerts and the experiments that make them fire."""

    def test_the_killed_api_spends_budget_however_quick_its_repair(self, observed):
        """A fast burn depends on the repair: it needs an outage of 1.08 s here."""
        prometheus, window = observed.lab.prometheus, f"{round(observed.to_unix_s - observed.from_unix_s)}s"
        lost = prometheus.value(
            f'sum(increase(llmchaos_client_requests_total{{outcome!~"ok|cancelled"}}[{window}]))', observed.to_unix_s
        )
        burned = prometheus.value(
            f'max_over_time(slo:burn_rate:rate15s{{slo="availability"}}[{window}])', observed.to_unix_s
        )

        assert lost > 0
        assert burned > 0

    def test_every_alert_has_an_experiment(self):
        assert alert_arms.without_arm(ALERTS, ARMS) == []

    def test_an_alert_without_an_experiment_is_noticed(self):
        assert alert_arms.without_arm([*ALERTS, "DiskFull"], ARMS) == ["DiskFull has no experiment"]
        assert alert_arms.without_arm(set(ALERTS) - {"GpuHot"}, ARMS) == ["GpuHot is no alert"]

    @pytest.mark.sampled  # test_rules raises every alert
    @pytest.mark.parametrize("arm", ARMS, ids=lambda arm: arm.says)
    def test_fires_by_its_experiment(self, fired, arm):
        assert alert_arms.not_fired(arm, fired) == [], f"what fired: {sorted(fired[arm.says])}"

    def test_an_alert_that_does_not_fire_is_noticed(self, fired):
        arm = next(arm for arm in ARMS if arm.says in fired)
        mutant = dataclasses.replace(arm, raises=(*arm.raises, "DiskFull"))

        assert alert_arms.not_fired(mutant, fired) == ["DiskFull"]
