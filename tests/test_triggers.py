"""The remediator's signals that follow from stack/slo.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from support.remediator_world import SERVICES, World
from support.rule_cases import SLOS, assert_rules_say
from support.rule_histories import lab

from lab_remediator.load import read_policy
from pytest_llmchaos.generate.rules import LAB_SCALE, alert_name, alerts_of
from pytest_llmchaos.generate.signals import signal_name, triggers
from pytest_llmchaos.slo.arithmetic import Slo

STACK = Path(__file__).parent.parent / "stack"
SIGNALS: dict[str, dict[str, Any]] = yaml.safe_load(triggers(SLOS, "stack/slo.yaml"))["signals"]
WITH_ALERTS = [slo for slo in SLOS if slo.alerts]


def test_every_slo_with_alerts_has_one() -> None:
    assert list(SIGNALS) == [signal_name(slo) for slo in WITH_ALERTS]
    for signal in SIGNALS.values():
        promql_parser.parse(signal["query"])


@pytest.mark.parametrize("slo", WITH_ALERTS, ids=lambda slo: slo.name)
def test_fires_where_its_alert_does(slo: Slo, tmp_path: Path) -> None:
    """Quiet before an outage, during a short one, and soon after it."""
    how = "truncated" if slo.name == "stream-completeness" else "refused"
    signal = SIGNALS[signal_name(slo)]
    alert = alert_name(slo, alerts_of(slo, LAB_SCALE)[0].alert)
    fires = f"count(({signal['query']}) {signal['fires']}) or vector(0)"
    alerts = f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) or vector(0)'

    def check(expr: str, at_s: int, value: float) -> dict[str, Any]:
        return {"expr": expr, "eval_time": f"{at_s}s", "exp_samples": [{"labels": "{}", "value": value}]}

    checks = [
        check(expr, at_s, value) for at_s, value in ((19, 0), (36, 1), (39, 1), (46, 0)) for expr in (fires, alerts)
    ]
    assert_rules_say(tmp_path, (lab(**{how: lambda s: 1.0 if 20 <= s < 40 else 0.0}), 60, checks))


@pytest.mark.parametrize("slo", WITH_ALERTS, ids=lambda slo: slo.name)
def test_a_trigger_shows_the_burn_rate_and_is_silent_without_requests(slo: Slo, tmp_path: Path) -> None:
    how = "truncated" if slo.name == "stream-completeness" else "refused"
    query = SIGNALS[signal_name(slo)]["query"]
    half = {
        "expr": f"round({query})",
        "eval_time": "40s",
        "exp_samples": [{"labels": f'{{slo="{slo.name}"}}', "value": round(0.5 / slo.error_budget)}],
    }
    nothing = {"expr": query, "eval_time": "40s", "exp_samples": []}

    assert_rules_say(tmp_path, (lab(**{how: lambda s: 0.5}), 40, [half]), (lab(rate=0), 40, [nothing]), every_s=5)


def test_without_alerts_there_are_no_signals() -> None:
    assert yaml.safe_load(triggers([slo for slo in SLOS if not slo.alerts], "slo.yaml"))["signals"] == {}


class TestShippedRules:
    """The api's own failures are one witness, the clients' budgets the other."""

    def world(self, **values: float) -> World:
        world = World(policy=read_policy(STACK / "remediation.yaml", SERVICES))
        world.values = {("api-scrape", "api"): 1.0, ("replicas-good", "api"): 1.0}
        world.values |= {(name.replace("_", "-"), "api"): value for name, value in values.items()}
        return world

    def test_an_api_that_fails_is_restarted_when_the_clients_budget_burns(self) -> None:
        world = self.world(api_errors=0.9, slo_availability_burn=180)
        world.run(10)

        assert world.acts() == [("api", "restart")]

    @pytest.mark.parametrize("burn", [{}, {"slo_availability_burn": 14.4}], ids=["no clients", "within the factor"])
    def test_errors_that_no_client_notices_are_no_reason(self, burn: dict[str, float]) -> None:
        world = self.world(api_errors=0.9, **burn)
        world.run(60)

        assert world.acts() == []

    def test_a_burning_budget_alone_is_no_reason(self) -> None:
        world = self.world(api_errors=0.0, slo_availability_burn=180, slo_latency_p95_burn=20)
        world.run(60)

        assert world.log == []

    def test_an_api_that_answers_no_client_is_restarted(self) -> None:
        world = self.world(api_latency_p95=20.48, slo_latency_p95_burn=20, clients_served=0)
        world.run(10)

        assert world.acts() == [("api", "restart")]

    def test_an_api_that_is_late_and_serves_is_busy(self) -> None:
        world = self.world(api_latency_p95=20.48, slo_latency_p95_burn=20, clients_served=0.4)
        world.run(60)

        assert world.acts() == []
        assert "vetoed" in world.results()

    def test_an_ejected_replica_without_a_count_of_steps_is_killed_only_if_idle_and_silent(self) -> None:
        silent = {"replica-ejected": 0.0, "replica-token": 0.0, "replica-unused": 1.0}
        policy = self.world().policy
        acts = {}
        for case, values in {
            "hung": silent,
            "in use": silent | {"replica-ejected": 1.0},
            "at work for clients": silent | {"replica-unused": 5.0},
            "gives a token": silent | {"replica-token": 1.0},
            "completes requests": silent | {"engine-steps": 1.0},
        }.items():
            world = World(policy=policy)
            world.values |= {(name, "model-1"): value for name, value in values.items()}
            world.run(20)
            acts[case] = world.acts()

        assert acts == {case: [] for case in acts} | {"hung": [("model-1", "kill")]}
