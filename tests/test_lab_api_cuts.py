"""Streams of simulated engines, cut at any byte: no token is lost or doubled."""

import asyncio
import hashlib
import json
import random
from contextlib import AsyncExitStack
from typing import Any

import pytest
import uvloop
from support.cutter import Cut, cutting
from support.lab_api_world import MODEL, Answer, World, world
from support.lab_engine_world import world as engine

TOKENS = 24
CUTS = 20
ON = {
    "LAB_MIGRATION": "on", "LAB_ATTEMPTS_MAX": "3", "LAB_RETRY_BURST": "1000", "LAB_EJECT_MIN_REQUESTS": "100000",
    "LAB_PROBE_INTERVAL_S": "0.2",
}  # fmt: skip
FAST = {"LAB_FIRST_TOKEN_S": "0.004", "LAB_TOKEN_GAP_S": "0.001"}


def sim_v1(prompt: str, count: int) -> str:
    """The scheme as documented for clients, written once more."""
    return "".join(hashlib.sha256(f"{prompt}\x1f{index}".encode()).hexdigest()[:6] + " " for index in range(count))


def asked(prompt: str, **more: Any) -> dict[str, Any]:
    return {
        "model": MODEL,
        "stream": True,
        "max_tokens": TOKENS,
        "messages": [{"role": "user", "content": prompt}],
        **more,
    }


def faults_of(answer: Answer, prompt: str, *, usage: bool) -> list[str]:
    """Everything that a client would notice of its stream."""
    events = [json.loads(part[6:]) for part in answer.body.split(b"\n\n") if part.startswith(b"data: {")]
    choices = [choice for event in events for choice in event.get("choices", [])]
    text = "".join(choice["delta"].get("content", "") for choice in choices)
    counted = [event["usage"] for event in events if "usage" in event]
    checks = {
        "its end": answer.complete,
        f"its tokens: {text}": text == sim_v1(prompt, TOKENS),
        "one role": sum("role" in choice["delta"] for choice in choices) == 1,
        "one id": len({event.get("id") for event in events}) == 1,
        "its finish_reason": [one["finish_reason"] for one in choices if one["finish_reason"]] == ["length"],
        f"its usage: {counted}": [one["completion_tokens"] for one in counted] == [TOKENS] * usage,
    }
    return [name for name, holds in checks.items() if not holds]


@pytest.mark.parametrize("way", ["end", "reset", "stall"])
def test_streams_of_engines_cut_at_drawn_bytes_are_whole(way: Any) -> None:
    rng = random.Random(f"cuts {way}")
    plan: dict[str, list[Cut]] = {}

    async def story() -> None:
        async with AsyncExitStack() as stack:
            engines = [await stack.enter_async_context(engine(**FAST)) for _ in range(3)]
            ports = [int(one.url.rsplit(":", 1)[1]) for one in engines]
            cutters = [await stack.enter_async_context(cutting(port, plan)) for port in ports]
            addresses = [f"model-{number}=http://127.0.0.1:{one.port}" for number, one in enumerate(cutters, 1)]
            gap = {"LAB_GAP_TIMEOUT_S": "0.5"} if way == "stall" else {}
            it = await stack.enter_async_context(world(LAB_REPLICAS=",".join(addresses), **ON | gap))
            assert faults_of(await it.chat(asked("whole")), "whole", usage=False) == []
            begin, whole = 700, max(one.longest for one in cutters)
            turns = asyncio.Semaphore(4)

            async def client(number: int) -> list[str]:
                prompt, usage = f"prompt <{number}>", bool(number % 2)
                # The usage comes with the last token. No other replica could count it.
                cut = Cut(at=rng.randrange(begin, whole - (1000 if usage else 5)), way=way)
                plan[prompt] = [cut, *([Cut(at=rng.randrange(begin, 1200), way=way)] if number % 5 == 0 else [])]
                async with turns:
                    answer = await it.chat(
                        asked(prompt, **({"stream_options": {"include_usage": True}} if usage else {}))
                    )
                return [
                    f"{number}, cut at {cut.at} of {whole}: {fault}" for fault in faults_of(answer, prompt, usage=usage)
                ]

            seen = await asyncio.gather(*(client(number) for number in range(CUTS)))

            assert [fault for faults in seen for fault in faults] == []
            await _counted(it)

    uvloop.run(story())


async def _counted(it: World) -> None:
    """The gateway's own counts agree with what was cut."""
    assert await it.outcomes() == {"ok": CUTS + 1}
    cuts = sum((await it.failures()).values())
    assert cuts >= CUTS
    migrated = [await it.metric("llmlab_migrations_total", outcome=outcome) for outcome in ("continued", "ended")]
    before_a_token = cuts - await it.metric("llmlab_migrations_total")
    assert sum(migrated) == await it.metric("llmlab_migrations_total") >= CUTS
    assert 0 <= before_a_token <= 4  # a second cut may come before the second replica's first token
    assert await it.metric("llmlab_wasted_tokens_total") == 0
    assert [it.replica(index).in_flight for index in range(3)] == [0, 0, 0]
