"""The table of faults and signals agrees with rules, triggers and the catalogue."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import yaml
from support.primitives import PRIMITIVES

from pytest_llmchaos.subject.lab import lab_subject
from pytest_llmchaos.subject.lab_signals import AGENT_RULES, EXPECTED, RULES, Expected

STACK = Path(__file__).parent.parent / "stack"
SERVICES = ("api", "model-1", "model-2")
WITH_AGENTS = (*SERVICES, "agent", "desk")


def alerts() -> set[str]:
    files = (STACK / "prometheus" / "rules").glob("*.yml")
    groups = [group for file in files for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]]
    return {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}


def rules() -> dict[str, list[str]]:
    policy = yaml.safe_load((STACK / "remediation.yaml").read_text(encoding="utf-8"))
    return {rule["name"]: rule["services"] for rule in policy["rules"]}


def test_every_alert_that_is_expected_exists() -> None:
    assert {name for one in EXPECTED for name in one.alerts} - alerts() == set()


def test_the_rules_are_those_of_the_remediator() -> None:
    assert list(RULES) == [name for name in rules() if name not in AGENT_RULES]
    assert list(AGENT_RULES) == [name for name in rules() if name in AGENT_RULES]


@pytest.mark.parametrize("one", [one for one in EXPECTED if one.rules], ids=lambda one: f"{one.fault} {one.on}")
def test_a_rule_that_is_expected_is_about_the_service(one: Expected) -> None:
    named = [service for service in WITH_AGENTS if one.is_about(one.fault, dict(one.options), service)]

    assert named
    assert all(set(named) <= set(rules()[rule]) for rule in one.rules)


@pytest.mark.parametrize("fault", PRIMITIVES, ids=lambda fault: f"{fault} {dict(fault.strength)}")
def test_every_fault_of_the_catalogue_has_one_line_on_its_victim(fault) -> None:
    (act,) = fault.plan(random.Random(1), SERVICES)
    told = [one for one in EXPECTED if one.is_about(act.fault.kind, fault.strength, act.victim)]

    assert len(told) == 1
    assert lab_subject("sim").expected_of(act.fault.kind, fault.strength, act.victim) == told[0]
    assert told[0].rules or told[0].why


def test_undeclared_signals_are_empty() -> None:
    assert lab_subject("sim").expected_of("hang", {}, "api") is None
    assert lab_subject("sim").expected_of("flood", {}, "api") is None


def test_each_alert_on_a_service_is_expected_of_some_fault() -> None:
    """Burn alerts see clients.

    The others mean that several things are broken, or the instrument.
    """
    others = {"ServiceFlapping", "ApiErrorsHigh", "LatencyP95High", "TimeToFirstTokenP95High", "PushgatewayDown"}
    own = {name for name in alerts() if not name.endswith("Burn")}

    assert own - {name for one in EXPECTED for name in one.alerts} == others
