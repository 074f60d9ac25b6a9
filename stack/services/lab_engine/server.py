"""HTTP server of the engine: OpenAI's API, health and metrics."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector

from lab_engine import chat, replies, tokens
from lab_engine.answers import RefusedError
from lab_engine.dcgm import GpuCollector
from lab_engine.engine import Engine
from lab_engine.errors import BadRequestError
from lab_engine.exposition import EngineCollector, page
from lab_engine.streams import StreamSink, WholeSink

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

MAX_BODY_BYTES = 4 << 20
ENGINE = web.AppKey("engine", Engine)
REGISTRY = web.AppKey("registry", CollectorRegistry)
STARTED_AT = web.AppKey("started_at", int)  # Unix seconds, a label only


def application(engine: Engine) -> web.Application:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(EngineCollector(engine))
    registry.register(GpuCollector(engine))
    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[errors_as_json])
    app[ENGINE] = engine
    app[REGISTRY] = registry
    app[STARTED_AT] = int(time.time())
    app.add_routes(
        [
            web.post("/v1/chat/completions", completions),
            web.get("/v1/models", models),
            web.get("/health", health),
            *(web.get(path, metrics) for path in {"/metrics", engine.names.path}),
        ]
    )
    return app


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except BadRequestError as error:
        return _refusal(str(error), kind=error.kind, status=error.status, param=error.param)
    except RefusedError as error:
        return _refusal(str(error), kind=error.kind, status=error.status)
    except web.HTTPRequestEntityTooLarge:
        return _refusal(f"the body is larger than {MAX_BODY_BYTES} bytes", kind="BadRequestError", status=413)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        text = f"{request.method} {request.path}: {error.reason}"
        response = _refusal(
            text, kind="NotFoundError" if error.status == 404 else "BadRequestError", status=error.status
        )
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
        return response


async def completions(request: web.Request) -> web.StreamResponse:
    engine = request.app[ENGINE]
    limits = engine.scheduler.limits
    settings = engine.settings
    asked = chat.parse(
        await request.read(),
        model=settings.model,
        max_model_tokens=limits.max_model_tokens,
        manner=settings.manner,
    )
    name = f"chatcmpl-{uuid.uuid4().hex}"
    head = replies.Head(request_id=name, model=engine.settings.model, created=int(time.time()))
    prefix = tokens.prefix_hashes(asked.rendered, limits.block_tokens)
    if asked.stream:
        return await _streamed(request, engine, asked, head, prefix)
    sink = WholeSink()
    sequence = engine.submit(name, asked, prefix, sink)
    try:
        pieces = await sink.done
    finally:
        engine.abort(sequence)
    used = replies.usage(asked.prompt_tokens, asked.answer_tokens)
    message = asked.script.message(pieces) if asked.script else {"role": "assistant", "content": "".join(pieces)}
    return web.json_response(head.whole(message, asked.finish_reason, used))


async def _streamed(
    request: web.Request, engine: Engine, asked: chat.ChatRequest, head: replies.Head, prefix: tuple[bytes, ...]
) -> web.StreamResponse:
    engine.require_ready()  # while a refusal can still set the status
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
    )
    chunked = request.version >= (1, 1)
    if chunked:
        response.enable_chunked_encoding()
    await response.prepare(request)
    if request.transport is None:
        return response  # the client left while the headers were written
    sink = StreamSink(head, asked, request.transport, chunked=chunked)
    try:
        sequence = engine.submit(head.request_id, asked, prefix, sink)
    except RefusedError as error:
        sink.failed(error)
    else:
        try:
            await sink.done
        finally:
            engine.abort(sequence)
    await response.write_eof()
    return response


async def models(request: web.Request) -> web.Response:
    engine = request.app[ENGINE]
    limits = engine.scheduler.limits
    return web.json_response(replies.models(engine.settings.model, request.app[STARTED_AT], limits.max_model_tokens))


async def health(request: web.Request) -> web.Response:
    """As vLLM's: True if an engine is there, even without progress."""
    life = request.app[ENGINE].life
    return web.json_response({"status": life, "simulated": True}, status=200 if life == "serving" else 503)


async def metrics(request: web.Request) -> web.Response:
    return web.Response(
        body=page(request.app[REGISTRY]),
        headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
    )


def _refusal(message: str, *, kind: str, status: int, param: str | None = None) -> web.Response:
    headers = {"Retry-After": "1"} if status == 503 else None
    return web.json_response(
        replies.error(message, kind=kind, status=status, param=param), status=status, headers=headers
    )
