"""Replicas that the autoscaler drains or has stopped."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import aiohttp

from lab_api.logs import logger
from lab_api.pool import Pool
from lab_api.replica import Duty, Replica

POLL_S = 0.5
SILENT_S = 10.0  # without an answer for this long, what answers its probe gets requests
_DUTIES = {"cold": Duty.SERVING, "ready": Duty.SERVING, "draining": Duty.DRAINING, "stopped": Duty.STOPPED}


class Duties:
    """Keeps `Replica.duty` current. Without an answer the last one holds."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._heard_s, self._is_silent = pool.clock(), False
        for replica in pool.replicas:
            replica.is_spare = not replica.healthy  # until the autoscaler or a probe shows otherwise

    def heard(self, states: Mapping[str, str] | None) -> None:
        """Apply an answer, or None for silence."""
        now_s = self._pool.clock()
        if states is not None:
            self._heard_s, self._is_silent = now_s, False
            for replica in self._pool.replicas:
                state = states.get(replica.name, "ready")
                _assign(replica, _DUTIES[state])
                replica.is_spare = replica.is_spare and state != "ready"
        elif not self._is_silent and now_s - self._heard_s > SILENT_S:
            self._is_silent = True
            logger.warning("the autoscaler is silent: replicas that answer their probe get requests")
            for replica in self._pool.replicas:
                _assign(replica, Duty.SERVING)
        self._pool.wake()


class Scaling:
    """Polls the autoscaler's `/replicas`."""

    def __init__(self, pool: Pool, url: str) -> None:
        self.duties = Duties(pool)
        self._url = f"{url}/replicas"
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=POLL_S))
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start polling and return after the first try."""
        await self._poll()
        self._task = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await self._session.close()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            await self._poll()

    async def _poll(self) -> None:
        try:
            async with self._session.get(self._url, allow_redirects=False) as response:
                states = states_of(await response.json(content_type=None)) if response.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, ValueError, RecursionError):
            states = None
        self.duties.heard(states)


def _assign(replica: Replica, duty: Duty) -> None:
    if replica.duty is not duty:
        logger.info("replica changes duty", extra={"replica": replica.name, "duty": duty.value})
        replica.assign(duty)


def states_of(body: Any) -> dict[str, str] | None:
    """The states of an answer by replica. None for an answer of another shape."""
    replicas = body.get("replicas") if isinstance(body, dict) else None
    if not isinstance(replicas, list) or not all(isinstance(one, dict) for one in replicas):
        return None
    found = {str(one.get("name")): str(one.get("state")) for one in replicas}
    return found if set(found.values()) <= _DUTIES.keys() else None
