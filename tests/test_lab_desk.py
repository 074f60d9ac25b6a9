"""Ledger and sessions of the desk, without a process."""

import asyncio
import sqlite3

import httpx
import pytest

from lab_desk import web
from lab_desk.desk import Desk
from lab_desk.ledger import Call, Ledger
from lab_desk.metrics import Metrics

BEGIN = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}
LIST = {"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {}}


class FailingCommit:
    """A connection whose next COMMIT fails."""

    def __init__(self, rows):
        self._rows = rows
        self._fails = True

    def __getattr__(self, name):
        return getattr(self._rows, name)

    def execute(self, query, *values):
        if query == "COMMIT" and self._fails:
            self._fails = False
            raise sqlite3.OperationalError("disk I/O error")
        return self._rows.execute(query, *values)


def test_a_failed_commit_is_rolled_back(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger._rows = FailingCommit(ledger._rows)
    call = Call(tool="refund", order=17, key="t/1")
    with pytest.raises(sqlite3.OperationalError, match="disk I/O error"):
        ledger.apply(ledger.receive(call), call)

    assert ledger.apply(ledger.receive(call), call).kind == "done"
    assert [row["effect"] for row in ledger.page(0)] == [None, 1]


def test_a_session_that_its_client_has_lost_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(web, "IDLE_S", 0.05)
    application = web.Application(Desk(Ledger(tmp_path / "ledger.sqlite"), Metrics()), "127.0.0.1")

    async def play():
        transport = httpx.ASGITransport(application)
        headers = {"Accept": "application/json, text/event-stream"}
        async with (
            application.running(),
            httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8100", headers=headers) as client,
            asyncio.timeout(10),
        ):
            begun = await client.post("/mcp", json=BEGIN)
            session = {"mcp-session-id": begun.headers["mcp-session-id"]}
            status = begun.status_code
            while status != 404:
                await asyncio.sleep(0.1)
                status = (await client.post("/mcp", json=LIST, headers=session)).status_code
        return begun.status_code

    assert asyncio.run(play()) == 200
