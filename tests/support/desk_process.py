"""The desk as a process of its own, for tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcp.client import Client
from support.lab_engine_process import START_S, free_ports
from support.waiting import until

if TYPE_CHECKING:
    from mcp_types import CallToolResult

SERVICES = Path(__file__).parents[2] / "stack" / "services"
# A desk that is killed at the first call of one of its ledger's methods.
_DIES = """
import os, runpy, signal
from lab_desk.ledger import Ledger
setattr(Ledger, os.environ["DIES_AT"], lambda *_: os.kill(os.getpid(), signal.SIGKILL))
runpy.run_module("lab_desk", run_name="__main__")
"""


class DeskProcess:
    def __init__(self, ledger: Path, *, dies_at: str = "", **variables: str) -> None:
        self.port, _ = free_ports()
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(SERVICES), "DIES_AT": dies_at}
        settings = {"LAB_PORT": str(self.port), "LAB_LEDGER_FILE": str(ledger), **variables}
        program = ["-c", _DIES] if dies_at else ["-m", "lab_desk"]
        self.popen = subprocess.Popen(
            [sys.executable, *program], env=environment | settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as response:
            return str(response.read().decode())

    def ledger(self, after: int = 0) -> list[dict[str, Any]]:
        return list(json.loads(self.get(f"/ledger?after={after}"))["calls"])

    def answers(self) -> bool:
        assert self.popen.poll() is None, self.popen.communicate()
        try:
            return bool(self.get("/healthz"))
        except OSError:
            return False

    def ready(self) -> DeskProcess:
        until(self.answers, "the desk answers", START_S)
        return self

    def ended(self) -> tuple[int, str, str]:
        out, err = self.popen.communicate(timeout=START_S)
        return self.popen.returncode, out.decode(), err.decode()


async def call(client: Client, tool: str, order: object, key: str | None = None) -> CallToolResult:
    """One call of a tool."""
    return await client.call_tool(tool, {"order": order}, meta={"idempotency-key": key} if key else None)
