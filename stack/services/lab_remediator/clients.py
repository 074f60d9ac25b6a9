"""HTTP clients: Prometheus, the remediator's probes, the Docker proxy."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import aiohttp
from yarl import URL

from lab_remediator.model import Container, Reading

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from lab_remediator.model import Action
    from lab_remediator.rules import Policy, Signal

_ASK_TIMEOUT_S = 1.0  # a later answer is out of date
_ACT_TIMEOUT_S = 20.0  # a restart includes the container's stop time
_DIE_TIMEOUT_S = 5.0
# Errors of reading any body: wrong types, missing keys, range, deep nesting.
_ODD = (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)


class AskError(RuntimeError):
    """No answer, or an unusable one."""


@contextlib.contextmanager
def _usable(answer: str) -> Iterator[None]:
    """Turn errors of the block into AskError.

    The block reads an answer whose shape may differ.
    """
    try:
        yield
    except AskError:
        raise
    except _ODD as error:
        raise AskError(f"{answer} has an unexpected shape: {type(error).__name__}: {str(error)[:200]}") from error


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected {name} to be a text, got {value!r:.80}")
    return value


def _whole(value: object, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"expected {name} to be a whole number, got {value!r:.80}")
    return value


class Prometheus:
    """Instant queries, each a set of readings by service."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session, self._url = session, f"{url}/api/v1/query"

    async def readings(self, signal: Signal, policy: Policy) -> dict[str, Reading]:
        """The signal by service. A service without a finite sample is absent."""
        return readings_of(await self.data(str(signal.query), signal.name), signal, policy.services)

    async def data(self, query: str, name: str) -> object:
        """The data of an instant query. `name` names it in errors.

        Raises:
            AskError: Prometheus does not answer, or refuses the query.
        """
        try:
            async with self._session.post(
                self._url,
                data={"query": query},
                timeout=aiohttp.ClientTimeout(total=_ASK_TIMEOUT_S),
                allow_redirects=False,
            ) as response:
                body: Any = await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, ValueError, RecursionError) as error:
            raise AskError(f"Prometheus does not answer {name}: {type(error).__name__}: {error}") from error
        if not isinstance(body, dict) or body.get("status") != "success":
            raise AskError(f"Prometheus refuses {name} ({query}): {str(body)[:300]}")
        return body.get("data")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One sample of an answer, never NaN. `at` is its evaluation time."""

    labels: Mapping[str, str]
    at: float
    value: float


def samples_of(data: Any, name: str) -> list[Sample]:
    """The samples of an answer, without NaN.

    Raises:
        AskError: the data has another shape.
    """
    with _usable(f"Prometheus' answer to {name}"):
        return list(_samples(data, name))


def _samples(data: Any, name: str) -> Iterator[Sample]:
    kind, result = data["resultType"], data["result"]
    if kind not in ("vector", "scalar"):
        raise AskError(f"{name}: expected an instant vector or a scalar, got a {kind}")
    samples = [({}, result)] if kind == "scalar" else [(one["metric"], one["value"]) for one in result]
    for labels, (at, text) in samples:
        # Prometheus sends a value as text and a time as a number.
        value, evaluated_at = float(_text(text, "a value")), float(at)
        if isinstance(at, str | bool) or not math.isfinite(evaluated_at):
            raise ValueError(f"expected a time, got {at!r}")
        if not math.isnan(value):
            yield Sample(labels=labels, at=evaluated_at, value=value)


def readings_of(data: Any, signal: Signal, services: tuple[str, ...]) -> dict[str, Reading]:
    """The answer's samples by service.

    Of several samples of one service the bad one counts.

    Raises:
        AskError: the data has another shape.
    """
    with _usable(f"Prometheus' answer to {signal.name}"):
        return _readings(samples_of(data, signal.name), signal, services)


def _readings(samples: Iterable[Sample], signal: Signal, services: tuple[str, ...]) -> dict[str, Reading]:
    found: dict[str, Reading] = {}
    for sample in samples:
        for service in services if signal.by is None else (sample.labels.get(signal.by),):
            if service in services and (service not in found or signal.fires(sample.value)):
                found[service] = Reading(at=sample.at, value=sample.value)
    return found


class Prober:
    """The remediator's own probe of a service.

    It shares neither scrape nor gateway with Prometheus, so it is an independent
    witness.
    """

    def __init__(
        self, session: aiohttp.ClientSession, health_path: str, addresses: Mapping[str, str], *, canary: str = ""
    ) -> None:
        self._session, self._health_path, self._addresses = session, health_path, addresses
        self._canary = canary
        self._reached: set[str] = set()

    async def reading(self, signal: Signal, service: str) -> Reading | None:
        """1 for a good answer in time, 0 for silence or a failure, else None.

        None while no probe has ever reached the service (it may be unreachable from
        here), and for answers about the request (4xx) or about load (503, unless
        `busy_is_bad`). A canary is about the text of an answer alone, so it is None
        without one.
        """
        if signal.canary and not self._canary:
            return None
        url = self._url(signal, service)
        timeout = aiohttp.ClientTimeout(total=signal.timeout_s)
        method = "GET" if signal.post is None else "POST"
        status, body = 0, b""
        try:
            # Redirects are not followed: they lead to another service.
            async with self._session.request(
                method, url, json=signal.post, timeout=timeout, allow_redirects=False
            ) as response:
                body = await response.read()
                status = response.status
        except (aiohttp.ClientError, TimeoutError):
            status = 0
        if status:
            self._reached.add(url.authority)
        busy = status == 503 and not signal.busy_is_bad
        if url.authority not in self._reached or 400 <= status < 500 or busy:
            return None
        if signal.canary:
            said = _said(body) if status == 200 else None
            return None if said is None else Reading(at=time.time(), value=float(said.strip() == self._canary))
        return Reading(at=time.time(), value=float(0 < status < 400))

    def _url(self, signal: Signal, service: str) -> URL:
        url = URL(str(signal.probe).replace("{service}", service).replace("{health_path}", self._health_path))
        host, _, port = self._addresses.get(f"{url.host}:{url.port}", "").rpartition(":")
        return url.with_host(host.strip("[]")).with_port(int(port)) if host else url


def _said(body: bytes) -> str | None:
    """The text of a chat completion, or None."""
    try:
        return _text(json.loads(body)["choices"][0]["message"]["content"], "content")
    except _ODD:
        return None


class Docker:
    """The calls that the allow-list permits. Containers go by name, never by id."""

    def __init__(self, session: aiohttp.ClientSession, url: str, project: str) -> None:
        self._session, self._url, self._project = session, url, project

    async def inspect(self, service: str) -> Container | None:
        """The service's container, or None.

        Raises:
            AskError: the proxy fails, or the labels name another owner.
        """
        seen_at = time.time()
        status, body = await self._call("GET", service, "json", _ASK_TIMEOUT_S)
        if status == 404:
            return None
        if status != 200:
            raise AskError(f"expected to see the container of {service}, got HTTP {status}: {body}")
        with _usable(f"the container of {service}"):
            return self._container(service, body, seen_at)

    def _container(self, service: str, body: Any, seen_at: float) -> Container:
        labels = body["Config"]["Labels"] or {}
        owner = (labels.get("com.docker.compose.project"), labels.get("com.docker.compose.service"))
        if owner != (self._project, service):
            raise AskError(
                f"expected the container of {service} in {self._project}, its labels name {owner}: it is not touched"
            )
        state = body["State"]
        health = (state.get("Health") or {}).get("Status")
        return Container(
            id=_text(body["Id"], "Id"),
            state=_text(state["Status"], "Status"),
            health=None if health is None else _text(health, "Health.Status"),
            started_at=_unix(_text(state["StartedAt"], "StartedAt")),
            restart_count=_whole(body.get("RestartCount", 0), "RestartCount"),
            exit_code=_whole(state.get("ExitCode", 0), "ExitCode"),
            seen_at=seen_at,
        )

    async def act(self, service: str, action: Action) -> bool:
        """Perform the action, and return once the container runs again.

        It also counts if the container was running already.

        Raises:
            AskError: the action failed.
        """
        if action == "restart":
            await self._post(service, "restart?t=1", (204,))
            return True
        if action == "kill":
            await self._post(service, "kill?signal=SIGKILL", (204, 409))  # 409: it is not running, which suffices
            await self._dead(service)
        return await self._post(service, "start", (204, 304)) == 204

    async def stop(self, service: str, grace_s: int) -> None:
        """SIGTERM, then SIGKILL after the grace (0 to 99 s). Returns once it has ended.

        It also counts if the container was not running.

        Raises:
            AskError: the action failed.
        """
        await self._post(service, f"stop?t={grace_s}", (204, 304))

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
        # The proxy matches the URL as text, so it must be sent unchanged.
        url = URL(f"{self._url}/containers/{self._project}-{service}-1/{what}", encoded=True)
        try:
            timeout = aiohttp.ClientTimeout(total=timeout_s)
            async with self._session.request(method, url, timeout=timeout, allow_redirects=False) as response:
                if response.status == 200:
                    return 200, await response.json(content_type=None)
                return response.status, (await response.text())[:300]
        except (aiohttp.ClientError, TimeoutError, ValueError, RecursionError) as error:
            raise AskError(
                f"the Docker proxy does not answer {method} {what} of {service}: {type(error).__name__}: {error}"
            ) from error


def _unix(text: str) -> float:
    """Unix seconds of RFC 3339, cut to microseconds. Docker's year 1 ("never") is 0."""
    if text.startswith("0001-"):
        return 0.0
    return datetime.fromisoformat(text).timestamp()
