"""A server of tools with the SDK of MCP, as a process: `tool_server.py PORT FORM`.

FORM is `json` or `events`. Each refund is one effect. `effects` returns their number.
"""

import asyncio
import sys

from mcp.server.mcpserver import MCPServer
from pydantic import BaseModel

refunded: list[int] = []


class Refund(BaseModel):
    """Result of a refund."""

    order: int
    state: str


async def refund(order: int) -> Refund:
    """Refund an order."""
    refunded.append(order)
    return Refund(order=order, state="refunded")


async def effects() -> int:
    """Return the number of refunds."""
    return len(refunded)


def main() -> None:
    server = MCPServer("desk", log_level="ERROR")
    server.add_tool(refund)
    server.add_tool(effects)
    is_json = sys.argv[2] == "json"
    asyncio.run(server.run_streamable_http_async(port=int(sys.argv[1]), json_response=is_json))


if __name__ == "__main__":
    main()
