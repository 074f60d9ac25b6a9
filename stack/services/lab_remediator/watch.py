"""Polling of signals and containers, one task each."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

from lab_remediator.clients import AskError, Docker, Prober, Prometheus
from lab_remediator.model import Observations

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from lab_remediator.metrics import Metrics
    from lab_remediator.model import Container, Reading
    from lab_remediator.rules import Policy, Signal


class Troubles:
    """One log line when a trouble begins or changes, and one when it ends."""

    def __init__(self) -> None:
        self.now: dict[str, str] = {}

    def tell(self, what: str, trouble: str | None) -> None:
        if self.now.get(what) == trouble:
            return
        if trouble is None:
            del self.now[what]
        else:
            self.now[what] = trouble
        line = {"at": time.time(), "level": "warning" if trouble else "info", "what": what, "trouble": trouble}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


class Watch:
    """The latest answers.

    A query without an answer leaves the last one to expire.
    """

    def __init__(
        self,
        *,
        policy: Policy,
        prometheus: Prometheus,
        docker: Docker,
        prober: Prober,
        metrics: Metrics,
        troubles: Troubles,
        poll_s: float,
        on_container: Callable[[str, Container], None],
    ) -> None:
        self._policy, self._prometheus, self._docker, self._prober = policy, prometheus, docker, prober
        self._metrics, self._troubles, self._poll_s, self._on_container = metrics, troubles, poll_s, on_container
        self._readings: dict[tuple[str, str], Reading] = {}
        self._containers: dict[str, Container] = {}
        self._answered_at: dict[str, float] = {}
        self.news = asyncio.Event()

    @property
    def ready(self) -> bool:
        """True once Prometheus and the proxy have each given a usable answer."""
        return {"prometheus", "docker"} <= self._answered_at.keys()

    def answered_s_ago(self) -> dict[str, float]:
        """Seconds since each source's last usable answer."""
        now = time.monotonic()
        return {source: round(now - at, 3) for source, at in self._answered_at.items()}

    def observations(
        self, held: frozenset[str], *, unsettled: frozenset[str], elsewhere: frozenset[str]
    ) -> Observations:
        """Current observations, except of unsettled services and those elsewhere."""
        without = unsettled | elsewhere
        return Observations(
            readings={key: value for key, value in self._readings.items() if key[1] not in without},
            containers={name: value for name, value in self._containers.items() if name not in without},
            held=held,
            elsewhere=elsewhere,
        )

    async def run(self) -> None:
        """Poll until cancelled."""
        async with asyncio.TaskGroup() as group:
            for service in self._policy.services:
                group.create_task(self._every(self._poll_s, partial(self.look_at, service)))
            for signal in self._policy.signals.values():
                every_s = max(signal.every_s, self._poll_s)
                if signal.query is not None:
                    group.create_task(self._every(every_s, partial(self._ask, signal)))
                    continue
                for service in self._probed(signal):
                    group.create_task(self._every(every_s, partial(self._probe, signal, service)))

    async def _every(self, every_s: float, ask: Callable[[], Awaitable[None]]) -> None:
        """At most one query at a time: a slow answer delays the next."""
        while True:
            due = time.monotonic() + every_s
            await ask()
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def look_at(self, service: str) -> None:
        """Query the runtime for the service's container."""
        try:
            container = await self._docker.inspect(service)
        except AskError as error:
            self._answered("docker", service, error)
            return
        self._answered("docker", service, None)
        if container is None:
            self._containers.pop(service, None)
        else:
            self._containers[service] = container
            self._on_container(service, container)

    async def _ask(self, signal: Signal) -> None:
        try:
            found = await self._prometheus.readings(signal, self._policy)
        except AskError as error:
            self._answered("prometheus", signal.name, error)
            return
        self._readings.update({(signal.name, service): reading for service, reading in found.items()})
        self._answered("prometheus", signal.name, None)

    async def _probe(self, signal: Signal, service: str) -> None:
        if signal.only_while is not None:
            gate = self._readings.get((signal.only_while, service))
            stale = gate is None or time.time() - gate.at > self._policy.guards.stale_s
            if gate is None or stale or not self._policy.signals[signal.only_while].fires(gate.value):
                return
        reading = await self._prober.reading(signal, service)
        if reading is not None:
            self._readings[signal.name, service] = reading
            self.news.set()

    def _probed(self, signal: Signal) -> tuple[str, ...]:
        """Services whose rules use the probe. It shows nothing of others."""
        return tuple(service for service in self._policy.services if signal.name in self._policy.names_of(service))

    def _answered(self, source: str, what: str, error: AskError | None) -> None:
        self._metrics.answers.labels(source, "failed" if error else "ok").inc()
        self._troubles.tell(f"{source} {what}", str(error) if error else None)
        if error is None:
            self._answered_at[source] = time.monotonic()
            self.news.set()
