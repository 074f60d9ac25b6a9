"""Made-up Docker, Prometheus and gateway of four replicas."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import web
from support.waiting import until_async

from lab_autoscaler.clients import Lookout, Services
from lab_autoscaler.eyes import Eyes
from lab_autoscaler.loop import Autoscaler
from lab_autoscaler.metrics import Metrics
from lab_autoscaler.settings import Settings
from lab_autoscaler.web import application
from lab_remediator.audit import Audit, parsed
from lab_remediator.clients import Docker, Prometheus
from lab_remediator.watch import Troubles

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection
    from pathlib import Path

NAMES = ("model-1", "model-2", "model-3", "model-4")
PROJECT = "mylab"
DEADLINE_S = 30.0  # on a busy machine
_CONTAINER = re.compile(rf"/containers/{PROJECT}-(?P<name>[a-z0-9-]+)-1/(?P<what>[a-z]+)")


@dataclass
class Replica:
    """One made-up replica. It is healthy as soon as it runs, unless it stays cold."""

    is_running: bool
    in_flight: int = 0
    is_cold: bool = False
    refuses: bool = False  # every act on it fails
    started_at: float = field(default_factory=lambda: time.time() - 100)


@dataclass
class Fakes:
    """The replicas and all that reports on them. `calls` are acts with their times."""

    audit_file: Path
    replicas: dict[str, Replica]
    waiting: float | None = 0.0  # in the gateway's queue. None: Prometheus does not answer
    calls: list[tuple[float, str, str]] = field(default_factory=list)
    autoscaler_url: str = ""
    gateway_is_up: bool = True
    reading: int = 0  # questions of the gateway to the autoscaler under way
    start_s: float = 0.0  # duration of a start by Docker
    stop_s: float = 0.0  # and of a stop
    repaired: Collection[str] = ()  # on which a remediator acts
    intents_at_call: list[int] = field(default_factory=list)
    draining: set[str] = field(default_factory=set)
    stopped_before_drained: list[str] = field(default_factory=list)

    def running(self) -> list[str]:
        return [name for name, one in self.replicas.items() if one.is_running]

    def acts(self) -> list[str]:
        return [f"{action} {name}" for _, name, action in self.calls]

    def entries(self) -> list[dict[str, Any]]:
        return list(parsed(self.audit_file.read_text().splitlines()))

    def events(self) -> list[str]:
        return [entry["event"] for entry in self.entries()]

    async def query(self, request: web.Request) -> web.Response:
        if self.waiting is None:
            return web.json_response({"status": "error", "error": "not now"}, status=503)
        query = str((await request.post())["query"])
        if "requests_running" in query or "requests_waiting" in query:
            samples = [({"service": name}, "0") for name in self.running()]
        elif 'up{job="model"}' in query:
            samples = [({"service": name}, str(int(one.is_running))) for name, one in self.replicas.items()]
        else:
            samples = [({}, str(self.waiting if "queue_depth" in query else 0.5))]
        result = [{"metric": labels, "value": [time.time(), value]} for labels, value in samples]
        return web.json_response({"status": "success", "data": {"resultType": "vector", "result": result}})

    async def readyz(self, request: web.Request) -> web.Response:
        """The gateway, which reads the autoscaler's replicas first, as the real one."""
        if not self.gateway_is_up:
            return web.Response(status=502)
        self.reading += 1
        try:
            async with aiohttp.ClientSession() as http, http.get(f"{self.autoscaler_url}/replicas") as response:
                body = await response.json()
        finally:
            self.reading -= 1
        self.draining = {one["name"] for one in body["replicas"] if one["state"] in ("draining", "stopped")}
        replicas = {
            name: {
                "healthy": one.is_running and not one.is_cold,
                "draining": name in self.draining,
                "in_flight": one.in_flight,
            }
            for name, one in self.replicas.items()
        }
        return web.json_response({"status": "ready", "replicas": replicas})

    async def healthz(self, _: web.Request) -> web.Response:
        """The remediator."""
        return web.json_response({"acting": sorted(self.repaired)})

    async def docker(self, request: web.Request) -> web.Response:
        found = _CONTAINER.fullmatch(request.path)
        assert found is not None, request.path
        name, what = found["name"], found["what"]
        one = self.replicas[name]
        if what == "json":
            return web.json_response(_inspected(name, one))
        self.calls.append((time.time(), name, what))
        if self.audit_file.exists():
            self.intents_at_call.append(self.events().count("intent"))
        if one.refuses:
            return web.Response(status=500, text="no")
        if what == "stop" and name not in self.draining:
            self.stopped_before_drained.append(name)
        if what == "start":
            await asyncio.sleep(self.start_s)
            one.started_at = time.time()
        if what == "stop":
            await asyncio.sleep(self.stop_s)
        one.is_running = what in ("start", "restart")
        return web.Response(status=204)


