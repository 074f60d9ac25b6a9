"""Prices of providers: their file, and the rules made from it."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
import yaml
from support.prometheus_server import program

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.generate import main
from pytest_llmchaos.generate.prices import parse_prices, price_rules

if TYPE_CHECKING:
    from pathlib import Path

PRICES = """\
currency = "EUR"

[providers.vllm]
replica_hour = 3.6

["providers"."azure.ai.openai"]
input_per_million = 2
output_per_million = 10

[providers.half]
input_per_million = 2

[providers.blind]
input_per_million = 2

[providers.idle]
input_per_million = 2
"""
INFO = "llmlab_provider_info"
TOKENS = "llmlab_provider_tokens_total"
PROMPTS = "llmlab_provider_prompts_total"
ENDED = "llmlab_provider_requests_total"
GOOD = "llmchaos_client_replica_good_total"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prices.toml").write_text(PRICES)
    return tmp_path


def _series(name: str, per_second: float, **labels: str) -> dict[str, str]:
    """A counter, scraped every 15 s for 5 minutes."""
    text = ", ".join(f'{key}="{value}"' for key, value in labels.items())
    step = 15 * per_second
    return {"series": f"{name}{{{text}}}", "values": f"0+{step:g}x20"}


def test_the_rules_compute_what_answers_cost(folder: Path) -> None:
    """By hand: vLLM has 2 replicas at 0.001 a second, and 4 good answers a second.

    Azure has 100 tokens of prompts and 50 of answers a second: 0.0002 + 0.0005. Clients
    find half of its 2 answers a second good. 1,000 cost 0.5, 0.35, and 0.7 by clients.

    `half` has usage for one of 2 prompts a second, with 100 tokens: 0.0004. `blind` has
    no usage, so it has no cost. vLLM has no usage either, and no price of prompts.
    """
    (folder / "rules.yml").write_text(price_rules(parse_prices(PRICES, "prices.toml"), "prices.toml"))
    vllm, azure, half, blind, idle = (
        {"gen_ai_provider_name": name} for name in ("vllm", "azure.ai.openai", "half", "blind", "idle")
    )
    series = [
        {"series": f'{INFO}{{gen_ai_provider_name="vllm", replica="model-{number}"}}', "values": "1x20"}
        for number in (1, 2)
    ]
    series += [
        *(
            {"series": f'{INFO}{{gen_ai_provider_name="{name}", replica="{replica}"}}', "values": "1x20"}
            for name, replica in (("azure.ai.openai", "cloud"), ("half", "h"), ("blind", "b"), ("idle", "i"))
        ),
        *(
            _series(PROMPTS, rate, replica=replica, counted=counted, **of)
            for of, replica, by_usage, missing in (
                (vllm, "model-1", 0, 4),
                (azure, "cloud", 2, 0),
                (half, "h", 1, 1),
                (blind, "b", 0, 2),
                (idle, "i", 0, 0),
            )
            for counted, rate in (("usage", by_usage), ("missing", missing))
        ),
        *(
            _series(TOKENS, rate, replica=replica, gen_ai_token_type=kind, counted=counted, **of)
            for of, replica, tokens in ((half, "h", 100), (blind, "b", 0), (idle, "i", 0))
            for kind, counted, rate in (("input", "usage", tokens), ("output", "events", tokens))
        ),
        *(_series(ENDED, 2, replica=replica, outcome="ok", **of) for of, replica in ((half, "h"), (blind, "b"))),
        *(_series(TOKENS, 500, replica=f"model-{n}", gen_ai_token_type="output", **vllm) for n in (1, 2)),
        *(_series(TOKENS, 0, replica=f"model-{n}", gen_ai_token_type="input", **vllm) for n in (1, 2)),
        _series(TOKENS, 100, replica="cloud", gen_ai_token_type="input", counted="usage", **azure),
        _series(TOKENS, 20, replica="cloud", gen_ai_token_type="output", counted="usage", **azure),
        _series(TOKENS, 30, replica="cloud", gen_ai_token_type="output", counted="events", **azure),
        *(_series(ENDED, 2, replica=f"model-{n}", outcome="ok", **vllm) for n in (1, 2)),
        _series(ENDED, 1, replica="model-1", outcome="upstream_5xx", **vllm),
        _series(ENDED, 2, replica="cloud", outcome="ok", **azure),
        _series(GOOD, 1, replica="cloud", job="clients"),
    ]

    def sample(name: str, counted: str, value: float) -> dict[str, object]:
        labels = f'counted="{counted}", currency="EUR", gen_ai_provider_name="{name}"'
        return {"labels": f"{{{labels}}}", "value": value}

    wanted = [
        sample("vllm", "gateway", 0.5),
        sample("azure.ai.openai", "gateway", 0.35),
        sample("azure.ai.openai", "clients", 0.7),
        sample("half", "gateway", 0.2),
    ]
    per_second = [
        {"labels": f'{{currency="EUR", gen_ai_provider_name="{name}"}}', "value": value}
        for name, value in (("vllm", 0.002), ("azure.ai.openai", 0.0007), ("half", 0.0004), ("idle", 0))
    ]
    test = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": "15s",
        "tests": [
            {
                "interval": "15s",
                "input_series": series,
                "promql_expr_test": [
                    {
                        "expr": "round(llmchaos:cost_per_1000_good_answers, 0.001)",
                        "eval_time": "4m",
                        "exp_samples": wanted,
                    },
                    {
                        "expr": "round(llmchaos:provider_cost_per_second, 0.0001)",
                        "eval_time": "4m",
                        "exp_samples": per_second,
                    },
                ],
            }
        ],
    }
    (folder / "test.yml").write_text(yaml.safe_dump(test))

    done = subprocess.run(
        [program("promtool"), "test", "rules", "test.yml"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_the_command_writes_rules_that_prometheus_takes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--prices", "prices.toml", "--out", "made"]) == 0

    assert [path.name for path in (folder / "made").iterdir()] == ["prices.rules.yml"]
    assert capsys.readouterr().out == "wrote prices.rules.yml\n"
    checked = [program("promtool"), "check", "rules", "made/prices.rules.yml"]
    done = subprocess.run(checked, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert main(["--prices", "prices.toml", "--out", "made", "--check"]) == 0
    (folder / "prices.toml").write_text(PRICES.replace("3.6", "7.2"))
    assert main(["--prices", "prices.toml", "--out", "made", "--check"]) == 1


@pytest.mark.parametrize("given", [["--prices", "prices.toml"], ["--out", "made"]])
def test_prices_need_a_folder(folder: Path, given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(given) == 2
    assert "--prices FILE and --out DIR" in capsys.readouterr().err
    assert not (folder / "made").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("currency = ", "prices.toml must be TOML"),
        (PRICES.replace("EUR", "euro"), "currency must be three capital letters, such as \"USD\", got 'euro'"),
        (PRICES.replace('currency = "EUR"', ""), 'currency must be three capital letters, such as "USD", got None'),
        ('currency = "EUR"', r"must have a table for each provider, such as \[providers.vllm\], got None"),
        ('currency = "EUR"\nproviders = 3', "must have a table for each provider"),
        (PRICES + "[more]\n", "unknown key 'more': use currency and providers"),
        (
            PRICES.replace("replica_hour", "per_hour"),
            "providers.vllm has the unknown key 'per_hour'; the keys are input",
        ),
        (PRICES.replace("3.6", '"3.6"'), "providers.vllm.replica_hour must be a number from 0 to 1e[+]09, got '3.6'"),
        (PRICES.replace("3.6", "-1"), "must be a number from 0 to 1e[+]09, got -1"),
        (PRICES.replace("3.6", "nan"), "must be a number from 0 to 1e[+]09, got nan"),
        (PRICES.replace("3.6", "true"), "must be a number from 0 to 1e[+]09, got True"),
        (PRICES.replace("[providers.vllm]", '[providers."v LLM"]'), "the name must be one of LAB_PROVIDERS"),
        (PRICES.replace("replica_hour = 3.6", ""), "providers.vllm must be a table with one of input_per_million"),
    ],
)
def test_a_wrong_file_is_one_error(folder: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BadScenario, match=said):
        parse_prices(text, "prices.toml")
    (folder / "prices.toml").write_text(text)

    assert main(["--prices", "prices.toml", "--out", "made"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (folder / "made").exists()


def test_a_missing_file_is_an_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--prices", "other.toml", "--out", "made"]) == 2
    assert "other.toml" in capsys.readouterr().err
