"""The shipped scenarios can fail: control arms, named signals, bounds."""

from __future__ import annotations

import ast
import random
import re
from pathlib import Path

import pytest
from support.scenario_files import experiments_of, name_of, text_of

from pytest_llmchaos.faults.base import strength_of
from pytest_llmchaos.plan.schedule import plan_trial, require_capacity
from pytest_llmchaos.subject.lab import BACKENDS, lab_subject

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "scenarios").glob("test_*.py"))
# Also on Ollama: their loads fit a real model on two cores.
REAL = {
    "kill_api",
    "kill_model",
    "forced_restart",
    "late_first_token",
    "partition_model",
    "random",
    "request_saturation",
    "remediator_killed",
}
# Faults that end before a second evaluation sees them or whose victims the seed draws,
# and scenarios in which clients are the cause.
UNNAMED = {"forced_restart", "random", "impatient_clients", "noisy_repair"}
# Their effect must stay far from the gateway's limits (test_scenario_strengths.py), or
# the load is the fault's own.
LIGHT = {"busy_model", "gpu_saturation", "request_saturation", "late_first_token"}
BURNS = re.compile(r"\w+(Fast|Medium|Slow|Creeping)Burn")


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_each_has_a_control_arm_with_the_load_of_another(path: Path) -> None:
    found = experiments_of(path)
    control = found.pop("control")
    text = text_of(path, "control")

    assert [str(fault) for fault in control.faults] == ["none"]
    assert not found or str(control.load) in {str(one.load) for one in found.values()}
    for claim in ("trial.failed == 0", "trial.alerts == ()", "trial.actions == ()", "trial.attempts_per_request <="):
        assert claim in text
    assert "trial.whole.ttft_s.p95 <=" in text


@pytest.mark.parametrize("path", [path for path in FILES if name_of(path) not in UNNAMED], ids=name_of)
def test_each_names_the_signals_of_its_faults(path: Path) -> None:
    """Alerts in the subject's table, burn of a client SLO, or a flapping service."""
    subject = lab_subject("sim")
    for mark, made in experiments_of(path).items():
        if mark == "control":
            continue
        named = re.findall(r'trial\.(alert|rule)\("([\w-]+)"', text_of(path, mark))
        acts = [act for fault in made.faults for act in fault.plan(random.Random(1), subject.may_hit)]
        expected = [subject.expected_of(act.fault.kind, strength_of(act.fault), act.victim) for act in acts]
        signals = {name for one in expected if one for name in (*one.alerts, *one.rules)}

        assert named, f"{mark} names no signal"
        wrong = {n for _, n in named if n not in signals and not BURNS.fullmatch(n) and n != "ServiceFlapping"}
        assert wrong == set()
        # A remediator without a Prometheus applies no rule.
        reacts = made.remediator and subject.prometheus not in {act.victim for act in acts}
        assert not reacts or not any(one and one.rules for one in expected) or "rule" in dict(named)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_claim_is_on_the_budget_of_a_month(path: Path) -> None:
    """A window of a minute cannot spend enough of the budget to fail."""
    assert "budget_spent" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_the_load_needs_the_patterns_of_a_gateway_and_fits_the_backend(path: Path) -> None:
    simulated = lab_subject("sim").capacity_tokens_per_s
    for mark, made in experiments_of(path).items():
        load = made.load_for(simulated)
        assert load.beyond_capacity or load.tokens_per_s <= simulated
        if name_of(path) not in LIGHT:
            assert load.mean_rps >= 10, mark
            assert (load.max_tokens or 0) >= 24, mark


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("path", [path for path in FILES if name_of(path) in REAL], ids=name_of)
def test_those_for_a_real_model_stay_light_there_and_declare_it(path: Path, backend: str) -> None:
    capacity = lab_subject(backend).capacity_tokens_per_s

    assert all(made.load_for(capacity).tokens_per_s <= capacity for made in experiments_of(path).values())
    assert "real model" in " ".join(path.read_text(encoding="utf-8").split())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_all_can_be_planned_on_every_backend(path: Path, backend: str) -> None:
    """Other scenarios are skipped.

    A load beyond the capacity would refuse the whole session.
    """
    subject = lab_subject(backend)
    for made in experiments_of(path).values():
        for fault in made.faults:
            plan = plan_trial(
                scenario="s",
                hypothesis="",
                experiment=made,
                fault=fault,
                repeat=0,
                seed=1,
                services=subject.may_hit,
                capacity_tokens_per_s=subject.capacity_tokens_per_s,
            )
            assert "engine" in plan.needs or name_of(path) in REAL
            if "engine" not in plan.needs or backend == "sim":
                require_capacity(plan, subject.capacity_tokens_per_s, backend)


@pytest.mark.parametrize("path", [path for path in FILES if name_of(path) not in REAL], ids=name_of)
def test_those_that_need_the_simulated_engine_declare_it(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""

    assert "Needs the simulated engine" in " ".join(docstring.split())


def test_every_scenario_is_documented() -> None:
    page = (ROOT / "docs" / "scenarios.md").read_text(encoding="utf-8")

    assert [path.name for path in FILES if f"`{name_of(path)}`" not in page] == []
