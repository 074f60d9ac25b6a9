"""The engine as a process of its own, for tests."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass

SERVICES = Path(__file__).parents[2] / "stack" / "services"
START_S = 15.0


def free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


class Process:
    def __init__(self, **variables: str) -> None:
        self.port, self.admin_port = free_ports()
        environment = {
            "PATH": os.environ["PATH"], "PYTHONPATH": str(SERVICES),
            "LAB_PORT": str(self.port), "LAB_ADMIN_PORT": str(self.admin_port), **variables,
        }  # fmt: skip
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "lab_engine"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def get(self, path: str) -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code

    def answers(self, status: int = 200) -> bool:
        try:
            return self.get("/health") == status
        except OSError:
            return False

    def post(self, port: int, path: str, body: dict[str, Any]) -> int:
        data = json.dumps(body).encode()
        asked = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=data)
        with urllib.request.urlopen(asked, timeout=5) as response:
            return int(response.status)

    def fault(self, kind: str, **options: Any) -> None:
        assert self.post(self.admin_port, "/faults", {"kind": kind, "lease_s": 60, **options}) == 201

    def ended(self) -> tuple[int, str, str]:
        out, err = self.popen.communicate(timeout=START_S)
        return self.popen.returncode, out.decode(), err.decode()
