"""Read-only HTTP: metrics, health and audit."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from lab_common.signals import ENDING

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from lab_remediator.loop import Remediator
    from lab_remediator.metrics import Metrics

_LAST_ANSWER_S = 0.2


async def serve_while(
    run: Callable[[], Coroutine[None, None, None]], app: web.Application, host: str, port: int
) -> None:
    """Run, and answer meanwhile, until a signal ends it. The autoscaler does it too.

    Raises:
        OSError: the address is in use or not of this machine.
    """
    # Prometheus keeps its connection open: do not wait for it.
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_LAST_ANSWER_S)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    work = asyncio.create_task(run())
    for number in ENDING:
        asyncio.get_running_loop().add_signal_handler(number, work.cancel)
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await work
    finally:
        await runner.cleanup()


def application(remediator: Remediator, metrics: Metrics, audit_file: Path) -> web.Application:
    """`/healthz` and `/readyz`, `/metrics`, `/audit`."""

    async def health(_: web.Request) -> web.Response:
        """200 while the loop runs, once Prometheus and the proxy have answered."""
        ready = remediator.watch.ready
        body = {
            "ready": ready,
            "live": remediator.live,
            "answered_s_ago": remediator.watch.answered_s_ago(),
            "acting": sorted(remediator.acting),
        }
        return web.json_response(body, status=200 if ready and remediator.live else 503)

    async def scrape(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def audit(_: web.Request) -> web.Response:
        body = await asyncio.to_thread(audit_file.read_bytes)
        return web.Response(body=body, content_type="application/jsonl")

    app = web.Application()
    app.add_routes(
        [web.get("/healthz", health), web.get("/readyz", health), web.get("/metrics", scrape), web.get("/audit", audit)]
    )
    return app
