"""Machines and traffic for tests of the engine."""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families
from support.waiting import until_async

from lab_engine import admin, server
from lab_engine.boot import BootFaults
from lab_engine.chaos import Chaos
from lab_engine.engine import Engine
from lab_engine.scheduler import Scheduler
from lab_engine.settings import Settings
from lab_engine.speed import Speed
from lab_engine.work import Limits, Sequence

MODEL = "smollm2:135m"


def request(
    name: str, at_s: float = 0.0, *, prompt: int = 16, answer: int = 4, prefix: tuple[bytes, ...] = ()
) -> Sequence:
    return Sequence(name=name, arrived_s=at_s, prompt_tokens=prompt, answer_tokens=answer, prefix=prefix)


def poisson(
    rate_rps: float, count: int, seed: int, *, prompt: tuple[int, int] = (1, 1), answer: tuple[int, int] = (1, 1)
) -> Iterator[Sequence]:
    rng, now_s = random.Random(seed), 0.0
    for index in range(count):
        now_s += rng.expovariate(rate_rps)
        yield request(f"r{index}", now_s, prompt=rng.randint(*prompt), answer=rng.randint(*answer))


def machine(
    *, slots: int = 8, blocks: int = 64, batch_tokens: int = 64, jitter: float = 0.0, seed: int = 0, **speed: float
) -> Scheduler:
    """A small machine whose step takes one second by default."""
    limits = Limits(slots=slots, batch_tokens=batch_tokens, max_model_tokens=blocks * 16, blocks=blocks, jitter=jitter)
    return Scheduler(speed=Speed(**(speed or {"step_s": 1.0})), limits=limits, seed=seed)


class World:
    """One engine with both ports open, and a client for them."""

    def __init__(self, engine: Engine, chaos: Chaos, url: str, admin_url: str, http: aiohttp.ClientSession) -> None:
        self.engine, self.chaos, self.url, self.admin_url, self.http = engine, chaos, url, admin_url, http

    def ask(self, content: str = "hello", **more: Any) -> dict[str, Any]:
        return {"model": MODEL, "messages": [{"role": "user", "content": content}], "max_tokens": 4, **more}

    async def chat(self, content: str = "hello", **more: Any) -> tuple[int, Any]:
        async with self.http.post(f"{self.url}/v1/chat/completions", json=self.ask(content, **more)) as response:
            return response.status, await response.json()

    async def events(self, content: str = "hello", **more: Any) -> list[Any]:
        """Events of a whole stream, decoded. `[DONE]` is that string."""
        asked = self.ask(content, stream=True, **more)
        async with self.http.post(f"{self.url}/v1/chat/completions", json=asked) as response:
            assert response.status == 200, await response.text()
            text = (await response.read()).decode()
        assert text.endswith("\n\n")
        bodies = [event.removeprefix("data: ") for event in text[:-2].split("\n\n")]
        return [body if body == "[DONE]" else json.loads(body) for body in bodies]

    async def fault(self, kind: str, lease_s: float = 30, **options: Any) -> dict[str, Any]:
        body = {"kind": kind, "lease_s": lease_s, **options}
        async with self.http.post(f"{self.admin_url}/faults", json=body) as response:
            assert response.status == 201, await response.text()
            return dict(await response.json())

    async def heal(self, fault: dict[str, Any]) -> dict[str, Any]:
        async with self.http.delete(f"{self.admin_url}/faults/{fault['id']}") as response:
            assert response.status == 200, await response.text()
            return dict(await response.json())

    async def health(self) -> int:
        async with self.http.get(f"{self.url}/health") as response:
            return response.status

    async def metrics(self) -> dict[str, float]:
        """Samples by name, with the labels `finished_reason` and `kind`."""
        async with self.http.get(f"{self.url}/metrics") as response:
            text = await response.text()
        samples = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                told = sample.labels.get("finished_reason") or sample.labels.get("kind") or sample.labels.get("le")
                samples[f"{sample.name}[{told}]" if told else sample.name] = sample.value
        return samples


@asynccontextmanager
async def world(boot: BootFaults | None = None, **variables: str) -> AsyncIterator[World]:
    """A served engine with its model loaded, unless LAB_LOAD_S delays that."""
    chosen = Settings.from_env(variables)
    engine = Engine(chosen, time.monotonic)
    chaos = Chaos(engine, boot)
    runners = [
        web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        for app in (server.application(engine), admin.application(chaos))
    ]
    urls = []
    for runner in runners:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        urls.append(f"http://127.0.0.1:{runner.addresses[0][1]}")
    running = asyncio.create_task(engine.run())
    timeout = aiohttp.ClientTimeout(total=20)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as http:
            if not chosen.load_s:
                await until_async(lambda: engine.life == "serving", "the engine serves")
            yield World(engine, chaos, *urls, http)
    finally:
        chaos.close()
        for runner in runners:
            await runner.cleanup()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
