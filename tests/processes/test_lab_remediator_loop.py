"""The whole remediator against made-up Prometheus and Docker APIs."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web
from support.remediator_rules import PROJECT, RULES
from support.waiting import until_async

from lab_remediator.audit import Audit, parsed
from lab_remediator.clients import AskError, Docker, Prober, Prometheus
from lab_remediator.load import load_policy
from lab_remediator.loop import Remediator
from lab_remediator.metrics import Metrics
from lab_remediator.owners import Owners
from lab_remediator.rules import Signal
from lab_remediator.web import application

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

DEADLINE_S = 10.0


def stamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "789Z"


@dataclass
class Fakes:
    """Prometheus and Docker for the remediator. `calls` are calls with an effect."""

    audit_file: Path
    up: float | None = 1.0
    state: str = "running"
    started_at: float = field(default_factory=lambda: time.time() - 100)
    project: str = PROJECT
    docker_status: int = 204
    started_by_others: bool = False
    calls: list[str] = field(default_factory=list)
    intents_at_call: list[int] = field(default_factory=list)

    def dies(self) -> None:
        self.state, self.up = "exited", 0.0

    async def query(self, request: web.Request) -> web.Response:
        if self.up is None:
            return web.json_response({"status": "error", "error": "not now"}, status=503)
        sample = {"metric": {"service": "api"}, "value": [time.time(), str(self.up)]}
        return web.json_response({"status": "success", "data": {"resultType": "vector", "result": [sample]}})

    async def inspect(self, request: web.Request) -> web.Response:
        labels = {"com.docker.compose.project": self.project, "com.docker.compose.service": "api"}
        state = {"Status": self.state, "StartedAt": stamp(self.started_at), "ExitCode": 137}
        return web.json_response({"Id": "abc", "State": state, "RestartCount": 0, "Config": {"Labels": labels}})

    async def change(self, request: web.Request) -> web.Response:
        self.calls.append(request.path_qs.removeprefix(f"/containers/{PROJECT}-api-1/"))
        self.intents_at_call.append(sum(entry["event"] == "intent" for entry in self.entries()))
        if self.docker_status != 204:
            return web.Response(status=self.docker_status, text="no")
        if self.started_by_others:
            return web.Response(status=304)
        if request.match_info["what"] == "kill":
            self.state = "exited"
        else:
            self.state, self.up, self.started_at = "running", 1.0, time.time()
        return web.Response(status=204)

    def entries(self) -> list[dict[str, Any]]:
        return list(parsed(self.audit_file.read_text().splitlines()))

    def events(self) -> list[str]:
        return [entry["event"] for entry in self.entries()]


@dataclass
class Running:
    """A remediator at work and how to look at it."""

    fakes: Fakes
    remediator: Remediator
    metrics: Metrics
    http: aiohttp.ClientSession
    url: str

    async def until(self, what: Callable[[], bool]) -> None:
        await until_async(what, within_s=DEADLINE_S, seen=self.fakes.events)

    async def rounds(self, count: int) -> None:
        """Wait for more Docker queries, time in which an unwanted act could happen."""
        answered = self.metrics.answers.labels("docker", "ok")
        first = answered._value.get()
        await self.until(lambda: answered._value.get() >= first + count)

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


@asynccontextmanager
async def served(app: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def at_work(fakes: Fakes, *, dry_run: bool = False, rules: str = RULES) -> AsyncIterator[Running]:
    app = web.Application()
    app.add_routes(
        [
            web.post("/api/v1/query", fakes.query),
            web.get(f"/containers/{PROJECT}-api-1/json", fakes.inspect),
            web.post(f"/containers/{PROJECT}-api-1/{{what}}", fakes.change),
        ]
    )
    policy = load_policy(rules, ("api",), dry_run=dry_run)
    metrics = Metrics(policy)
    audit = Audit(fakes.audit_file)
    async with served(app) as url, aiohttp.ClientSession() as http:
        remediator = Remediator(
            policy=policy,
            prometheus=Prometheus(http, url),
            docker=Docker(http, url, PROJECT),
            prober=Prober(http, "/health", {}),
            owners=Owners(http, "", policy.replicas),
            audit=audit,
            metrics=metrics,
            hold_file=fakes.audit_file.parent / "hold",
            poll_s=0.02,
        )
        async with served(application(remediator, metrics, fakes.audit_file)) as own_url:
            work = asyncio.create_task(remediator.run())
            try:
                yield Running(fakes=fakes, remediator=remediator, metrics=metrics, http=http, url=own_url)
            finally:
                work.cancel()
                await asyncio.wait([work])
                audit.close()


def perform(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), DEADLINE_S * 2))  # type: ignore[arg-type]


@pytest.fixture
def fakes(tmp_path: Path) -> Fakes:
    (tmp_path / "audit.jsonl").touch()
    return Fakes(audit_file=tmp_path / "audit.jsonl")


def test_a_killed_api_is_started_and_the_log_has_every_step(fakes: Fakes) -> None:
    async def story() -> None:
        async with at_work(fakes) as lab:
            await lab.rounds(3)
            fakes.dies()
            await lab.until(lambda: "recovered" in fakes.events())
            first = lab.value("service_container_restarts_total", service="api", reason="api-exited")
            done = lab.value("remediation_actions_total", action="start", service="api", result="done")
            recovered = lab.value("remediation_time_to_recover_seconds_count")

            assert (first, done, recovered) == (1, 1, 1)
            assert lab.value("service_container_restarts_total", service="api", reason="external") == 0

    perform(story)

    assert fakes.calls == ["start"]
    assert fakes.events() == ["started", "detected", "intent", "done", "recovered"]
    assert len({entry["incident"] for entry in fakes.entries()[1:]}) == 1


def test_the_intent_is_on_disk_before_the_call_to_docker(fakes: Fakes) -> None:
    async def story() -> None:
        async with at_work(fakes) as lab:
            fakes.dies()
            await lab.until(lambda: "done" in fakes.events())

    perform(story)

    assert fakes.intents_at_call == [1]


def test_a_later_restart_is_not_credited_to_an_action_that_found_the_service_running(fakes: Fakes) -> None:
    async def story() -> None:
        async with at_work(fakes) as lab:
            await lab.rounds(2)
            fakes.dies()
            fakes.started_by_others = True
            await lab.until(lambda: "done" in fakes.events())
            fakes.state, fakes.up, fakes.started_at = "running", 1.0, time.time()
            await lab.until(
                lambda: lab.value("service_container_restarts_total", service="api", reason="external") == 1
            )
            assert lab.value("service_container_restarts_total", service="api", reason="api-exited") == 0

    perform(story)


def test_a_paused_container_is_killed_and_started(fakes: Fakes) -> None:
    async def story() -> None:
        async with at_work(fakes) as lab:
            fakes.state, fakes.up = "paused", 0.0
            await lab.until(lambda: "recovered" in fakes.events())

    perform(story)

    assert fakes.calls == ["kill?signal=SIGKILL", "start"]


def test_nothing_is_done_when_the_intent_cannot_be_written(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def story() -> None:
        async with at_work(fakes) as lab:
            await lab.rounds(2)
            monkeypatch.setattr(os, "fsync", full)
            fakes.dies()
            await lab.until(
                lambda: lab.value("remediation_actions_total", action="start", service="api", result="failed") == 2
            )
            blind = list(fakes.calls)
            monkeypatch.undo()
            await lab.until(lambda: "done" in fakes.events())

            assert blind == []

    perform(story)

    assert fakes.calls == ["start"]


def test_an_action_that_docker_refuses_is_failed_and_tried_again_after_the_cooldown(fakes: Fakes) -> None:
    async def story() -> None:
        async with at_work(fakes) as lab:
            fakes.docker_status = 500
            fakes.dies()
            await lab.until(lambda: len(fakes.calls) == 2)
            fakes.docker_status = 204
            await lab.until(lambda: "recovered" in fakes.events())

    perform(story)

    failed = [entry for entry in fakes.entries() if entry["event"] == "failed"]
    assert len(failed) >= 2
    assert failed[0]["reason"] == "expected start of api to succeed, got HTTP 500: no"


def test_a_crash_between_intent_and_action_is_found_and_the_action_done_once(fakes: Fakes) -> None:
    fakes.dies()
    intent = {"at": time.time() - 5, "event": "intent", "incident": "api-1", "rule": "api-exited", "service": "api"}
    fakes.audit_file.write_text(json.dumps({**intent, "action": "start"}) + "\n")

    async def story() -> None:
        async with at_work(fakes) as lab:
            await lab.until(lambda: "recovered" in fakes.events())

    perform(story)

    assert fakes.calls == ["start"]
    assert fakes.events()[:3] == ["intent", "started", "failed"]
    assert fakes.entries()[2]["reason"] == "interrupted before it took effect"


def test_a_crash_after_the_action_repeats_nothing(fakes: Fakes) -> None:
    intent = {"at": time.time() - 5, "event": "intent", "incident": "api-1", "rule": "api-exited", "service": "api"}
    fakes.audit_file.write_text(json.dumps({**intent, "action": "start"}) + "\n")
    fakes.started_at, fakes.up = time.time() - 4, 0.0

    async def story() -> None:
        async with at_work(fakes) as lab:
            await lab.until(lambda: "done" in fakes.events())
            await lab.rounds(10)

    perform(story)

    assert fakes.calls == []
    assert fakes.entries()[2]["reason"] == "found done after a restart of the remediator"


def test_without_prometheus_nothing_is_done_and_the_health_check_is_red(fakes: Fakes) -> None:
    fakes.dies()
    fakes.up = None

    async def story() -> None:
        async with at_work(fakes) as lab:
            await lab.rounds(10)
            async with lab.http.get(f"{lab.url}/healthz") as response:
                red = response.status, await response.json()
            fakes.up = 1.0
            fakes.state = "running"
            await lab.until(lambda: lab.remediator.watch.ready)
            async with lab.http.get(f"{lab.url}/healthz") as response:
                green = response.status

            assert (red[0], red[1]["ready"], green) == (503, False, 200)

    perform(story)

    assert fakes.events() == ["started"]


def test_a_remediator_that_lost_prometheus_writes_it_down_and_repairs_when_it_is_back(fakes: Fakes) -> None:
    async def story() -> None:
        async with at_work(fakes, rules=RULES.replace("guards: {", "guards: {stale_s: 0.4, ")) as lab:
            await lab.until(lambda: lab.remediator.watch.ready)
            fakes.dies()
            fakes.up = None
            await lab.until(lambda: "blind" in fakes.events())
            await lab.rounds(10)
            calls = list(fakes.calls)
            fakes.up = 0.0
            await lab.until(lambda: "done" in fakes.events())

            assert calls == []

    perform(story)

    assert [event for event in fakes.events() if event in {"blind", "sighted", "intent"}] == [
        "blind",
        "sighted",
        "intent",
    ]
    assert fakes.entries()[1]["reason"].startswith("prometheus has not answered for 0.4 s: no repair until it does")


def test_a_container_of_another_project_is_not_touched(fakes: Fakes) -> None:
    fakes.project = "somebody-else"
    fakes.dies()

    async def story() -> None:
        async with at_work(fakes) as lab:
            refused = lab.metrics.answers.labels("docker", "failed")
            await lab.until(lambda: refused._value.get() > 10)

    perform(story)

    assert fakes.calls == []


def test_a_restart_by_another_program_is_counted_and_recorded(fakes: Fakes) -> None:
    async def story() -> None:
        async with at_work(fakes) as lab:
            await lab.rounds(2)
            fakes.started_at = time.time()
            await lab.until(lambda: "external_restart" in fakes.events())

            assert lab.value("service_container_restarts_total", service="api", reason="external") == 1

    perform(story)

    assert fakes.calls == []


@pytest.mark.parametrize(("content", "waits"), [("", True), ("api\n", True), ("model-1\n", False)])
def test_the_hold_file_holds_all_or_the_services_it_names(fakes: Fakes, content: str, waits: bool) -> None:
    (fakes.audit_file.parent / "hold").write_text(content)
    fakes.dies()

    async def story() -> None:
        async with at_work(fakes) as lab:
            if waits:
                await lab.until(lambda: "suppressed" in fakes.events())
                await lab.rounds(5)
                held = list(fakes.calls)
                (fakes.audit_file.parent / "hold").unlink()

                assert held == []
            await lab.until(lambda: "done" in fakes.events())

    perform(story)


def test_a_dry_run_writes_down_and_touches_nothing(fakes: Fakes) -> None:
    fakes.dies()

    async def story() -> None:
        async with at_work(fakes, dry_run=True) as lab:
            await lab.until(lambda: "suppressed" in fakes.events())
            await lab.rounds(5)

            assert lab.value("remediation_actions_total", action="start", service="api", result="dry_run") == 1

    perform(story)

    assert fakes.calls == []


def test_the_audit_log_and_the_metrics_can_be_read_over_http(fakes: Fakes) -> None:
    async def story() -> None:
        async with at_work(fakes) as lab:
            await lab.rounds(1)
            async with lab.http.get(f"{lab.url}/audit") as response:
                audit = await response.text()
            async with lab.http.get(f"{lab.url}/metrics") as response:
                metrics = await response.text()

            assert [entry["event"] for entry in parsed(audit.splitlines())] == ["started"]
            assert 'service_container_restarts_total{reason="external",service="api"} 0.0' in metrics
            assert "process_start_time_seconds" in metrics

    perform(story)


def readings_of_probes(*statuses: int) -> list[float | None]:
    """Readings of a prober for these answers in turn. 0 is no answer."""
    found: list[float | None] = []
    turn = iter(statuses)
    now = 0

    async def answer(request: web.Request) -> web.Response:
        if now == 0:
            assert request.transport is not None
            request.transport.abort()
        return web.Response(status=now or 200)

    async def story() -> None:
        nonlocal now
        app = web.Application()
        app.add_routes([web.get("/health", answer)])
        async with served(app) as url, aiohttp.ClientSession() as http:
            port = url.rsplit(":", 1)[1]
            prober = Prober(http, "/health", {"api:8000": f"127.0.0.1:{port}"})
            probe = Signal(name="p", probe="http://{service}:8000{health_path}", fires_at="< 1")
            for now in turn:  # noqa: B007 - read by answer()
                reading = await prober.reading(probe, "api")
                found.append(None if reading is None else reading.value)

    perform(story)
    return found


@pytest.mark.parametrize(
    ("statuses", "readings"),
    [
        ((0, 0), [None, None]),
        ((200, 0, 500), [1.0, 0.0, 0.0]),
        ((503, 0), [None, 0.0]),
        ((404, 429), [None, None]),
    ],
    ids=["never reached", "silence and failure", "busy is alive", "a wrong request proves nothing"],
)
def test_a_probe_distinguishes_dead_busy_and_unreachable(
    statuses: tuple[int, ...], readings: list[float | None]
) -> None:
    assert readings_of_probes(*statuses) == readings


def test_an_error_of_a_client_names_the_silent_side() -> None:
    async def story() -> None:
        async with aiohttp.ClientSession() as http:
            with pytest.raises(AskError, match=r"the Docker proxy does not answer GET json of api: ClientConnector"):
                await Docker(http, "http://127.0.0.1:1", PROJECT).inspect("api")

    perform(story)
