"""Scenarios of agents: arms that must hold, and arms that must not."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

from support.scenario_files import experiments_of, name_of, text_of

from lab_agents.settings import Settings as AgentSettings
from lab_engine.settings import Settings as EngineSettings
from pytest_llmchaos.plan.schedule import plan_trial, require_capacity
from pytest_llmchaos.subject.lab import BACKENDS, lab_subject

if TYPE_CHECKING:
    from pytest_llmchaos.plan.arms import Arm

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "scenarios" / "agents").glob("test_*.py"))
# The durable agent reaches 3 on two cores.
MOST_TASKS_RPS = 2
# A claim on an arm: its name, the value, and what must be true of it.
CLAIM = re.compile(r'assert (not )?arms\["(\w+)"\]\.tasks\.([\w.]+)( [=<>]+ [\w.]+)?')


def is_bad(arm: Arm) -> bool:
    """True if the arm's agent or model has a known defect."""
    agent = arm.environment.get("agent", {})
    lies = any(own.get("LAB_TOOL_MANNER") == "liar" for own in arm.environment.values())
    return (
        lies
        or "LAB_FLAWS" in agent
        or agent.get("LAB_IDEMPOTENCY") == "off"
        or (agent.get("LAB_AGENT") == "naive" and "LAB_WORKERS" not in agent)
    )


def test_the_page_lists_each_scenario() -> None:
    page = (ROOT / "docs" / "scenarios.md").read_text(encoding="utf-8")
    section = page.partition("## Scenarios of agents")[2].partition("\n## ")[0]

    assert sorted(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == [name_of(path) for path in FILES]


def test_each_needs_the_simulated_engine_and_declares_it() -> None:
    """On other backends they are skipped."""
    wrong = []
    for path in FILES:
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        if "Needs the simulated engine." not in text:
            wrong.append(f"{path.name}: no such sentence")
        wrong += [f"{path.name} {mark}" for mark, made in experiments_of(path).items() if not made.simulated_engine]

    assert wrong == []


def test_the_load_is_of_tasks_that_the_slowest_agent_can_serve() -> None:
    wrong = [
        f"{path.name} {mark}: {made.load}"
        for path in FILES
        for mark, made in experiments_of(path).items()
        if made.load.tasks is None or made.load.mean_rps > MOST_TASKS_RPS
    ]

    assert wrong == []


def test_agents_and_models_accept_the_variables_of_the_arms() -> None:
    wrong = []
    for path in FILES:
        for mark, made in experiments_of(path).items():
            for name, arm in made.arms.items():
                AgentSettings.from_env(arm.environment.get("agent", {}))
                for service in ("model-1", "model-2"):
                    EngineSettings.from_env(arm.environment.get(service, {}))
                known = {"agent", "model-1", "model-2"}
                wrong += [f"{path.name} {mark} {name}: {other}" for other in arm.environment.keys() - known]

    assert wrong == []


def test_each_file_has_an_arm_that_is_refuted_and_states_by_what() -> None:
    """A value of a bad arm is claimed to be bad, and the same of a good one good."""
    wrong = []
    for path in FILES:
        shown = set()
        for mark, made in experiments_of(path).items():
            bad = {name for name, arm in made.arms.items() if is_bad(arm)}
            claimed = CLAIM.findall(text_of(path, mark))
            of_bad = {value for no, arm, value, bound in claimed if arm in bad and (no or bound.startswith(" >="))}
            shown |= of_bad & {value for no, arm, value, bound in claimed if arm not in bad and not no}
        wrong += [] if shown else [path.name]

    assert wrong == []


def test_no_good_arm_may_refuse_a_task_do_a_thing_twice_or_lie() -> None:
    wrong = []
    for path in FILES:
        for mark, made in experiments_of(path).items():
            text = text_of(path, mark)
            for name in (name for name, arm in made.arms.items() if not is_bad(arm)):
                taken = f'arms["{name}"].tasks.refused == 0' in text
                once = f'arms["{name}"].tasks.duplicate_effects == 0' in text
                honest = any(
                    f'arms["{name}"].tasks.{value} == 0' in text for value in ("false_success", "missing_effects")
                )
                wrong += [f"{path.name} {mark} {name}"] if not (taken and once and honest) else []

    assert wrong == []


def test_all_can_be_planned_on_every_backend() -> None:
    for path in FILES:
        for made in experiments_of(path).values():
            for backend in BACKENDS:
                subject = lab_subject(backend, agents=True)
                for arm in made.arms:
                    plan = plan_trial(
                        scenario="s",
                        hypothesis="",
                        experiment=made,
                        fault=made.faults[0],
                        repeat=0,
                        seed=1,
                        services=subject.may_hit,
                        capacity_tokens_per_s=subject.capacity_tokens_per_s,
                        arm=arm,
                    )
                    assert "engine" in plan.needs
                    if backend == "sim":
                        require_capacity(plan, subject.capacity_tokens_per_s, backend)
