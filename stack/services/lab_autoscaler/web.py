"""Read-only HTTP: health, metrics, replicas with their owners, audit."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

if TYPE_CHECKING:
    from pathlib import Path

    from lab_autoscaler.loop import Autoscaler
    from lab_autoscaler.metrics import Metrics


def application(autoscaler: Autoscaler, metrics: Metrics, audit_file: Path) -> web.Application:
    """`/healthz`, `/metrics`, `/replicas`, `/audit`."""

    async def health(_: web.Request) -> web.Response:
        """200 while the loop runs, once it has taken up the replicas."""
        body = {"live": autoscaler.live, "ready": autoscaler.ready, "troubles": autoscaler.troubles}
        return web.json_response(body, status=200 if autoscaler.live and autoscaler.ready else 503)

    async def scrape(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def replicas(_: web.Request) -> web.Response:
        """Each replica's owner and phase. 503 before the replicas are taken up."""
        body = {
            "replicas": [{"name": one.name, "owner": one.owner, "state": one.phase} for one in autoscaler.published],
            "desired": autoscaler.desired,
            "ended": autoscaler.has_ended,
        }
        return web.json_response(body, status=200 if autoscaler.ready else 503)

    async def audit(_: web.Request) -> web.Response:
        body = await asyncio.to_thread(audit_file.read_bytes)
        return web.Response(body=body, content_type="application/jsonl")

    app = web.Application()
    app.add_routes(
        [
            web.get("/healthz", health),
            web.get("/metrics", scrape),
            web.get("/replicas", replicas),
            web.get("/audit", audit),
        ]
    )
    return app
