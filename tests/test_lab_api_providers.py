"""Providers' metrics at the gateway, and those that it derives for Ollama."""

import json
import time
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.lab_api_world import DONE, MODEL, World, answers, ask, chunk, hangs, in_world, sends, whole

from lab_api.outcomes import Outcome
from lab_api.settings import Settings
from lab_api.sse import Scanner
from lab_api.tally import Attempt, Tally, Usage
from lab_common.settings import SettingsError

REPLICAS = {"LAB_MODEL": MODEL, "LAB_REPLICAS": "model-1=http://a:1,model-2=http://b:1"}
TTFT = "llmlab_provider_time_to_first_token_seconds"
PER_TOKEN = "llmlab_provider_time_per_output_token_seconds"


def usage(prompt: int, output: int) -> bytes:
    """The last event of a server that counts tokens."""
    said = {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": output}}
    return b"data: " + json.dumps(said).encode() + b"\n\n"


def _families(text: str) -> dict[str, Any]:
    return {family.name: family for family in text_string_to_metric_families(text)}


async def _values(it: World, prefix: str) -> dict[str, Any]:
    return {
        name: family
        for name, family in _families((await it.get("/metrics")).body.decode()).items()
        if name.startswith(prefix)
    }


async def _outcomes(it: World, provider: str) -> dict[str, int]:
    family = (await _values(it, "llmlab_provider_requests"))["llmlab_provider_requests"]
    return {
        sample.labels["outcome"]: int(sample.value)
        for sample in family.samples
        if sample.labels["gen_ai_provider_name"] == provider and sample.value
    }


@in_world(2, LAB_PROVIDERS="model-1=vllm,model-2=sglang")
async def test_each_provider_is_counted_by_its_own_name(it: World) -> None:
    began_s = time.monotonic()
    for _ in range(6):
        assert (await it.chat()).complete
    spent_s = time.monotonic() - began_s

    for provider, replica in (("vllm", "model-1"), ("sglang", "model-2")):
        labels = {"gen_ai_provider_name": provider, "replica": replica}
        assert await it.metric("llmlab_provider_requests_total", outcome="ok", **labels) == 3
        assert await it.metric(f"{TTFT}_count", **labels) == 3
        assert 0 < await it.metric(f"{TTFT}_sum", **labels) < spent_s
        assert await it.metric(f"{PER_TOKEN}_count", **labels) == 3
        assert await it.metric("llmlab_provider_request_duration_seconds_count", **labels) == 3
        tokens = await it.metric("llmlab_provider_tokens_total", gen_ai_token_type="output", counted="events", **labels)
        assert tokens == 9


@in_world(1)
async def test_a_replica_without_a_provider_has_its_own_name(it: World) -> None:
    await it.chat()

    assert await it.metric("llmlab_provider_requests_total", outcome="ok", gen_ai_provider_name="model-1") == 1


@in_world(1)
async def test_usage_is_counted_in_place_of_events(it: World) -> None:
    it.models[0].behaviour = sends(chunk("a "), chunk("b c ", finish="stop"), usage(11, 3), DONE)
    assert (await it.chat()).complete

    name = "llmlab_provider_tokens_total"
    assert await it.metric(name, gen_ai_token_type="input", counted="usage") == 11
    assert await it.metric(name, gen_ai_token_type="output", counted="usage") == 3
    assert await it.metric(name, counted="events") == 0
    assert await it.metric("llmlab_provider_prompts_total", counted="usage") == 1


@in_world(1)
async def test_a_whole_answer_has_its_usage_and_duration_but_no_first_token(it: World) -> None:
    body = {
        "choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 1},
    }
    it.models[0].behaviour = answers(200, body)
    assert (await it.chat(ask(stream=False))).status == 200

    assert await it.metric("llmlab_provider_tokens_total", gen_ai_token_type="input") == 7
    assert await it.metric("llmlab_provider_request_duration_seconds_count") == 1
    assert await it.metric(f"{TTFT}_count") == 0


@in_world(2, LAB_EJECT_MIN_REQUESTS="100", LAB_EJECT_CONNECT_FAILURES="100")
async def test_a_failure_that_a_retry_hid_counts_for_its_provider_as_an_endless_wait(it: World) -> None:
    it.models[0].behaviour = answers(500)
    for _ in range(2):
        assert (await it.chat()).complete

    failed = await _outcomes(it, "model-1")
    assert set(failed) == {"upstream_5xx"}
    assert await _outcomes(it, "model-2") == {"ok": 2}
    assert await it.metric(f"{TTFT}_bucket", gen_ai_provider_name="model-1", le="160.0") == 0
    assert await it.metric(f"{TTFT}_bucket", gen_ai_provider_name="model-1", le="+Inf") == failed["upstream_5xx"]


@in_world(1, LAB_RETRY="off", LAB_GAP_TIMEOUT_S="0.05")
async def test_the_tokens_of_a_cut_answer_count_and_its_speed_does_not(it: World) -> None:
    it.models[0].behaviour = sends(chunk("a "), chunk("b "), then="hang")
    assert not (await it.chat()).complete

    assert await _outcomes(it, "model-1") == {"stall_timeout": 1}
    assert await it.metric("llmlab_provider_tokens_total", counted="events") == 2
    assert await it.metric(f"{TTFT}_count") == 1
    assert await it.metric(f"{PER_TOKEN}_count") == 0


@in_world(1, LAB_RETRY="off", LAB_TTFT_TIMEOUT_S="0.05", LAB_UPSTREAM="ollama")
async def test_what_is_derived_for_ollama_is_what_the_gateway_saw_of_it(it: World) -> None:
    it.models[0].behaviour = sends(chunk("a "), chunk("b "), chunk(finish="stop"), usage(5, 2), DONE)
    await it.chat()
    it.models[0].behaviour = hangs
    await it.chat()
    derived = await _values(it, "ollama_derived_")

    assert set(derived) == {
        *("ollama_derived_request_duration_seconds", "ollama_derived_time_to_first_token_seconds"),
        *("ollama_derived_time_per_output_token_seconds", "ollama_derived_prompt_tokens"),
        *("ollama_derived_output_tokens", "ollama_derived_requests_done", "ollama_derived_requests_running"),
    }
    labels = {"replica": "model-1", "model": MODEL}
    assert all(labels.items() <= one.labels.items() for family in derived.values() for one in family.samples)
    for name, value in (
        ("prompt_tokens_total", 5),
        ("output_tokens_total", 2),
        ("requests_done_total", 1),
        ("requests_running", 0),
        # As at servers with metrics of their own, a failure has no time.
        ("time_to_first_token_seconds_count", 1),
        ("request_duration_seconds_count", 1),
        ("time_per_output_token_seconds_count", 1),
    ):
        assert await it.metric(f"ollama_derived_{name}") == value, name


@in_world(1)
async def test_nothing_is_derived_for_servers_with_metrics(it: World) -> None:
    it.models[0].behaviour = whole()
    await it.chat(ask(stream=False))

    assert await _values(it, "llmlab_provider_requests")
    assert not await _values(it, "ollama_derived_")


@pytest.mark.parametrize(
    ("events", "tokens"),
    [
        pytest.param([chunk("a"), chunk("b", finish="stop"), DONE], 2, id="text in the last event"),
        pytest.param([chunk(role="assistant"), chunk("a"), chunk(finish="stop"), DONE], 1, id="vLLM opens and ends"),
        pytest.param([chunk("a"), chunk(finish="stop"), usage(3, 1), DONE], 1, id="usage"),
        pytest.param([chunk("a"), chunk(), chunk("b"), chunk(finish="stop"), DONE], 3, id="a token without text"),
    ],
)
def test_events_with_a_token_are_counted(events: list[bytes], tokens: int) -> None:
    scanner = Scanner()
    for event in events:
        scanner.feed(event)

    assert scanner.complete
    assert scanner.tokens == tokens


def test_the_time_of_a_token_is_the_mean_after_the_first() -> None:
    tally = Tally()
    tally.add(Outcome.OK, Attempt(streaming=True, first_token_s=0.1, last_s=0.5, events=9, usage=None))
    tally.add(
        Outcome.OK,
        Attempt(streaming=True, first_token_s=1.0, last_s=2.0, events=9, usage=Usage(prompt=4, output=3)),
    )

    assert tally.prompts == {"usage": 1, "missing": 1}
    assert tally.per_token.sum_s == pytest.approx(0.4 / 8 + 1.0 / 2)
    assert tally.first_token.sum_s == pytest.approx(1.1)
    assert tally.duration.sum_s == pytest.approx(2.5)


def test_a_prompt_without_usage_is_missing_if_the_server_worked_on_it() -> None:
    tally = Tally()
    whole = Attempt(streaming=False, first_token_s=None, last_s=0.5, events=0, usage=None)
    cut = Attempt(streaming=True, first_token_s=0.1, last_s=0.5, events=3, usage=None)
    tally.add(Outcome.OK, whole)
    tally.add(Outcome.UPSTREAM_5XX, whole)
    tally.add(Outcome.TRUNCATED, cut)

    assert tally.prompts == {"usage": 0, "missing": 2}


@pytest.mark.parametrize(
    "said", [None, 3, {}, {"prompt_tokens": 1}, {"prompt_tokens": -1, "completion_tokens": 1}, {"prompt_tokens": True}]
)
def test_what_is_no_usage_is_not_counted(said: object) -> None:
    assert Usage.of(said) is None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("model-1", "replica=provider, as in model-1=vllm,model-2=sglang, instead of 'model-1'"),
        ("model-1=V LLM", "instead of 'model-1=V LLM'"),
        ("model-1=a,model-1=b", "one provider for each replica instead of 'model-1' twice"),
        ("model-9=vllm", r"LAB_PROVIDERS: expected replicas of LAB_REPLICAS \(model-1, model-2\), got model-9"),
    ],
)
def test_a_wrong_provider_is_one_error(given: str, expected: str) -> None:
    with pytest.raises(SettingsError, match=expected) as refused:
        Settings.from_env(REPLICAS | {"LAB_PROVIDERS": given})

    assert len(str(refused.value).splitlines()) == 1


def test_a_wrong_kind_of_upstream_is_an_error() -> None:
    with pytest.raises(SettingsError, match="LAB_UPSTREAM: expected openai or ollama, got 'vllm'"):
        Settings.from_env(REPLICAS | {"LAB_UPSTREAM": "vllm"})
