"""Metrics of real engines, compared with their servers' files."""

import json
from pathlib import Path

import pytest
from support.live_contract import falsely_absent, recognised, states, version
from support.live_servers import MODEL, fetch, llamacpp, ollama, simulated

from pytest_llmchaos.servers.catalogue import server

pytestmark = pytest.mark.timeout(240)
ROOT = Path(__file__).parents[2]


def test_the_simulated_engine_exports_all_of_its_file():
    with simulated() as live:
        before = states("sim", live)
        live.answer()

        assert set(before.values()) == set(states("sim", live).values()) == {"found"}
        assert recognised(live) == ("sim", "certain")
        assert falsely_absent(server("sim"), live.page()) == {}


def test_llama_cpp_exports_all_of_its_file():
    with llamacpp() as live:
        live.answer()

        assert set(states("llamacpp", live).values()) == {"found"}
        assert recognised(live) == ("llamacpp", "certain")
        assert falsely_absent(server("llamacpp"), live.page()) == {}
        assert version("llamacpp", live)


def test_ollama_has_no_metrics_and_its_last_chunk_has_what_a_gateway_derives_them_from():
    with ollama() as live:
        last = json.loads(live.answer("/api/chat").splitlines()[-1])

        assert fetch(live.metrics)[0] == 404
        assert fetch(f"{live.url}/")[0] == 200
        assert version("ollama", live)
    assert last["done"]
    assert last["model"] == MODEL
    parts = ("load_duration", "prompt_eval_duration", "eval_duration")
    assert 0 < sum(last[one] for one in parts) <= last["total_duration"] < 240e9
    assert last["total_duration"] > 1e6  # nanoseconds
    assert last["eval_count"] == 8
    assert last["prompt_eval_count"] > 0
    said = (ROOT / "pytest_llmchaos" / "servers" / "ollama.toml").read_text()
    assert {one for one in last if one.endswith(("_duration", "_count"))} <= set(said.replace("`", " ").split())


def test_a_metric_that_a_file_calls_absent_and_a_page_has_is_noticed():
    one = server("llamacpp")
    page = "llamacpp:time_to_first_token_seconds_bucket 1\nllamacpp:predicted_tokens_seconds 1\n"

    assert falsely_absent(one, page) == {"ttft": {"llamacpp:time_to_first_token_seconds"}}
