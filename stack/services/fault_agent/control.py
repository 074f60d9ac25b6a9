"""Control socket: one JSON object a line, one answer a line."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from typing import TYPE_CHECKING, Final

from fault_agent.leases import FaultConflictError, UnknownFaultError
from lab_common.values import InvalidValueError, require

if TYPE_CHECKING:
    from fault_agent.agent import Agent

LINE_MAX_BYTES: Final = 64 << 10
LONGEST_WAIT_S: Final = 3600.0
MOST_PORTS: Final = 64


async def serve_control(agent: Agent, path: str) -> asyncio.Server:
    """Open the socket, for its owner alone. uvloop replaces one that an agent left."""
    mask = os.umask(0o177)
    try:
        return await asyncio.start_unix_server(lambda r, w: _talk(agent, r, w), path, limit=LINE_MAX_BYTES)
    finally:
        os.umask(mask)


async def _talk(agent: Agent, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while line := await reader.readline():
            writer.write(json.dumps(await answer(agent, line)).encode() + b"\n")
            await writer.drain()
    except (ConnectionError, ValueError):  # gone, or a line above the limit
        pass
    finally:
        writer.close()


async def answer(agent: Agent, line: bytes) -> dict[str, object]:
    """Perform the request of one line."""
    try:
        return {"ok": await _perform(agent, _asked(line))}
    except (InvalidValueError, UnknownFaultError, FaultConflictError) as error:
        return {"error": str(error)}


def _asked(line: bytes) -> dict[str, object]:
    try:
        asked = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidValueError(f"expected one JSON object a line: {error}") from None
    if not isinstance(asked, dict):
        raise InvalidValueError(f'expected a JSON object such as {{"do": "list"}}, got {asked!r:.80}')
    return asked


async def _perform(agent: Agent, asked: dict[str, object]) -> dict[str, object]:
    what = asked.get("do")
    if what == "start":
        return (await agent.start(asked.get("fault"))).described()
    if what == "end":
        return (await agent.end(str(asked.get("id")))).described()
    if what == "wait":
        lease = agent.leases.find(str(asked.get("id")))
        require("deadline_s", asked.get("deadline_s"), above=0, at_most=LONGEST_WAIT_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(float(str(asked.get("deadline_s")))):
                await lease.acted.wait()
        return lease.described()
    if what == "list":
        return {
            "at_unix_s": time.time(),
            "seen": {"connections": agent.connections, "requests": agent.requests, "busy": agent.busy},
            "faults": [lease.described() for lease in agent.leases.all()],
        }
    if what == "protocols":
        return {"protocols": await agent.protocols(_ports_in(asked.get("ports", [])))}
    raise InvalidValueError(f"do must be one of 'start', 'wait', 'list', 'end', 'protocols', got {what!r:.80}")


def _ports_in(ports: object) -> list[int]:
    if not isinstance(ports, list) or not all(type(port) is int and 0 < port < 65536 for port in ports):
        raise InvalidValueError(f"ports must be a list of numbers from 1 to 65535, got {ports!r:.80}")
    return ports[:MOST_PORTS]
