"""HTTP side of the desk: MCP, ledger, metrics and health."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lab_desk.desk import ROWS

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.types import Message, Receive, Scope, Send

    from lab_desk.desk import Desk

_MCP = "/mcp"
# A client that loses its session begins another. The lost one has no open request, and
# its memory is free after this time.
IDLE_S = 30.0
_MOST_SESSIONS = 1000
# Browsers set these in every POST, and pages cannot drop them.
_OF_BROWSERS = (b"origin", b"sec-fetch-site")


class Application:
    """ASGI application of a desk.

    Attributes:
        open: requests of tools that lack an answer.
    """

    def __init__(self, desk: Desk, host: str) -> None:
        self._ledger = desk.ledger
        self._inner = _routes(desk, host)
        self.open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != _MCP:
            await self._inner(scope, receive, send)
        elif any(name in _OF_BROWSERS for name, _ in scope["headers"]):
            refused = {"error": "expected a program, got a header of a web browser: use an MCP client"}
            await JSONResponse(refused, status_code=403)(scope, receive, send)
        elif scope["method"] != "POST":  # a client's standing stream
            await self._inner(scope, receive, send)
        else:
            await self._post(scope, receive, send)

    async def _post(self, scope: Scope, receive: Receive, send: Send) -> None:
        rows: list[int] = scope.setdefault(ROWS, [])

        async def sent(message: Message) -> None:
            # First the row, then the bytes: a row without this time means that no
            # byte of the answer has left the desk.
            if message["type"] == "http.response.body" and message.get("body"):
                for row in rows:
                    self._ledger.answer(row)
                rows.clear()
            await send(message)

        self.open += 1
        try:
            await self._inner(scope, receive, sent)
        finally:
            self.open -= 1

    def running(self) -> AbstractAsyncContextManager[object]:
        """Context in which requests of MCP can be served."""
        return self._inner.router.lifespan_context(self._inner)

    async def emptied(self, within_s: float) -> bool:
        """True once all requests have their answers, False at the deadline."""
        deadline_s = asyncio.get_running_loop().time() + within_s
        while self.open:
            if asyncio.get_running_loop().time() >= deadline_s:
                return False
            await asyncio.sleep(0.01)
        return True


def _routes(desk: Desk, host: str) -> Starlette:
    async def health(_: Request) -> Response:
        return JSONResponse({"ok": True})

    async def scrape(_: Request) -> Response:
        return Response(generate_latest(desk.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def ledger(request: Request) -> Response:
        given = request.query_params.get("after", "0")
        if not given.isascii() or not given.isdigit() or len(given) > 18:
            return JSONResponse({"error": f"after: expected the id of a call, got {given!r:.100}"}, status_code=400)
        # In a thread, because a full page takes many times longer than a call.
        calls = await asyncio.to_thread(desk.ledger.page, int(given))
        return JSONResponse({"calls": calls, "next": calls[-1]["id"] if calls else int(given)})

    application = desk.server().streamable_http_app(
        streamable_http_path=_MCP, host=host, session_idle_timeout=IDLE_S, max_sessions=_MOST_SESSIONS
    )
    pages = {"/healthz": health, "/metrics": scrape, "/ledger": ledger}
    application.router.routes.extend(Route(path, page) for path, page in pages.items())
    return application
