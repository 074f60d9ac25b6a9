"""The HTTP contract of an agent."""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from lab_agents.store import NotSavedError
from lab_common.browsers import of_a_browser

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

    from lab_agents.metrics import Metrics
    from lab_agents.service import Service

TASK_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
MAX_BODY_BYTES = 256 << 10
_LONGEST_WAIT_S = 60.0


def application(service: Service, metrics: Metrics) -> web.Application:
    """`/tasks`, `/tasks/ID`, `/healthz` and `/metrics`."""

    async def accept(request: web.Request) -> web.Response:
        """202 once the task is saved, 200 for a known id."""
        task_id, text = await _wanted(request)
        if service.draining:  # after the body, which may come late
            return _later("draining: retry later")
        try:
            task, new = service.accept(task_id, text)
        except NotSavedError as error:
            return _later(str(error))
        return web.json_response(task.state(), status=202 if new else 200)

    async def read(request: web.Request) -> web.Response:
        """The state, after its end or at most `wait_s` seconds."""
        task = service.find(request.match_info["id"])
        if task is None:
            return _unknown(request)
        wait_s = _wait_s(request.query.get("wait_s", "0"))
        if wait_s > 0 and not task.ended.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(task.ended.wait(), wait_s)
        return web.json_response(task.state())

    async def cancel(request: web.Request) -> web.Response:
        task = service.find(request.match_info["id"])
        if task is None:
            return _unknown(request)
        await service.cancel(task)
        return web.json_response(task.state(), status=202)

    async def health(_: web.Request) -> web.Response:
        return web.json_response({"status": "draining" if service.draining else "ok"})

    async def scrape(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_programs_only])
    app.add_routes(
        [
            web.post("/tasks", accept),
            web.get("/tasks/{id}", read),
            web.delete("/tasks/{id}", cancel),
            web.get("/healthz", health),
            web.get("/metrics", scrape),
        ]
    )
    return app


@web.middleware
async def _programs_only(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A page in a user's browser neither starts nor cancels tasks."""
    why = None if request.method == "GET" else of_a_browser(request.headers)
    return await handler(request) if why is None else web.json_response({"error": why}, status=403)


async def _wanted(request: web.Request) -> tuple[str, str]:
    expected = (
        'expected {"id": ID, "input": TEXT}, where an ID has 1 to 128 letters, digits, dots, dashes or underscores'
    )
    try:
        body = await request.json()
    except (ValueError, LookupError, RecursionError):  # LookupError: an unknown charset
        raise web.HTTPBadRequest(text=f"{expected}, got no JSON") from None
    match body:
        case {"id": str(task_id), "input": str(text)} if TASK_ID.fullmatch(task_id) and _is_text(text):
            return task_id, text
    raise web.HTTPBadRequest(text=f"{expected}, got {ascii(body)[:200]}")


def _is_text(text: str) -> bool:
    """False with half of a character, which cannot be saved."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _later(why: str) -> web.Response:
    return web.json_response({"error": why}, status=503, headers={"Retry-After": "1"})


def _wait_s(given: str) -> float:
    try:
        wait_s = float(given)
    except ValueError:
        wait_s = math.nan
    if not 0 <= wait_s <= _LONGEST_WAIT_S:
        raise web.HTTPBadRequest(text=f"wait_s: expected seconds from 0 to {_LONGEST_WAIT_S:g}, got {given[:100]!r}")
    return wait_s


def _unknown(request: web.Request) -> web.Response:
    return web.json_response({"error": f"no task {request.match_info['id'][:200]!r}"}, status=404)
