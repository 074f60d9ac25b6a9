"""The effect ledger of the lab's desk, read as a trial does."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import pytest
from mcp.client import Client
from support.desk_process import DeskProcess, call

from pytest_llmchaos.errors import Inconclusive
from pytest_llmchaos.lab.effect_ledger import last_row, rows_since
from pytest_llmchaos.loads.agent_tasks import Orders

if TYPE_CHECKING:
    from pathlib import Path


async def work(desk: DeskProcess, order: int) -> None:
    async with Client(desk.url) as client:
        await call(client, "find_order", order)
        await call(client, "refund", order, "t/1")
        await call(client, "refund", order, "t/1")
        await call(client, "mail", order)


def test_a_ledger_outlives_a_kill_and_one_that_began_anew_is_refused(tmp_path: Path) -> None:
    first = DeskProcess(tmp_path / "ledger.db").ready()
    asyncio.run(call_one(first, 1))
    begin = last_row(f"{first.url.removesuffix('/mcp')}/ledger")
    asyncio.run(work(first, 17))
    first.popen.send_signal(signal.SIGKILL)
    first.popen.communicate()
    again = DeskProcess(tmp_path / "ledger.db").ready()
    asyncio.run(call_one(again, 18))
    try:
        rows = rows_since(f"{again.url.removesuffix('/mcp')}/ledger", begin, Orders(own=frozenset({17, 18}))).rows
    finally:
        again.popen.kill()
        again.popen.communicate()

    assert begin is not None
    assert [(row.tool, row.order, row.effect is not None, row.key) for row in rows] == [
        ("find_order", 17, False, None),
        ("refund", 17, True, "t/1"),
        ("refund", 17, False, "t/1"),
        ("mail", 17, True, None),
        ("mail", 18, True, None),
    ]
    assert all(row.answered_unix_s is not None for row in rows)
    new = DeskProcess(tmp_path / "other.db").ready()
    try:
        asyncio.run(call_one(new, 19))
        with pytest.raises(Inconclusive, match="began anew"):
            rows_since(f"{new.url.removesuffix('/mcp')}/ledger", begin, Orders(own=frozenset({17})))
    finally:
        new.popen.kill()
        new.popen.communicate()


async def call_one(desk: DeskProcess, order: int) -> None:
    async with Client(desk.url) as client:
        await call(client, "mail", order)
