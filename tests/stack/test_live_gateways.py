"""Metrics of foreign gateways, compared with their servers' files.

Each is in front of the simulated engine, and a program of `make scoreboard` or an
image. It needs no stack.
"""

import json

import pytest
from support.live_contract import falsely_absent, recognised, states, version
from support.live_servers import MODEL, gateway, simulated
from support.waiting import until

from pytest_llmchaos.servers.catalogue import server

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]
ROUTER = ("--host", "127.0.0.1", "--port", "{port}", "--prometheus-host", "127.0.0.1", "--prometheus-port", "{metrics}")
LITELLM = {
    "LITELLM_OFFLINE_MODE": "true",
    "LITELLM_LOCAL_MODEL_COST_MAP": "true",
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
}


@pytest.fixture(scope="module")
def engine():
    with simulated() as live:
        yield live


def test_smg(engine):
    options = ("launch", *ROUTER, "--worker-urls", engine.url, "--worker-startup-check-interval", "1")
    with gateway("smg", *options, "--disable-tokenizer-autoload", "--log-level", "warn") as live:
        live.answer()
        found = until(lambda: _settled(live, "smg"), "smg has counted an answer", seen=lambda: states("smg", live))

        assert recognised(live) == ("smg", "certain")
        assert falsely_absent(server("smg"), live.page()) == {}
    assert found == {
        **dict.fromkeys(("running", "done", "heartbeat", "healthy"), "found"),
        **dict.fromkeys(("failed", "aborted"), "late"),
        **dict.fromkeys(("ttft", "per_token", "e2e", "tokens_in", "tokens_out"), "needs option"),  # gRPC
        **dict.fromkeys(("waiting", "kv_use"), "needs option"),  # an engine that reports its load
    }


def test_vllm_router(engine):
    options = (*ROUTER, "--worker-urls", engine.url, "--worker-startup-check-interval", "1", "--log-level", "warning")
    with gateway("vllm-router", *options, "--policy", "cache_aware") as live:
        live.answer()
        found = until(lambda: _settled(live, "vllm-router"), "the router has counted an answer")

        assert recognised(live) == ("vllm-router", "certain")
        assert falsely_absent(server("vllm-router"), live.page()) == {}
    assert found == {"running": "found", "done": "found", "failed": "late", "healthy": "found"}


@pytest.mark.nightly("test_server_facts has a page of it. It takes half a minute of both cores to start")
def test_litellm(engine, tmp_path):
    config = tmp_path / "litellm.yaml"
    upstream = {"model": f"openai/{MODEL}", "api_base": f"{engine.url}/v1", "api_key": "none"}
    config.write_text(
        json.dumps(
            {
                "model_list": [{"model_name": MODEL, "litellm_params": upstream}],
                "litellm_settings": {"callbacks": ["prometheus"]},
            }
        )
    )
    tmp_path.chmod(0o755)
    options = ("--config", str(config), "--host", "127.0.0.1", "--port", "{port}")
    with gateway("litellm", *options, health="/health/liveliness", **LITELLM) as served:
        live = type(served)(url=served.url, metrics=f"{served.url}/metrics/")
        live.answer()
        found = until(lambda: _settled(live, "litellm"), "LiteLLM has counted an answer")

        assert recognised(live) == ("litellm", "certain")
        assert falsely_absent(server("litellm"), live.page()) == {}
        assert version("litellm", live)[0].isdigit()
    shown = ("running", "ttft", "e2e", "queue_time", "done", "tokens_in", "tokens_out", "healthy")
    assert found == {**dict.fromkeys(shown, "found"), "failed": "late", "prefix_hits": "late"}


def _settled(live, name):
    """The states once the answer is counted, which some do after its end."""
    found = states(name, live)
    return found if found["done"] == "found" else None
