"""The page of the gateway's patterns, from a run."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
SPEC = importlib.util.spec_from_file_location("generate_patterns", ROOT / "docs" / "generate_patterns.py")
assert SPEC is not None
assert SPEC.loader is not None
generator: Any = importlib.util.module_from_spec(SPEC)
sys.modules[SPEC.name] = generator  # dataclasses look there
SPEC.loader.exec_module(generator)


def effect(measure: str, *, is_ratio: bool = False, **values: float | None) -> dict[str, object]:
    numbers = {"first_value": 1.0, "second_value": 0.8, "value": 0.2, "low": 0.15, "high": 0.25} | values
    return {"measure": measure, "is_ratio": is_ratio, **numbers}


def run_of(*claims: tuple[str, str, list[dict[str, object]]], scenario: str = "retry", arm: str | None = "on") -> Any:
    listed = [{"nodeid": f"x.py::{name}", "outcome": outcome, "effects": found} for name, outcome, found in claims]
    trial = {"scenario": scenario, "arm": arm, "fault": "flaky model-1", "environment": None, "claims": listed}
    trial |= {"undo": [{"fault": "flaky", "victim": "model-1", "strength": {"share": 0.3}}]}
    other = trial | {"arm": arm and "off", "environment": {"api": {"LAB_RETRY": "off"}}}
    return {"trials": [trial, other], "environment": {"commit": "abc", "cores": 2}, "seed": 42, "runtime": "local"}


def page_of(run: Any) -> str:
    text: str = generator.page(run, generator.patterns_of(run))
    return text


def test_an_effect_and_the_cost_of_health_are_one_row() -> None:
    healthy = effect(
        "before_fault.ttft_s.p50", first_value=0.02, second_value=0.02, value=0.0001, low=-0.001, high=0.002
    )
    page = page_of(run_of(("test_a", "passed", [effect("during_fault.availability")]), ("test_b", "passed", [healthy])))

    assert (
        "| [retry](#retry) | flaky(share=0.3) on model-1 | availability: +20 points (+15 points to +25 points), 100 % instead of 80 % "
        "| +0.1 ms (at most +2 ms) |"
    ) in page
    assert "2 of 2 claims held" in page
    assert "- **off**: `LAB_RETRY=off`" in page
    assert "It does not help" in page


def test_a_fault_of_two_services_is_named_once_and_one_without_an_undo_by_its_label() -> None:
    run = run_of(("test_a", "passed", []))
    run["trials"][0]["undo"] += [
        {"fault": "flaky", "victim": "model-2", "strength": {"share": 0.3}},
        {"fault": "kill", "victim": "api"},
    ]
    assert "| flaky(share=0.3) on model-1 and model-2<br>kill on api |" in page_of(run)
    run["trials"][0]["undo"] = []
    assert "| flaky model-1 |" in page_of(run)


def test_an_effect_after_the_fault_is_named_so() -> None:
    page = page_of(run_of(("test_a", "passed", [effect("after_fault.availability")])))

    assert "| after the fault, availability: +20 points" in page


def test_variables_of_the_replicas_name_them_once() -> None:
    run = run_of(("test_a", "passed", []))
    engine = {"LAB_LOAD_S": "0", "LAB_KV_BLOCKS": "250"}
    run["trials"][0]["environment"] = {"api": {"LAB_AFFINITY": "on"}, "model-1": engine, "model-2": engine}
    run["trials"][1]["environment"] = {"model-1": engine}

    page = page_of(run)

    assert "- **on**: `LAB_AFFINITY=on`; `LAB_LOAD_S=0` `LAB_KV_BLOCKS=250` of model-1 and model-2\n" in page
    assert "- **off**: `LAB_LOAD_S=0` `LAB_KV_BLOCKS=250` of model-1\n" in page


def test_a_ratio_and_an_endless_wait_have_words() -> None:
    late = effect("during_fault.ttft_s.at(0.98)", is_ratio=True, first_value=0.08, second_value=None, value=0.1)

    assert "0.1 times (0.15 to 0.25), 80 ms instead of ∞" in page_of(run_of(("test_a", "passed", [late])))


def test_a_refuted_claim_is_shown_as_one() -> None:
    page = page_of(run_of(("test_retries_keep_answers", "failed", []), ("test_b", "error", [])))

    assert "- retries keep answers: **refuted**" in page
    assert "- b: proves nothing" in page
    assert "0 of 2 claims held" in page


def test_a_pattern_without_a_scenario_is_left_out() -> None:
    assert generator.patterns_of(run_of(("test_a", "passed", []), scenario="gone")) == []


def test_a_run_without_arms_is_refused() -> None:
    with pytest.raises(SystemExit, match="run make patterns"):
        generator.patterns_of(run_of(arm=None))
