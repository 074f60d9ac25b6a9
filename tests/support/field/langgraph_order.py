"""A graph of two refunds, killed while it saves the first.

python langgraph_order.py URL FILE ORDER SLOW    ORDER and the next one are refunded
                                                SLOW is writes, put, or none

The order of `put_writes` (results of a node) and `put` (the next checkpoint) decides
what a resume does. A short delay of one of both makes that order.
"""

import asyncio
import os
import signal
import sqlite3
import sys
import time
from typing import Any, TypedDict

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client

DELAY_S = 0.3
URL, FILE, SLOW = sys.argv[1], sys.argv[2], sys.argv[4]
FIRST = int(sys.argv[3])
CONFIG = {"configurable": {"thread_id": "t-1"}}


class Paid(TypedDict, total=False):
    """The graph's state: the last order that was refunded."""

    order: int


class Saver(SqliteSaver):
    """Delays one kind of write, and dies in the `put` after the first refund."""

    def put(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        if checkpoint["channel_values"].get("order") == FIRST and SLOW != "none":
            if SLOW == "put":
                time.sleep(DELAY_S)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().put(config, checkpoint, metadata, new_versions)

    def put_writes(self, *given: Any, **named: Any) -> None:
        if SLOW == "writes":
            time.sleep(DELAY_S)
        super().put_writes(*given, **named)


async def refund(order: int) -> None:
    async with streamablehttp_client(URL) as streams, ClientSession(*streams[:2]) as session:
        await session.initialize()
        await session.call_tool("refund", {"order": order})


def step(order: int) -> Any:
    def paid(_: Paid) -> Paid:
        asyncio.run(refund(order))
        return {"order": order}

    return paid


graph = StateGraph(Paid)
graph.add_node("one", step(FIRST))
graph.add_node("two", step(FIRST + 1))
graph.add_edge(START, "one")
graph.add_edge("one", "two")
graph.add_edge("two", END)
program = graph.compile(checkpointer=Saver(sqlite3.connect(FILE, check_same_thread=False)))
begun = program.get_state(CONFIG).created_at is not None
sys.stdout.write(str(program.invoke(None if begun else {"order": 0}, CONFIG, durability="sync")))
