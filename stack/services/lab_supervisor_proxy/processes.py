"""Docker's verbs for processes under supervisord."""

from __future__ import annotations

import http.client
import os
import socket
import threading
import time
import xmlrpc.client
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

_CALL_TIMEOUT_S = 5.0
_LOOK_EVERY_S = 0.01
_NEVER = "0001-01-01T00:00:00Z"


class NoProcessError(LookupError):
    """No such service."""


class SupervisorError(RuntimeError):
    """supervisord does not answer, or refuses."""


class _Connection(http.client.HTTPConnection):
    """A connection to supervisord's unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_CALL_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_CALL_TIMEOUT_S)
        # Through its open folder, as the kernel limits socket paths to 107 bytes.
        folder = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.sock.connect(f"/proc/self/fd/{folder}/{self._path.name}")
        except OSError:
            self.sock.close()
            raise
        finally:
            os.close(folder)


class _Transport(xmlrpc.client.Transport):
    """XML-RPC over that connection."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: Any) -> _Connection:
        connection = _Connection(self._path)
        self._connection = (host, connection)  # for `close`
        return connection


class Processes:
    """The services of one supervisord.

    Thread-safe: acts on one service are serialized, reads never wait.
    """

    def __init__(self, socket_path: Path, project: str) -> None:
        self._socket, self._project = socket_path, project
        self._acting: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()

    def _call(self, method: str, *arguments: str) -> Any:
        try:
            with xmlrpc.client.ServerProxy("http://localhost", transport=_Transport(self._socket)) as proxy:
                return getattr(proxy, f"llmchaos.{method}")(*arguments)
        except xmlrpc.client.Fault as fault:
            raise SupervisorError(fault.faultString) from fault
        except (OSError, http.client.HTTPException, xmlrpc.client.Error) as error:
            raise SupervisorError(f"supervisord does not answer: {type(error).__name__}: {error}") from error

    def answers(self) -> bool:
        try:
            self._call("inspect")
        except SupervisorError:
            return False
        return True

    def listed(self) -> list[dict[str, Any]]:
        """As `GET /containers/json`: every service, running or not."""
        return [
            {
                "Id": self._id(name),
                "Names": [f"/{self._project}-{name}-1"],
                "State": _status(seen),
                "Labels": self._labels(name),
            }
            for name, seen in sorted(self._call("inspect").items())
        ]

    def inspected(self, service: str) -> dict[str, Any]:
        """As `GET /containers/NAME/json`."""
        seen = self._seen(service)
        started = float(seen["started"])
        return {
            "Id": self._id(service),
            "Name": f"/{self._project}-{service}-1",
            "RestartCount": 0,
            "State": {
                "Status": _status(seen),
                "Running": seen["running"],
                "Paused": seen["paused"],
                "Restarting": False,
                "OOMKilled": False,
                "Dead": False,
                "Pid": seen["pid"],
                "ExitCode": max(0, seen["exit_code"]),
                "Error": seen["problem"],
                "StartedAt": datetime.fromtimestamp(started, UTC).isoformat() if started > 0 else _NEVER,
            },
            "Config": {"Labels": self._labels(service)},
        }

    def start(self, service: str) -> bool:
        """Start it. False if it was running already."""
        with self._alone(service):
            self._seen(service)
            return bool(self._call("start", service))

    def kill(self, service: str, signal: str) -> bool:
        """Kill it. False if it was not running."""
        with self._alone(service):
            self._seen(service)
            return bool(self._call("kill", service, signal))

    def stop(self, service: str, grace_s: float) -> bool:
        """Send SIGTERM, then SIGKILL after the grace. False if it was not running.

        A frozen process does not handle SIGTERM.
        """
        with self._alone(service):
            return self._stop(service, grace_s)

    def restart(self, service: str, grace_s: float) -> None:
        with self._alone(service):
            self._stop(service, grace_s)
            self._call("start", service)
            self._call("note", service, "restart")

    def _stop(self, service: str, grace_s: float) -> bool:
        if not self._seen(service)["pid"]:
            return False
        if grace_s > 0:
            self._call("kill", service, "SIGTERM")
        if grace_s <= 0 or not self._gone(service, grace_s):
            self._call("kill", service, "SIGKILL")
            if not self._gone(service, _CALL_TIMEOUT_S):
                raise SupervisorError(f"{service} still runs {_CALL_TIMEOUT_S:g} s after SIGKILL")
        self._call("note", service, "stop")
        return True

    def _gone(self, service: str, within_s: float) -> bool:
        deadline = time.monotonic() + within_s
        while self._seen(service)["pid"]:
            if time.monotonic() > deadline:
                return False
            time.sleep(_LOOK_EVERY_S)
        return True

    def _alone(self, service: str) -> threading.Lock:
        with self._guard:
            return self._acting.setdefault(service, threading.Lock())

    def _seen(self, service: str) -> dict[str, Any]:
        found: dict[str, dict[str, Any]] = self._call("inspect")
        if service not in found:
            raise NoProcessError(service)
        return found[service]

    def _labels(self, service: str) -> dict[str, str]:
        return {"com.docker.compose.project": self._project, "com.docker.compose.service": service}

    def _id(self, service: str) -> str:
        return f"{self._project}-{service}"


def _status(seen: dict[str, Any]) -> str:
    if seen["paused"]:
        return "paused"
    if seen["running"]:
        return "running"
    return "exited" if seen["started"] > 0 else "created"
