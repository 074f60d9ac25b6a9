"""A client without a deadline of its own, with the `mcp` on its path.

python mcp_client.py URL    prints `calls`, then the end of the call
"""

import asyncio
import sys

from mcp import ClientSession
from mcp.client import streamable_http

# Renamed with version 2.
connected = getattr(streamable_http, "streamable_http_client", None) or streamable_http.streamablehttp_client


async def refund(url: str) -> None:
    async with connected(url) as streams, ClientSession(*streams[:2]) as session:
        await session.initialize()
        sys.stdout.write("calls\n")
        sys.stdout.flush()
        sys.stdout.write(f"answered {await session.call_tool('refund', {'order': 17})}\n")


if __name__ == "__main__":
    try:
        asyncio.run(refund(sys.argv[1]))
    except Exception as error:  # noqa: BLE001 - whatever the version raises
        sys.stdout.write(f"raised {error!r}\n")
