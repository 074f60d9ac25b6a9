"""Scenarios of autoscaling: arms that must hold and must not."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from support.scenario_files import claims_of, experiments_of, name_of

from lab_autoscaler.settings import Settings as AutoscalerSettings
from lab_autoscaler.written import parse
from lab_engine.settings import Settings as EngineSettings
from pytest_llmchaos.plan.schedule import plan_trial, require_capacity, schedule
from pytest_llmchaos.subject.lab import BACKENDS, lab_subject

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "scenarios" / "autoscaling").glob("test_*.py"))
LONGEST_S = 90.0  # of one trial, from the first request
# A claim on one arm: its name, the value and its bound.
CLAIM = re.compile(r'assert arms\["(\w+)"\]\.([\w.]+) ([=<>]+|is) ')


def experiments():
    return [(path, mark, made) for path in FILES for mark, made in experiments_of(path).items()]


def test_the_page_lists_each_scenario() -> None:
    page = (ROOT / "docs" / "scenarios.md").read_text(encoding="utf-8")
    section = page.partition("## Scenarios of autoscaling")[2].partition("\n## ")[0]

    assert len(FILES) == 6
    assert sorted(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == [name_of(path) for path in FILES]


def test_each_needs_the_simulated_engine_and_declares_it() -> None:
    for path in FILES:
        assert "Needs the simulated engine." in (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "")
    assert all(made.simulated_engine for _, _, made in experiments())


def test_policies_and_variables_of_the_arms_are_accepted() -> None:
    for _, _, made in experiments():
        for arm in made.arms.values():
            parse(arm.autoscaler)
            about = {"LAB_SCALED": "model-1,model-2,model-3,model-4", "LAB_PROJECT": "p", "LAB_POLICY": arm.autoscaler}
            AutoscalerSettings.from_env({**about, **arm.environment["autoscaler"]})
            for name in ("model-1", "model-3"):
                EngineSettings.from_env(arm.environment.get(name, {}))
            assert arm.environment["autoscaler"]["LAB_SLOTS"] == arm.environment["api"]["LAB_CONCURRENCY"]


def test_each_has_a_value_that_one_arm_has_well_and_another_badly() -> None:
    for path in FILES:
        text = "\n".join(body for _, body in claims_of(path).values())
        claimed = CLAIM.findall(text)
        values = {value for _, value, _ in claimed}
        assert any(len({arm for arm, of, _ in claimed if of == value}) == 2 for value in values), path.name


def test_all_can_be_planned_on_every_backend_and_are_short() -> None:
    for path, _, made in experiments():
        for backend in BACKENDS:
            subject = lab_subject(backend, scales=True)
            plans = [
                plan_trial(
                    scenario=name_of(path),
                    hypothesis="",
                    experiment=made,
                    fault=made.faults[0],
                    repeat=0,
                    seed=1,
                    services=subject.may_hit,
                    capacity_tokens_per_s=subject.capacity_tokens_per_s,
                    arm=arm,
                )
                for arm in made.arms
            ]
            assert all({"engine", "configure"} <= plan.needs for plan in plans)
            if backend == "sim":
                for plan in plans:
                    require_capacity(plan, subject.capacity_tokens_per_s, backend)
                assert len(schedule(plans)) == 2
                held_s = made.held_s(made.faults[0]) + made.steady_s + made.stable_s
                assert held_s <= LONGEST_S, path.name
