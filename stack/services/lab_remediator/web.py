"""Read-only HTTP: metrics, health and audit."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

if TYPE_CHECKING:
    from pathlib import Path

    from lab_remediator.loop import Remediator
    from lab_remediator.metrics import Metrics


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
