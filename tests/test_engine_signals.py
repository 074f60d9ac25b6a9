"""The remediator's signals of engines, over histories in three servers' names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.rule_cases import assert_rules_say
from support.rule_histories import ENGINES, Story, between, counted, engine, lab, steady

from pytest_llmchaos.generate.prices import COST_PER_1000
from pytest_llmchaos.servers.canonical import CANONICAL

STACK = Path(__file__).parent.parent / "stack"
SIGNALS: dict[str, dict[str, Any]] = yaml.safe_load((STACK / "remediation.yaml").read_text())["signals"]
WAITS_S = 'llmlab_oldest_inflight_seconds{phase="prefill",replica="model-2",service="api"}'
COUNTS_STEPS = ("vllm", "sglang")
HUNG = counted(lambda s: 0 if 20 <= s < 40 else 50)
AT_WORK = counted(lambda s: 5)


def fires(signal: str, at_s: int, *, on: str = "", still_s: int = 3) -> dict[str, Any]:
    """Check that the signal fires on one service, by default on none."""
    by, query, bound = (SIGNALS[signal].get(key, "service") for key in ("by", "query", "fires"))
    query = query.replace("[3s]", f"[{still_s}s]")
    samples = [{"labels": f'{{{by}="{on}"}}', "value": 1}] if on else []
    return {"expr": f"count by ({by}) (({query}) {bound})", "eval_time": f"{at_s}s", "exp_samples": samples}


def with_model_2(server: str, steps: Story, waits_s: Story) -> dict[str, Story]:
    """A lab whose replica model-1 is idle, with the steps and the wait of model-2."""
    idle = engine(server, "model-1", running=steady(0), steps=steady(50))
    return lab(servers=(server, server)) | idle | engine(server, "model-2", steps=steps) | {WAITS_S: waits_s}


@pytest.mark.parametrize("server", COUNTS_STEPS)
def test_a_hung_engine_is_still_and_shows_no_work(server: str, tmp_path: Path) -> None:
    hung = with_model_2(server, HUNG, between(20, 40, 5, 0.1))

    checks = [
        fires("replica-still", 19),
        fires("engine-steps", 19, on="model-2"),
        *(fires(signal, 26, on="model-2") for signal in ("replica-still", "replica-suspect")),
        # With a longer window, for engines on a CPU, it may be one long step.
        *(fires(signal, 31, still_s=15) for signal in ("replica-still", "replica-suspect")),
        *(fires(signal, 38, still_s=15, on="model-2") for signal in ("replica-still", "replica-suspect")),
        fires("engine-steps", 26),
        *(fires(signal, 44) for signal in ("replica-still", "replica-suspect")),
        fires("engine-steps", 44, on="model-2"),
    ]
    assert_rules_say(tmp_path, (hung, 50, checks))


@pytest.mark.parametrize("server", ENGINES)
def test_a_busy_engine_shows_work_however_long_clients_wait(server: str, tmp_path: Path) -> None:
    busy = with_model_2(server, AT_WORK, between(20, 40, 30, 0.1))

    checks = [
        fires("replica-still", 30),
        fires("replica-suspect", 30),
        fires("engine-steps", 30, on="model-2"),
    ]
    assert_rules_say(tmp_path, (busy, 40, checks))


def test_an_engine_that_counts_batches_is_not_still_during_a_long_prompt(tmp_path: Path) -> None:
    """The next batch shows work: llama.cpp's count vetoes a kill and proves none."""
    long_prompt = with_model_2("llamacpp", HUNG, between(20, 40, 20, 0.1))

    checks = [
        *(fires(signal, 30) for signal in ("replica-still", "replica-suspect", "engine-steps")),
        fires("engine-steps", 44, on="model-2"),
    ]
    assert_rules_say(tmp_path, (long_prompt, 50, checks))


def test_one_of_an_engines_counts_may_stand_still(tmp_path: Path) -> None:
    """SGLang counts tokens of prompts and of answers apart."""
    series = with_model_2("sglang", AT_WORK, between(20, 40, 5, 0.1))
    series['sglang:realtime_tokens_total{job="model",mode="prefill_cache",service="model-2"}'] = steady(0)

    assert_rules_say(tmp_path, (series, 40, [fires("replica-still", 30), fires("engine-steps", 30, on="model-2")]))


def test_each_of_two_servers_side_by_side_has_its_own_signal(tmp_path: Path) -> None:
    mixed = lab(servers=("vllm", "sglang")) | engine("sglang", "model-2", steps=HUNG) | {WAITS_S: between(20, 40, 5, 0)}

    checks = [fires("replica-still", 26, on="model-2"), fires("engine-steps", 26, on="model-1")]
    assert_rules_say(tmp_path, (mixed, 40, checks))


def test_no_rule_panel_or_signal_of_the_lab_names_an_engines_own_metrics() -> None:
    root = STACK.parent
    texts = {
        path.name: path.read_text(encoding="utf-8")
        for folder, pattern in (
            ("stack/prometheus/rules", "*.yml"), ("stack", "remediation*.yaml"), ("dashboards", "*.json"),
            ("scenarios", "**/*.py"), ("pytest_llmchaos/subject", "*.py"), ("pytest_llmchaos/faults", "*.py"),
        )
        for path in sorted((root / folder).glob(pattern))
        if path.name != "servers.yml"
    }  # fmt: skip
    own = re.compile(r"\b(?:vllm:|sglang[:_]|trtllm_|nv_[a-z]+_|tgi_|llamacpp:|dynamo_)\w+")
    known = {one.name for one in CANONICAL} | {COST_PER_1000}
    used = {name for text in texts.values() for name in re.findall(r"llmchaos:\w+[a-z0-9]", text)}

    assert {name: found for name, text in texts.items() if (found := own.findall(text))} == {}
    assert {re.sub(r"_bucket$", "", name) for name in used} - known == {"llmchaos:requests"}  # of running|waiting
