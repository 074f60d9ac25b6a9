"""The shallow probe of each replica's health path."""

import asyncio
from contextlib import suppress

import aiohttp

from lab_api.logs import logger
from lab_api.pool import Pool
from lab_api.replica import Duty, Probed, Replica
from lab_api.settings import Probing


class Prober:
    """Keeps `Replica.healthy` current, with one probe at a time for each replica."""

    def __init__(self, pool: Pool, *, path: str, probing: Probing) -> None:
        self._pool = pool
        self._path = path
        self._probing = probing
        # One connection per probe: an old one may work while new ones are refused.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True, limit=0, ttl_dns_cache=1),
            timeout=aiohttp.ClientTimeout(total=probing.timeout_s),
        )
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start probing and return after the first round."""
        await asyncio.gather(*(self._look_at(replica) for replica in self._pool.replicas))
        self._tasks = [asyncio.create_task(self._watch(replica)) for replica in self._pool.replicas]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task
        await self._session.close()

    async def _watch(self, replica: Replica) -> None:
        while True:
            await asyncio.sleep(self._probing.interval_s)
            if replica.duty is not Duty.STOPPED:
                await self._look_at(replica)

    async def _look_at(self, replica: Replica) -> None:
        was_healthy, was = replica.healthy, replica.last_probe
        began_s = self._pool.clock()
        verdict, detail = await self._probe(replica)
        now_s = self._pool.clock()
        if replica.duty is Duty.STOPPED:
            return  # it was stopped during the probe
        replica.probed(verdict, now_s, took_s=now_s - began_s)
        if replica.healthy != was_healthy or was is None:
            logger.info(
                "replica is up" if replica.healthy else "replica is down",
                extra={"replica": replica.name, "probe": verdict.value, "detail": detail},
            )
        self._pool.wake()

    async def _probe(self, replica: Replica) -> tuple[Probed, str]:
        try:
            async with self._session.get(replica.url + self._path, allow_redirects=False) as response:
                await response.read()
                good = 200 <= response.status < 300
                return (Probed.GOOD if good else Probed.BAD), f"{self._path} answered {response.status}"
        except (aiohttp.ConnectionTimeoutError, TimeoutError):
            return Probed.BAD, f"{self._path} did not answer within {self._probing.timeout_s:g} s"
        except aiohttp.ClientConnectorError as error:
            return Probed.REFUSED, str(error)
        except (aiohttp.ClientError, OSError) as error:
            return Probed.BAD, f"{type(error).__name__}: {error}"
