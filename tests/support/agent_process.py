"""The fault agent as a process of its own, for tests."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVICES = Path(__file__).parents[2] / "stack" / "services"
START_S = 10.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Agent:
    """A running agent in front of one port of 127.0.0.1."""

    def __init__(self, upstream_port: int, folder: Path) -> None:
        self.port = free_port()
        self.control = folder / f"{self.port}.sock"
        self.log = folder / f"{self.port}.log"
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(SERVICES),
            "LAB_TARGET": "service",
            "LAB_HOST": "127.0.0.1",
            "LAB_PORT": str(self.port),
            "LAB_UPSTREAM": f"127.0.0.1:{upstream_port}",
            "LAB_CONTROL": str(self.control),
        }
        with self.log.open("wb") as out:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "fault_agent"], env=environment, stdout=out, stderr=subprocess.STDOUT
            )
        until(self._is_ready, "the agent listens", START_S, seen=self.log.read_text)

    def _is_ready(self) -> bool:
        assert self.popen.poll() is None, self.log.read_text()
        return '"listening"' in self.log.read_text()

    def call(self, asked: dict[str, Any]) -> dict[str, Any]:
        """One line over the control socket. Returns the answer, errors included."""
        with socket.socket(socket.AF_UNIX) as one:
            one.settimeout(5)
            one.connect(str(self.control))
            one.sendall(json.dumps(asked).encode() + b"\n")
            with one.makefile("rb") as lines:
                return dict(json.loads(lines.readline()))

    def ask(self, asked: dict[str, Any]) -> dict[str, Any]:
        """The same. Returns what is under "ok"."""
        answer = self.call(asked)
        assert "ok" in answer, answer
        return dict(answer["ok"])

    def start(self, kind: str, **options: Any) -> str:
        """Start a fault for ten minutes. Returns its id."""
        return str(self.ask({"do": "start", "fault": {"kind": kind, "lease_s": 600, "seed": 7, **options}})["id"])

    def end(self, fault: str) -> None:
        self.ask({"do": "end", "id": fault})

    def met(self, kind: str) -> int:
        """Requests, answers or connections that the active fault has met."""
        faults = self.ask({"do": "list"})["faults"]
        return sum(int(one["counters"]["met"]) for one in faults if one["kind"] == kind and one["state"] == "active")

    def rss_bytes(self) -> int:
        pages = int(Path(f"/proc/{self.popen.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def sockets(self) -> int:
        """The number of its open sockets."""

        def targets() -> Iterator[str]:
            for one in Path(f"/proc/{self.popen.pid}/fd").iterdir():
                try:
                    yield str(one.readlink())
                except FileNotFoundError:
                    continue

        return sum(1 for target in targets() if target.startswith("socket:"))

    def accepts(self) -> bool:
        """True if its port accepts a connection, which is closed at once."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        """SIGKILL, whatever it does."""
        self.popen.kill()
        self.popen.wait()

    def stop(self) -> int:
        """SIGTERM. Returns the exit status."""
        if self.popen.poll() is None:
            self.popen.terminate()
        return self.popen.wait(5)
