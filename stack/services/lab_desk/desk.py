"""The desk's tools: each call is a row of the ledger."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field

from lab_common.log import Log
from lab_desk.ledger import Call, Result
from lab_desk.metrics import EFFECTS, TOOLS, UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mcp.server.context import CallNext, HandlerResult, ServerRequestContext

    from lab_desk.ledger import Ledger
    from lab_desk.metrics import Metrics

KEY = "idempotency-key"  # in the `_meta` of a call
ROWS = "lab_desk.rows"  # in the ASGI scope of a request: its rows without an answer
log = Log("desk")
Order = Annotated[int, Field(ge=1, le=2**53, description="The order's number.")]


class Desk:
    """The tools with their ledger and metrics."""

    def __init__(self, ledger: Ledger, metrics: Metrics) -> None:
        self.ledger = ledger
        self.metrics = metrics

    def server(self) -> MCPServer:
        """An MCP server with the tools."""
        server = MCPServer("desk", version="1", log_level="WARNING", middleware=[self._count_invalid])
        # A tool without `await` runs to its end even if the client has left.

        @server.tool()
        async def find_order(order: Order, context: Context) -> Result:
            """Look up an order. This changes nothing."""
            return self._call("find_order", order, context)

        @server.tool()
        async def refund(order: Order, context: Context) -> Result:
            """Pay the price of an order back. Two calls pay twice."""
            return self._call("refund", order, context)

        @server.tool()
        async def mail(order: Order, context: Context) -> Result:
            """Send a message to the customer of an order. Two calls send two."""
            return self._call("mail", order, context)

        return server

    def _call(self, tool: str, order: int, context: Context) -> Result:
        """Record a call, apply it, and count it.

        Raises:
            ToolError: the key belongs to another call.
        """
        begin_s = time.perf_counter()
        request = context.request_context
        call = Call(tool=tool, order=order, key=_key(request.meta))
        row = self.ledger.receive(call)
        if request.request is not None:
            request.request.scope.setdefault(ROWS, []).append(row)
        outcome = self.ledger.apply(row, call)
        effect = outcome.result.effect if outcome.result else None
        self.metrics.calls.labels(tool, outcome.kind).inc()
        if outcome.kind != "done":
            self.metrics.repeated_keys.inc()
        elif tool in EFFECTS:
            self.metrics.effects.labels(tool).inc()
        took_s = time.perf_counter() - begin_s
        self.metrics.call_seconds.labels(tool).observe(took_s)
        facts = {"tool": tool, "order": order, "key": call.key, "effect": effect}
        log("call", id=row, **facts, result=outcome.kind, duration_s=round(took_s, 6))
        if outcome.result is None:
            raise ToolError(f"the key {call.key!r} belongs to another call: send {tool} of {order} with a new key")
        return outcome.result

    async def _count_invalid(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        """Count calls that no tool took: unknown tools and invalid arguments."""
        if ctx.method != "tools/call":
            return await call_next(ctx)
        before = _rows(ctx)
        try:
            return await call_next(ctx)
        finally:
            if _rows(ctx) == before:
                name = (ctx.params or {}).get("name")
                self.metrics.calls.labels(name if name in TOOLS else UNKNOWN, "invalid").inc()
                log("call", tool=name, result="invalid")


def _rows(context: ServerRequestContext[Any, Any]) -> int:
    return len(context.request.scope.get(ROWS, ())) if context.request is not None else 0


def _key(meta: Mapping[str, object] | None) -> str | None:
    key = (meta or {}).get(KEY)
    return key if isinstance(key, str) and key else None
