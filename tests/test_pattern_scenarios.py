"""Scenarios of the gateway's patterns."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, fields
from pathlib import Path

import pytest
from support.pattern_scenarios import FOLDER, experiment_of

from lab_api.affinity import Prefix
from lab_api.settings import Affinity, Patterns
from lab_engine.profiles import PROFILES
from lab_engine.tokens import prompt_tokens
from pytest_llmchaos.subject.lab import lab_subject

FILES = sorted(FOLDER.glob("test_*.py"))
SWITCHES = {one.name for one in fields(Patterns)}
# Their benefit is a count, of answers or of restarts, which has no interval.
COUNTS = {"drain", "health_apart", "retry_after", "retry_budget", "strict"}


@dataclass
class Idle:
    name: str
    in_flight: int = 0


def name_of(path: Path) -> str:
    return path.stem.removeprefix("test_")


def test_each_pattern_has_a_scenario() -> None:
    assert {name_of(path) for path in FILES} == SWITCHES


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_arms_differ_in_one_switch(path: Path) -> None:
    arms = experiment_of(name_of(path)).arms
    on, off = (dict(arms[name].environment.get("api", {})) for name in ("on", "off"))
    switch = f"LAB_{name_of(path).upper()}"
    default = getattr(Patterns(), name_of(path))

    assert list(arms) == ["on", "off"]
    assert {on.pop(switch, "on" if default else "off")} == {"on"}
    assert {off.pop(switch, "on" if default else "off")} == {"off"}
    assert not (on.keys() | off.keys()) & {f"LAB_{name.upper()}" for name in SWITCHES} or on == off
    others = [{name: arm.environment[name] for name in arm.environment if name != "api"} for arm in arms.values()]
    assert others[0] == others[1]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_each_claims_an_end_of_the_interval_and_the_cost_of_health(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    effects = set(re.findall(r"assert arms\.(\w+)\.[\w.()]+\.(?:low >=?|high <=)", text))

    assert "assert arms.before_fault.ttft_s.p50.high <= 0.005" in text
    assert bool(effects - {"before_fault"}) != (name_of(path) in COUNTS)
    assert name_of(path) not in COUNTS or {'arms["on"]', 'arms["off"]'} <= set(re.findall(r'arms\["\w+"\]', text))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_each_states_what_its_pattern_does_not_help_against(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""

    assert re.search(r"^It does not ", docstring, re.MULTILINE)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_the_load_fits_the_simulated_engine(path: Path) -> None:
    made = experiment_of(name_of(path))

    assert made.simulated_engine
    assert made.load.tokens_per_s <= lab_subject("sim").capacity_tokens_per_s


def test_the_documents_of_affinity_fill_both_caches_evenly() -> None:
    made = experiment_of("affinity")
    texts = (FOLDER / "documents.txt").read_text(encoding="utf-8").splitlines()
    engine = made.arms["on"].environment["model-1"]
    block_tokens = PROFILES["fast"].limits.block_tokens
    needed = [prompt_tokens(text.encode()) / block_tokens for text in texts]
    bounds = Affinity()
    idle = [Idle("model-1"), Idle("model-2")]
    homes = [
        min(
            idle,
            key=Prefix.of([{"role": "user", "content": text}], chars=bounds.chars, factor=bounds.factor).order(idle),
        ).name
        for text in texts
    ]

    assert len(set(texts)) == len(texts) == 2 * homes.count("model-1")
    assert sum(needed) / 2 < int(engine["LAB_KV_BLOCKS"]) <= sum(needed) * 2 / 3
