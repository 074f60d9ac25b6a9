"""A gateway in front of small real model servers on loopback."""

import asyncio
import functools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import uvloop
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from lab_api.app import create_app
from lab_api.gateway import Gateway
from lab_api.settings import Settings

MODEL = "smollm2:135m"
DONE = b"data: [DONE]\n\n"
Behaviour = Callable[[web.Request], Awaitable[web.StreamResponse]]


def chunk(text: str = "", *, role: str | None = None, finish: str | None = None) -> bytes:
    """One event as OpenAI-compatible servers send it."""
    delta = {"content": text} | ({"role": role} if role else {})
    said = {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
    return b"data: " + json.dumps(said).encode() + b"\n\n"


def ask(*, stream: bool = True, **more: Any) -> dict[str, Any]:
    """A request that the gateway accepts."""
    return {"model": MODEL, "stream": stream, "messages": [{"role": "user", "content": "hello"}], **more}


def sends(*pieces: bytes, then: str = "end") -> Behaviour:
    """Stream the pieces, then end, hang or reset the connection."""

    async def behave(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
            await asyncio.sleep(0)
        if then == "hang":
            await asyncio.Event().wait()
        if then == "reset":
            assert request.transport is not None
            request.transport.abort()
            return response
        await response.write_eof()
        return response

    return behave


def answers(status: int, body: Any = None, **headers: str) -> Behaviour:
    """Answer with a status and a JSON body."""

    async def behave(_request: web.Request) -> web.StreamResponse:
        return web.json_response(body if body is not None else {}, status=status, headers=headers)

    return behave


async def hangs(_request: web.Request) -> web.StreamResponse:
    """Read the request and never answer."""
    await asyncio.Event().wait()
    raise AssertionError("the wait for nothing has ended")


def whole(text: str = "hello", finish: str | None = "stop") -> Behaviour:
    """A complete answer without streaming."""
    message = {"role": "assistant", "content": text}
    return answers(200, {"choices": [{"index": 0, "message": message, "finish_reason": finish}]})


good = sends(chunk("a "), chunk("b "), chunk("c ", finish="stop"), DONE)


@dataclass(kw_only=True)
class Model:
    """One replica with a given behaviour. It records requests and disconnects."""

    name: str
    behaviour: Behaviour = good
    health: Behaviour = field(default_factory=lambda: answers(200))
    asked: list[bytes] = field(default_factory=list)
    headers: list[Any] = field(default_factory=list)
    probes_at_once: int = 0
    probes_at_once_max: int = 0
    cancelled: int = 0
    port: int = 0
    runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen, on the same port again after `stop`."""
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/health", self._health)
        app.router.add_get("/v1/models", answers(200, {"data": [{"id": MODEL, "owned_by": f"owner of {self.name}"}]}))
        self.runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.01)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self.runner.addresses[0][1]

    async def stop(self) -> None:
        if self.runner is not None:
            await self.runner.cleanup()
            self.runner = None

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(await request.read())
        self.headers.append(request.headers.copy())
        try:
            return await self.behaviour(request)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def _health(self, request: web.Request) -> web.StreamResponse:
        self.probes_at_once += 1
        self.probes_at_once_max = max(self.probes_at_once, self.probes_at_once_max)
        try:
            return await self.health(request)
        finally:
            self.probes_at_once -= 1


@dataclass(kw_only=True)
class Answer:
    """One answer as the client received it."""

    status: int
    headers: Any
    body: bytes

    @property
    def text(self) -> str:
        """The tokens of a stream."""
        events = [json.loads(line[6:]) for line in self.body.split(b"\n\n") if line.startswith(b"data: {")]
        return "".join(event["choices"][0]["delta"]["content"] for event in events if "choices" in event)

    @property
    def complete(self) -> bool:
        return self.body.endswith(DONE) and b'"error"' not in self.body

    @property
    def error(self) -> dict[str, Any]:
        """The error object, be it the whole body or the stream's last event."""
        last = self.body.rstrip().split(b"\n\n")[-1].removeprefix(b"data: ")
        return dict(json.loads(last)["error"])


@dataclass(kw_only=True)
class World:
    """The gateway under test, its replicas and a client."""

    gateway: Gateway
    models: list[Model]
    url: str
    session: aiohttp.ClientSession

    async def chat(self, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """Send a request (streaming by default) and read all of the answer."""
        async with self.post(body, headers) as response:
            return Answer(status=response.status, headers=response.headers, body=await response.read())

    def post(self, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        data = body if isinstance(body, bytes) else json.dumps(body if body is not None else ask())
        return self.session.post(self.url + "/v1/chat/completions", data=data, headers=headers)

    async def get(self, path: str, headers: dict[str, str] | None = None) -> Answer:
        async with self.session.get(self.url + path, headers=headers) as response:
            return Answer(status=response.status, headers=response.headers, body=await response.read())

    async def metric(self, name: str, **labels: str) -> float:
        """Sum of the series with these labels. Fails without any."""
        text = (await self.get("/metrics")).body.decode()
        values = [
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        assert values, f"no series {name}{labels}"
        return sum(values)

    async def failures(self) -> dict[tuple[str, str], int]:
        """Failed attempts by replica and reason, without those that did not occur."""
        text = (await self.get("/metrics")).body.decode()
        return {
            (sample.labels["replica"], sample.labels["reason"]): int(sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "llmlab_upstream_failures_total" and sample.value
        }

    async def outcomes(self) -> dict[str, int]:
        """Requests by outcome, without those that did not occur."""
        text = (await self.get("/metrics")).body.decode()
        return {
            sample.labels["outcome"]: int(sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "llmlab_requests_total" and sample.value
        }

    def replica(self, index: int) -> Any:
        return self.gateway.pool.replicas[index]


@asynccontextmanager
async def world(replicas: int = 2, **env: str) -> AsyncIterator[World]:
    """A running gateway with fast probes. Further settings are its variables."""
    models = [Model(name=f"model-{number + 1}") for number in range(replicas)]
    for model in models:
        await model.start()
    settings = Settings.from_env(
        {
            "LAB_PORT": "0",
            "LAB_MODEL": MODEL,
            "LAB_REPLICAS": ",".join(f"{model.name}={model.url}" for model in models),
            "LAB_PROBE_INTERVAL_S": "0.02",
            "LAB_PROBE_TIMEOUT_S": "2",
            "LAB_SLOW_START_S": "0",
        }
        | env
    )
    gateway = Gateway(settings)
    runner = web.AppRunner(
        create_app(gateway), handler_cancellation=True, access_log=None, auto_decompress=False, shutdown_timeout=0.1
    )
    await runner.setup()
    await gateway.start()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
            yield World(gateway=gateway, models=models, url=url, session=session)
    finally:
        await runner.cleanup()
        await gateway.close()
        for model in models:
            await model.stop()


def in_world(replicas: int = 2, **env: str) -> Callable[[Callable[[World], Awaitable[None]]], Callable[[], None]]:
    """Run a test's story in a world of its own."""

    def decorate(story: Callable[[World], Awaitable[None]]) -> Callable[[], None]:
        async def live() -> None:
            async with world(replicas, **env) as it:
                await story(it)

        def test() -> None:
            uvloop.run(live())

        functools.update_wrapper(test, story)
        del test.__wrapped__  # type: ignore[attr-defined] # or pytest takes its parameter for a fixture
        return test

    return decorate
