"""HTTP routes of the gateway, request ids and the API key."""

import hmac
import os
import re
from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from lab_api.gateway import Gateway
from lab_api.logs import logger
from lab_api.outcomes import GatewayError, Outcome
from lab_api.replica import Duty

REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
GATEWAY = web.AppKey("gateway", Gateway)
_REQUEST_ID = web.RequestKey("request_id", str)
_MODELS_TIMEOUT_S = 2.0


def create_app(gateway: Gateway) -> web.Application:
    """The application. Its owner starts the prober and closes the gateway."""
    app = web.Application(middlewares=[_front], client_max_size=gateway.settings.admission.body_max_bytes)
    app[GATEWAY] = gateway
    app.router.add_post("/v1/chat/completions", _chat)
    app.router.add_get("/v1/models", _models)
    app.router.add_get("/healthz", _healthz)
    app.router.add_get("/readyz", _readyz)
    app.router.add_get("/metrics", _metrics)
    return app


@web.middleware
async def _front(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Give each request an id, check its key, and format refusals as OpenAI errors."""
    asked = request.headers.get("x-request-id", "")
    request_id = asked if REQUEST_ID.fullmatch(asked) else os.urandom(16).hex()
    request[_REQUEST_ID] = request_id
    gateway = request.app[GATEWAY]
    try:
        _require_key(request, gateway.settings.api_key)
        response = await handler(request)
    except web.HTTPException as error:
        message = f"{request.method} {request.path[:100]}: {error.reason}"
        refused = GatewayError(outcome=Outcome.INVALID_REQUEST, message=message, status=error.status)
        response = gateway.refusal(refused, request_id)
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
    except GatewayError as error:
        response = gateway.refusal(error, request_id)
        if error.status == 401:
            response.headers["WWW-Authenticate"] = "Bearer"
    except Exception:  # noqa: BLE001 -- every client gets an answer in the form of this API
        logger.exception("unexpected failure", extra={"request_id": request_id, "path": request.path[:100]})
        failed = GatewayError(outcome=Outcome.INTERNAL_ERROR, message="the gateway failed: see its log")
        response = gateway.refusal(failed, request_id)
    if not response.prepared:
        response.headers["x-request-id"] = request_id
    return response


def _require_key(request: web.Request, api_key: str) -> None:
    """Require the API key, if one is set. Health and metrics are open."""
    if not api_key or not request.path.startswith("/v1/"):
        return
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and hmac.compare_digest(
        given.strip().encode(errors="surrogateescape"), api_key.encode()
    ):
        return
    raise GatewayError(
        outcome=Outcome.INVALID_REQUEST,
        message="this API needs the header 'Authorization: Bearer KEY' with the right key",
        status=401,
        code="invalid_api_key",
    )


async def _chat(request: web.Request) -> web.StreamResponse:
    return await request.app[GATEWAY].chat(request, request[_REQUEST_ID])


async def _models(request: web.Request) -> web.StreamResponse:
    """The one model served here.

    Its owner comes from a replica, so a simulated engine is visible as one.
    """
    gateway = request.app[GATEWAY]
    for replica in sorted(gateway.pool.replicas, key=lambda one: (not one.healthy, one.in_flight)):
        try:
            owner = await gateway.upstream.owner(replica, gateway.settings.model, _MODELS_TIMEOUT_S)
        except GatewayError:
            continue
        entry = {"id": gateway.settings.model, "object": "model", "created": 0, "owned_by": owner}
        return web.json_response({"object": "list", "data": [entry]}, headers={"x-llmlab-replica": replica.name})
    raise GatewayError(outcome=Outcome.NO_REPLICA, message="no replica reports which models it serves: retry later")


async def _healthz(request: web.Request) -> web.StreamResponse:
    """Alive: the event loop runs.

    Replicas do not count, or their failure would restart the gateway. They do if the
    pattern `health_apart` is off.
    """
    gateway = request.app[GATEWAY]
    if gateway.settings.patterns.health_apart or gateway.pool.ready:
        return web.json_response({"status": "ok"})
    return web.json_response({"status": "no replica is ready"}, status=503)


async def _readyz(request: web.Request) -> web.StreamResponse:
    """Ready: accepts requests and has a replica that answers."""
    gateway = request.app[GATEWAY]
    now_s = gateway.pool.clock()
    ready = gateway.pool.ready and not gateway.draining
    replicas = {
        replica.name: {
            "healthy": replica.healthy,
            "circuit": replica.breaker.state(now_s).name.lower(),
            "in_flight": replica.in_flight,
            "draining": replica.duty is not Duty.SERVING,
        }
        for replica in gateway.pool.replicas
    }
    status = "draining" if gateway.draining else ("ready" if ready else "no replica is ready")
    return web.json_response({"status": status, "replicas": replicas}, status=200 if ready else 503)


async def _metrics(request: web.Request) -> web.StreamResponse:
    text = await request.app[GATEWAY].metrics.exposition()
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})
