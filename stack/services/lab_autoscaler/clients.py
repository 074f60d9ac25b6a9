"""Reports of the gateway and the runtime on each replica."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import aiohttp

from lab_autoscaler.fleet import UNSEEN, Sight
from lab_remediator.clients import AskError, Docker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lab_autoscaler.settings import Sights

_ASK_TIMEOUT_S = 1.0
RUNNING = frozenset({"running", "paused", "restarting"})  # it has a process


class Services:
    """The reports of gateway and remediator."""

    def __init__(self, session: aiohttp.ClientSession, sights: Sights) -> None:
        self._session, self._sights = session, sights

    async def replicas(self) -> dict[str, Sight]:
        """Health, drain and requests in flight of each replica, by the gateway.

        Raises:
            AskError: no answer, or one of another shape.
        """
        return gateway_sights(await self._json(f"{self._sights.gateway_url}/readyz"))

    async def repaired(self) -> frozenset[str]:
        """The services on which the remediator acts right now. A dead one acts on none.

        Raises:
            AskError: no answer, or one of another shape.
        """
        if not self._sights.remediator_url:
            return frozenset()
        body = await self._json(f"{self._sights.remediator_url}/healthz")
        acting = body.get("acting") if isinstance(body, dict) else None
        if not isinstance(acting, list):
            raise AskError(f"expected the remediator's acts, got {body!r:.200}")
        return frozenset(str(name) for name in acting)

    async def _json(self, url: str) -> Any:
        """The body of an answer. That of a 503 counts as well."""
        try:
            timeout = aiohttp.ClientTimeout(total=_ASK_TIMEOUT_S)
            async with self._session.get(url, timeout=timeout, allow_redirects=False) as response:
                return await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, ValueError, RecursionError) as error:
            raise AskError(f"{url} does not answer: {type(error).__name__}: {error}") from error


def gateway_sights(body: Any) -> dict[str, Sight]:
    """The replicas of an answer.

    Raises:
        AskError: the answer has another shape.
    """
    replicas = body.get("replicas") if isinstance(body, dict) else None
    if not isinstance(replicas, dict) or not all(isinstance(one, dict) for one in replicas.values()):
        raise AskError(f"expected the gateway's replicas, got {body!r:.200}")
    return {str(name): _sight(str(name), one) for name, one in replicas.items()}


def _sight(name: str, one: dict[str, Any]) -> Sight:
    healthy, draining, in_flight = one.get("healthy"), one.get("draining"), one.get("in_flight")
    if not isinstance(healthy, bool) or not isinstance(draining, bool) or type(in_flight) is not int:
        raise AskError(f"expected healthy, draining and in_flight of {name}, got {one!r:.200}")
    return Sight(is_healthy=healthy, is_draining=draining, in_flight=in_flight)


class Lookout:
    """One look at all replicas, from all sources."""

    def __init__(
        self,
        *,
        docker: Docker,
        services: Services,
        scaled: tuple[str, ...],
        on_answer: Callable[[str, str | None], None],
    ) -> None:
        self._docker, self._services, self._scaled = docker, services, scaled
        self._on_answer = on_answer

    async def look(self, *, with_repairs: bool) -> Mapping[str, Sight]:
        """Each replica's sight. A source without an answer leaves its part unknown.

        Args:
            with_repairs: Read the remediator's acts as well.
        """
        # At a cancellation `gather` leaves none of them behind.
        running, seen, repaired = await asyncio.gather(
            asyncio.gather(*(self._at_runtime(name) for name in self._scaled)),
            self._at_gateway(),
            self._at_remediator(read=with_repairs),
        )
        return {
            name: replace(seen.get(name, UNSEEN), is_running=is_running, is_repaired=name in repaired)
            for name, is_running in zip(self._scaled, running, strict=True)
        }

    async def _at_remediator(self, *, read: bool) -> frozenset[str]:
        if not read:
            return frozenset()
        try:
            found = await self._services.repaired()
        except AskError as error:
            self._on_answer("remediator", str(error))
            return frozenset()
        self._on_answer("remediator", None)
        return found

    async def _at_gateway(self) -> dict[str, Sight]:
        try:
            found = await self._services.replicas()
        except AskError as error:
            self._on_answer("gateway", str(error))
            return {}
        self._on_answer("gateway", None)
        return found

    async def _at_runtime(self, name: str) -> bool | None:
        """True if it runs. A container that does not exist is unknown."""
        try:
            container = await self._docker.inspect(name)
        except AskError as error:
            self._on_answer(f"docker {name}", str(error))
            return None
        missing = f"the runtime has no container of {name}: create it (docker compose create)"
        self._on_answer(f"docker {name}", missing if container is None else None)
        return None if container is None else container.state in RUNNING
