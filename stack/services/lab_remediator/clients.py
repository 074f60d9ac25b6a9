"""What the remediator asks over HTTP: Prometheus and its own probes for readings, the proxy for containers."""

from __future__ import annotations

import asyncio
import math
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import aiohttp
from yarl import URL

from lab_remediator.model import Container, Reading

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab_remediator.model import Action
    from lab_remediator.rules import Policy, Signal

_ASK_TIMEOUT_S = 1.0  # an answer that comes later is not about now
_ACT_TIMEOUT_S = 20.0  # a restart includes the container's own time to stop
_DIE_TIMEOUT_S = 5.0


class AskError(RuntimeError):
    """Who was asked did not answer, or not usably."""


class Prometheus:
    """Instant queries, each a set of readings by service."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session, self._url = session, f"{url}/api/v1/query"

    async def readings(self, signal: Signal, policy: Policy) -> dict[str, Reading]:
        """The signal's value for each service of the policy; a service without a finite sample is absent."""
        try:
            async with self._session.post(
                self._url, data={"query": signal.query}, timeout=aiohttp.ClientTimeout(total=_ASK_TIMEOUT_S)
            ) as response:
                body: Any = await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise AskError(f"Prometheus does not answer {signal.name}: {type(error).__name__}: {error}") from error
        if not isinstance(body, dict) or body.get("status") != "success":
            raise AskError(f"Prometheus refuses {signal.name} ({signal.query}): {str(body)[:300]}")
        return readings_of(body["data"], signal, policy.services)


def readings_of(data: dict[str, Any], signal: Signal, services: tuple[str, ...]) -> dict[str, Reading]:
    """The answer's samples by service; of several for one service the bad one counts."""
    found: dict[str, Reading] = {}
    kind, result = data["resultType"], data["result"]
    if kind not in ("vector", "scalar"):
        raise AskError(f"{signal.name}: expected an instant vector or a scalar, got a {kind}: {signal.query}")
    samples = [({}, result)] if kind == "scalar" else [(one["metric"], one["value"]) for one in result]
    for labels, (at, text) in samples:
        value = float(text)
        if math.isnan(value):
            continue
        for service in services if signal.by is None else (labels.get(signal.by),):
            if service in services and (service not in found or signal.fires(value)):
                found[service] = Reading(at=float(at), value=value)
    return found


class Prober:
    """The remediator's own look at a service: a witness that shares neither scrape nor gateway with Prometheus."""

    def __init__(self, session: aiohttp.ClientSession, health_path: str, addresses: Mapping[str, str]) -> None:
        self._session, self._health_path, self._addresses = session, health_path, addresses
        self._reached: set[str] = set()

    async def reading(self, signal: Signal, service: str) -> Reading | None:
        """1 for a good answer in time, 0 for silence or a failure; None where the probe is no witness.

        That is the case while no probe has ever reached the service (it may not be reachable from here at all), and for
        answers that speak of the question (4xx) or of being busy (503).
        """
        url = self._url(signal, service)
        timeout = aiohttp.ClientTimeout(total=signal.timeout_s)
        method = "GET" if signal.post is None else "POST"
        status = 0
        try:
            async with self._session.request(method, url, json=signal.post, timeout=timeout) as response:
                await response.read()
                status = response.status
        except (aiohttp.ClientError, TimeoutError):
            status = 0
        if status:
            self._reached.add(url.authority)
        if url.authority not in self._reached or 400 <= status < 500 or status == 503:
            return None
        return Reading(at=time.time(), value=float(0 < status < 400))

    def _url(self, signal: Signal, service: str) -> URL:
        url = URL(str(signal.probe).replace("{service}", service).replace("{health_path}", self._health_path))
        host, _, port = self._addresses.get(f"{url.host}:{url.port}", "").rpartition(":")
        return url.with_host(host).with_port(int(port)) if host else url


class Docker:
    """The few calls that the allow-list lets through. Containers are named, never given by id."""

    def __init__(self, session: aiohttp.ClientSession, url: str, project: str) -> None:
        self._session, self._url, self._project = session, url, project

    async def inspect(self, service: str) -> Container | None:
        """The service's container, None where there is none. Raises AskError, also if its labels name another owner."""
        seen_at = time.time()
        status, body = await self._call("GET", service, "json", _ASK_TIMEOUT_S)
        if status == 404:
            return None
        if status != 200:
            raise AskError(f"expected to see the container of {service}, got HTTP {status}: {body}")
        labels = body["Config"]["Labels"] or {}
        owner = (labels.get("com.docker.compose.project"), labels.get("com.docker.compose.service"))
        if owner != (self._project, service):
            raise AskError(f"expected the container of {service} in {self._project}, its labels say {owner}: hands off")
        state = body["State"]
        return Container(
            id=body["Id"],
            state=state["Status"],
            health=(state.get("Health") or {}).get("Status"),
            started_at=_unix(state["StartedAt"]),
            restart_count=int(body.get("RestartCount", 0)),
            exit_code=int(state.get("ExitCode", 0)),
            seen_at=seen_at,
        )

    async def act(self, service: str, action: Action) -> bool:
        """Do it and return once the container runs again: whether we started it, or it ran already. Raises AskError."""
        if action == "restart":
            await self._post(service, "restart?t=1", (204,))
            return True
        if action == "kill":
            await self._post(service, "kill?signal=SIGKILL", (204, 409))  # 409: it is not running, which is as good
            await self._dead(service)
        return await self._post(service, "start", (204, 304)) == 204

    async def _dead(self, service: str) -> None:
        deadline = time.monotonic() + _DIE_TIMEOUT_S
        while time.monotonic() < deadline:
            container = await self.inspect(service)
            if container is None or container.state in ("exited", "dead"):
                return
            await asyncio.sleep(0.05)
        raise AskError(f"expected {service} to be dead {_DIE_TIMEOUT_S:g} s after SIGKILL, it is not")

    async def _post(self, service: str, what: str, good: tuple[int, ...]) -> int:
        status, body = await self._call("POST", service, what, _ACT_TIMEOUT_S)
        if status not in good:
            raise AskError(f"expected {what} of {service} to succeed, got HTTP {status}: {body}")
        return status

    async def _call(self, method: str, service: str, what: str, timeout_s: float) -> tuple[int, Any]:
        # The proxy matches the URL as text, so that it must go out as it stands here.
        url = URL(f"{self._url}/containers/{self._project}-{service}-1/{what}", encoded=True)
        try:
            async with self._session.request(method, url, timeout=aiohttp.ClientTimeout(total=timeout_s)) as response:
                if response.status == 200:
                    return 200, await response.json(content_type=None)
                return response.status, (await response.text())[:300]
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise AskError(
                f"the Docker proxy does not answer {method} {what} of {service}: {type(error).__name__}: {error}"
            ) from error


def _unix(text: str) -> float:
    """RFC 3339, cut to microseconds; Docker's year 1 for "never" becomes 0."""
    if text.startswith("0001-"):
        return 0.0
    return datetime.fromisoformat(text).timestamp()
