"""Admin port: HTTP on loopback that starts, lists and ends faults."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from aiohttp import web

from lab_common.browsers import refusal
from lab_common.values import InvalidValueError
from lab_engine import faults
from lab_engine.chaos import Chaos
from lab_engine.leases import FaultConflictError, UnknownFaultError

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

MAX_BODY_BYTES = 64 << 10
CHAOS = web.AppKey("chaos", Chaos)


def application(chaos: Chaos) -> web.Application:
    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[errors_as_json, programs_only])
    app[CHAOS] = chaos
    app.add_routes(
        [
            web.post("/faults", start),
            web.get("/faults", listed),
            web.get("/faults/{id}", shown),
            web.delete("/faults/{id}", ended),
        ]
    )
    return app


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except InvalidValueError as error:
        return _refusal(400, str(error))
    except UnknownFaultError as error:
        return _refusal(404, str(error))
    except FaultConflictError as error:
        return _refusal(409, str(error))
    except web.HTTPException as error:
        if error.status < 400:
            raise
        hint = "this port serves POST /faults, GET /faults, GET /faults/<id> and DELETE /faults/<id>"
        return _refusal(error.status, f"{request.method} {request.path}: {error.reason}; {hint}")


@web.middleware
async def programs_only(request: web.Request, handler: Handler) -> web.StreamResponse:
    why = refusal(request.headers)
    return await handler(request) if why is None else _refusal(403, why)


async def start(request: web.Request) -> web.Response:
    chaos = request.app[CHAOS]
    try:
        data = json.loads(await request.read())
    except (ValueError, RecursionError) as error:
        raise InvalidValueError(f"the body is not JSON: {error}") from None
    lease = chaos.start(*faults.parse(data))
    return web.json_response(lease.described(chaos.engine.clock()), status=201)


async def listed(request: web.Request) -> web.Response:
    engine = request.app[CHAOS].engine
    now_s = engine.clock()
    return web.json_response({"simulated": True, "faults": [lease.described(now_s) for lease in engine.faults.all()]})


async def shown(request: web.Request) -> web.Response:
    engine = request.app[CHAOS].engine
    return web.json_response(engine.faults.find(request.match_info["id"]).described(engine.clock()))


async def ended(request: web.Request) -> web.Response:
    chaos = request.app[CHAOS]
    return web.json_response(chaos.end(request.match_info["id"]).described(chaos.engine.clock()))


def _refusal(status: int, message: str) -> web.Response:
    return web.json_response({"error": {"message": message, "code": status}}, status=status)