def _inspected(name: str, one: Replica) -> dict[str, Any]:
    labels = {"com.docker.compose.project": PROJECT, "com.docker.compose.service": name}
    started = datetime.fromtimestamp(one.started_at, UTC).isoformat()
    state = {"Status": "running" if one.is_running else "exited", "StartedAt": started, "ExitCode": 0}
    return {"Id": name, "State": state, "RestartCount": 0, "Config": {"Labels": labels}}


@dataclass
class Running:
    """An autoscaler at work."""

    fakes: Fakes
    autoscaler: Autoscaler
    metrics: Metrics
    http: aiohttp.ClientSession
    url: str  # of the autoscaler
    lab_url: str  # of everything that is made up
    stop: Callable[[], object]  # as SIGTERM does

    async def until(self, what: Callable[[], bool]) -> None:
        await until_async(what, within_s=DEADLINE_S, seen=lambda: (self.fakes.acts(), self.fakes.events()))

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)

    async def syncs(self, count: int, result: str) -> None:
        """Wait for more decisions with this result."""
        name = "lab_autoscaler_syncs_total"
        first = self.value(name, result=result) or 0
        await self.until(lambda: (self.value(name, result=result) or 0) >= first + count)

    async def published(self) -> dict[str, str]:
        """First letters of each replica's owner and state, as readers see them."""
        async with self.http.get(f"{self.url}/replicas") as response:
            return {one["name"]: one["owner"][0] + one["state"][0] for one in (await response.json())["replicas"]}

    def phases(self) -> str:
        return "".join(one.phase[0] for one in self.autoscaler.fleet)


@asynccontextmanager
async def served(app: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def at_work(fakes: Fakes, **environment: str) -> AsyncIterator[Running]:
    """Run the autoscaler's loop with small times, until the block ends."""
    app = web.Application()
    app.add_routes(
        [
            web.post("/api/v1/query", fakes.query),
            web.get("/readyz", fakes.readyz),
            web.get("/healthz", fakes.healthz),
            web.route("*", "/containers/{tail:.*}", fakes.docker),
        ]
    )
    metrics, troubles = Metrics(), Troubles()
    async with served(app) as lab_url, aiohttp.ClientSession() as http:
        settings = Settings.from_env(
            {
                "LAB_PROJECT": PROJECT,
                "LAB_SCALED": ",".join(NAMES),
                "LAB_AUDIT_FILE": str(fakes.audit_file),
                "LAB_PROMETHEUS_URL": lab_url,
                "LAB_GATEWAY_URL": lab_url,
                "LAB_REMEDIATOR_URL": lab_url,
                "LAB_DOCKER_URL": lab_url,
                "LAB_SYNC_S": "0.1",
                "LAB_POLL_S": "0.05",
                **environment,
            }
        )
        docker = Docker(http, lab_url, PROJECT)
        audit = Audit(settings.audit_file)
        lookout = Lookout(
            docker=docker, services=Services(http, settings.sights), scaled=settings.scaled, on_answer=troubles.tell
        )
        autoscaler = Autoscaler(
            settings=settings,
            docker=docker,
            lookout=lookout,
            eyes=Eyes(Prometheus(http, lab_url), settings.sights),
            audit=audit,
            metrics=metrics,
            troubles=troubles,
        )
        async with served(application(autoscaler, metrics, settings.audit_file)) as url:
            fakes.autoscaler_url = url
            work = asyncio.create_task(autoscaler.run())
            try:
                yield Running(
                    fakes=fakes,
                    autoscaler=autoscaler,
                    metrics=metrics,
                    http=http,
                    url=url,
                    lab_url=lab_url,
                    stop=work.cancel,
                )
            finally:
                work.cancel()
                await until_async(lambda: autoscaler.has_ended or work.done(), "the end")
                work.cancel()  # no reader is left to wait for
                await asyncio.gather(work, return_exceptions=True)
                await until_async(lambda: fakes.reading == 0, "the last answer")
                audit.close()


def story(what: Callable[[Fakes], Awaitable[None]], path: Path, running: int) -> None:
    """Run a story with that many running replicas."""
    replicas = {name: Replica(is_running=index < running) for index, name in enumerate(NAMES)}
    asyncio.run(what(Fakes(audit_file=path / "autoscaler.jsonl", replicas=replicas)))
