"""A real Ollama: what the gateway derives, against its own durations.

Its OpenAI API has no durations. So a tap between both sends the gateway's requests to
the API that has them, and turns its chunks into those of the OpenAI API.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import uvloop
import yaml
from aiohttp import web
from support.lab_api_world import MODEL, World, ask, world
from support.prometheus_server import prometheus_with
from support.waiting import until, until_async

from pytest_llmchaos.servers.catalogue import server
from pytest_llmchaos.servers.rules import recording_rules

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

START_DEADLINE_S = 120.0
REQUESTS, TOKENS = 8, 24
# Canonical series after one answer, without its tokens.
ONE_ANSWER = {
    "gen_ai_server_request_duration_seconds_count": 1,
    "gen_ai_server_time_to_first_token_seconds_count": 1,
    "gen_ai_server_time_per_output_token_seconds_count": 1,
    "llmchaos:requests_done_total": 1,
    "llmchaos:engine_steps_total": 1,
    "llmchaos:requests_running": 0,
}
# The gateway's clock includes two hops on loopback, and the event loop's turn.
SLACK_S = 0.05


@pytest.fixture(scope="module")
def ollama() -> Iterator[str]:
    """The address of an Ollama with the lab's model, from the lab's image."""
    try:
        found = subprocess.run(
            ["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "llmchaos/ollama"],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout.split()
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"no Docker here: {error}")
    if not found:
        pytest.skip("no image of Ollama here: run `llmchaos setup --backend ollama`")
    started = ["docker", "run", "--detach", "--rm", "--publish", "127.0.0.1::8080", found[0]]
    container = subprocess.run(started, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
    try:
        port = ["docker", "port", container, "8080"]
        address = subprocess.run(port, capture_output=True, text=True, check=True, timeout=60).stdout.split()[0]
        url = f"http://{address}"
        until(lambda: _is_warm(url), "an Ollama that answers", START_DEADLINE_S)
        yield url
    finally:
        subprocess.run(["docker", "kill", container], capture_output=True, check=False, timeout=60)


def _is_warm(url: str) -> bool:
    done = subprocess.run(
        ["curl", "-sf", "-m", "30", f"{url}/api/generate", "-d", json.dumps({"model": MODEL, "prompt": ""})],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


@dataclass(kw_only=True)
class Tap:
    """A replica that answers with Ollama's own API, and keeps each last chunk."""

    url: str
    last: list[dict[str, Any]] = field(default_factory=list)

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        said = await request.json()
        asked = {"model": said["model"], "messages": said["messages"], "options": {"num_predict": said["max_tokens"]}}
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        async with aiohttp.ClientSession() as session, session.post(f"{self.url}/api/chat", json=asked) as answer:
            async for line in answer.content:
                chunk = json.loads(line)
                if chunk["done"]:
                    self.last.append(chunk)
                await response.write(_events(chunk))
        return response


def _events(chunk: dict[str, Any]) -> bytes:
    """Events of Ollama's OpenAI API for a chunk of its own."""
    delta = {"role": "assistant", "content": chunk["message"]["content"]}
    said = [{"choices": [{"index": 0, "delta": delta, "finish_reason": chunk.get("done_reason")}]}]
    if chunk["done"]:
        usage = {"prompt_tokens": chunk["prompt_eval_count"], "completion_tokens": chunk["eval_count"]}
        said.append({"choices": [], "usage": usage})
    text = "".join(f"data: {json.dumps(one)}\n\n" for one in said)
    return (text + ("data: [DONE]\n\n" if chunk["done"] else "")).encode()


def _live(story: Any) -> None:
    async def run() -> None:
        async with world(1, LAB_UPSTREAM="ollama") as it:
            await story(it)

    uvloop.run(run())


async def _mean(it: World, name: str) -> float:
    total_s = await it.metric(f"ollama_derived_{name}_seconds_sum")
    return total_s / await it.metric(f"ollama_derived_{name}_seconds_count")


def test_derived_times_are_ollamas_own_durations(ollama: str) -> None:
    tap = Tap(url=ollama)

    async def story(it: World) -> None:
        it.models[0].behaviour = tap
        for _ in range(REQUESTS):  # one at a time: Ollama's durations leave out the wait in its queue
            assert (await it.chat(ask(max_tokens=TOKENS))).complete
        last = tap.last
        assert len(last) == REQUESTS
        assert await it.metric("ollama_derived_requests_done_total") == REQUESTS
        assert await it.metric("ollama_derived_prompt_tokens_total") == sum(one["prompt_eval_count"] for one in last)
        assert await it.metric("ollama_derived_output_tokens_total") == sum(one["eval_count"] for one in last)

        total_s = sum(one["total_duration"] for one in last) / REQUESTS / 1e9
        answer_s = sum(one["eval_duration"] for one in last) / REQUESTS / 1e9
        token_s = sum(one["eval_duration"] / one["eval_count"] for one in last) / REQUESTS / 1e9
        derived_s = await _mean(it, "request_duration")
        first_s = await _mean(it, "time_to_first_token")
        per_token_s = await _mean(it, "time_per_output_token")
        assert total_s <= derived_s + 0.002
        assert derived_s == pytest.approx(total_s, rel=0.05, abs=SLACK_S)
        assert first_s == pytest.approx(total_s - answer_s, rel=0.05, abs=SLACK_S)
        # The first token is not in the gateway's mean, and is in Ollama's.
        assert per_token_s == pytest.approx(token_s, rel=2 / TOKENS + 0.05, abs=0.002)

    _live(story)


def test_its_openai_api_has_usage_and_no_durations_and_canonical_series_are_derived(
    ollama: str, tmp_path: Path
) -> None:
    rules = tmp_path / "canonical.yml"
    rules.write_text(recording_rules([server("ollama")], 'job="api"'))
    derived: dict[str, float] = {}
    usage: dict[str, int] = {}

    async def story(it: World) -> None:
        body = ask(max_tokens=TOKENS, stream_options={"include_usage": True})
        answer = await it.chat(body)
        assert answer.complete
        usage.update(json.loads(re.findall(rb'"usage":({[^}]*})', answer.body)[-1]))
        assert b"duration" not in answer.body
        target = {"targets": [it.url.removeprefix("http://")], "labels": {"service": "api"}}
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(rules)],
            "scrape_configs": [{"job_name": "api", "static_configs": [target]}],
        }
        with prometheus_with(tmp_path, yaml.safe_dump(config)) as prometheus:
            asked = '{__name__=~"gen_ai_server_.+_count|llmchaos:.+", origin="derived", server="ollama"}'

            def look() -> bool:
                found = prometheus.vector(asked, time.time(), may_be_empty=True)
                derived.update({dict(labels)["__name__"]: value for labels, value in found.items()})
                return derived.get("llmchaos:prompt_tokens_total", 0) > 0 and derived.keys() > ONE_ANSWER.keys()

            await until_async(look, "the canonical series", 30, every_s=0.3, seen=lambda: derived)

    async def run() -> None:
        async with world(1, LAB_UPSTREAM="ollama", LAB_REPLICAS=f"model-1={ollama}", LAB_HEALTH_PATH="/") as it:
            await story(it)

    uvloop.run(run())
    assert derived == ONE_ANSWER | {
        "llmchaos:prompt_tokens_total": usage["prompt_tokens"],
        "llmchaos:output_tokens_total": usage["completion_tokens"],
    }
    assert min(usage.values()) > 0
