"""Client of supervisord's socket, one connection per call."""

from __future__ import annotations

import http.client
import os
import socket
import time
import xmlrpc.client
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_llmchaos.errors import NotReady

SOCKET = "s.sock"
CALL_DEADLINE_S = 10.0
_DIE_DEADLINE_S = 5.0


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket, reached through its open folder.

    The kernel accepts no socket path above 107 bytes. httpx does not fit: httpcore 1.0
    leaves the socket of a refused connection to the garbage collector, which warns.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__("localhost", timeout=CALL_DEADLINE_S)
        self._folder = folder

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(CALL_DEADLINE_S)
        folder = os.open(self._folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.sock.connect(f"/proc/self/fd/{folder}/{SOCKET}")
        except OSError:
            self.sock.close()
            raise
        finally:
            os.close(folder)


class _Transport(xmlrpc.client.Transport):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def make_connection(self, host: Any) -> _Connection:
        connection = _Connection(self._folder)
        self._connection = (host, connection)  # what `close` closes
        return connection


@dataclass(frozen=True, kw_only=True)
class Seen:
    """supervisord's record of one service. If it does not run, `pid` is 0."""

    pid: int
    running: bool
    paused: bool
    started_unix_s: float
    exit_code: int | None
    problem: str


class Control:
    """Calls to one supervisord. Not thread-safe: each thread needs its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def call(self, method: str, *arguments: str) -> Any:
        """Call one method. Raises NotReady without an answer, and on refusal."""
        try:
            with xmlrpc.client.ServerProxy("http://localhost", transport=_Transport(self._folder)) as proxy:
                return getattr(proxy, f"llmchaos.{method}")(*arguments)
        except xmlrpc.client.Fault as fault:
            raise NotReady(f"supervisord refused {method} {' '.join(arguments)}: {fault.faultString}") from None
        except (OSError, http.client.HTTPException, xmlrpc.client.Error) as error:
            raise NotReady(
                f"supervisord in {self._folder} does not answer {method}: {type(error).__name__}: {error}"
            ) from None

    def answers(self) -> bool:
        try:
            self.inspect()
        except NotReady:
            return False
        return True

    def inspect(self) -> Mapping[str, Seen]:
        return self._inspect("inspect")

    def inspect_agents(self) -> Mapping[str, Seen]:
        """Return the record of each fault agent, by the name of its process."""
        return self._inspect("inspect_agents")

    def _inspect(self, method: str) -> Mapping[str, Seen]:
        return {
            service: Seen(
                pid=int(seen["pid"]),
                running=bool(seen["running"]),
                paused=bool(seen["paused"]),
                started_unix_s=float(seen["started"]),
                exit_code=None if seen["exit_code"] < 0 else int(seen["exit_code"]),
                problem=str(seen["problem"]),
            )
            for service, seen in self.call(method).items()
        }

    def wait_dead(self, service: str, deadline_s: float = _DIE_DEADLINE_S, *, pid: int = 0) -> None:
        """Wait until the service's process has ended.

        With `pid`, wait for that process: the service may be started again meanwhile.
        Raises NotReady if it still runs after `deadline_s` seconds.
        """
        deadline = time.monotonic() + deadline_s
        while (seen := self.inspect()[service].pid) and pid in {0, seen}:
            if time.monotonic() > deadline:
                raise NotReady(
                    f"{service} still runs {deadline_s:g} s after it was signalled to end: it may be stuck in the kernel; "
                    f"see the state of process {seen} in `ps`"
                )
            time.sleep(0.005)
