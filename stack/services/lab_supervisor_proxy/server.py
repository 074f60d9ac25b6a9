"""The proxy's two HTTP servers: Docker calls, metrics and health."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from lab_common.browsers import refusal
from lab_common.log import Log
from lab_supervisor_proxy.calls import AllowList, Call
from lab_supervisor_proxy.processes import NoProcessError, Processes, SupervisorError

if TYPE_CHECKING:
    from lab_supervisor_proxy.settings import Settings

_REQUESTS = "llmlab_supervisor_proxy_requests_total"


log = Log("supervisor-proxy")


class _Server(ThreadingHTTPServer):
    """A threading server on loopback."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], settings: Settings) -> None:
        self.processes = Processes(settings.socket, settings.project)
        self.allowed = AllowList(settings.project, settings.repairs, settings.scaled)
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Bind without http.server's reverse DNS lookup.

        The lookup can hang, and its result is unused.
        """
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])


class _Counted:
    """Requests by verdict and verb."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def add(self, verdict: str, verb: str) -> None:
        with self._lock:
            self._counts[verdict, verb] += 1

    def text(self) -> str:
        with self._lock:
            counts = sorted(self._counts.items())
        lines = [f"# HELP {_REQUESTS} Requests by verdict of the allow-list.", f"# TYPE {_REQUESTS} counter"]
        lines += [f'{_REQUESTS}{{verdict="{verdict}",call="{verb}"}} {count}' for (verdict, verb), count in counts]
        return "\n".join(lines) + "\n"


_counted = _Counted()


class _Answer(BaseHTTPRequestHandler):
    """Base of the two request handlers."""

    protocol_version = "HTTP/1.1"
    timeout = 60
    server: _Server

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the name is the library's
        """Log nothing here: `_tell` logs acts and denials."""

    def _send(self, status: int, body: str, kind: str = "application/json") -> None:
        data = b"" if status in (204, 304) else body.encode()
        self.send_response(status)
        if data:
            self.send_header("Content-Type", kind)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _answer(processes: Processes, call: Call) -> tuple[int, Any]:
    """Status and body, as the Docker daemon would answer the call."""
    if call.verb in {"list", "inspect"}:
        return 200, processes.listed() if call.verb == "list" else processes.inspected(call.service)
    if call.verb == "kill":
        ran = processes.kill(call.service, call.signal)
        return (204, {}) if ran else (409, {"message": f"{call.service} is not running"})
    if call.verb == "restart":
        processes.restart(call.service, call.grace_s)
        return 204, {}
    did = processes.start(call.service) if call.verb == "start" else processes.stop(call.service, call.grace_s)
    return (204 if did else 304), {}


class _DockerCalls(_Answer):
    """Handler of Docker calls."""

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        begin = time.monotonic()
        has_body = self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers
        # No call has a body. An unread body would corrupt the next request, so close.
        self.close_connection = self.close_connection or has_body
        why = refusal(self.headers)
        odd = has_body or "Upgrade" in self.headers or why is not None
        call = None if odd else self.server.allowed.call(self.command, self.path)
        denied = f"denied: {why or 'the allow-list lacks this call'}"
        status, body = self._done(call) if call else (403, {"message": denied})
        _counted.add("allowed" if call else "denied", call.verb if call else "none")
        if self.command != "GET" or call is None:
            self._tell("allowed" if call else "denied", status, time.monotonic() - begin)
        self._send(status, json.dumps(body))

    def _done(self, call: Call) -> tuple[int, Any]:
        try:
            return _answer(self.server.processes, call)
        except NoProcessError as missing:
            return 404, {"message": f"no such service: {missing}"}
        except SupervisorError as error:
            return 500, {"message": str(error)}

    def _tell(self, verdict: str, status: int, took_s: float) -> None:
        facts = {"verdict": verdict, "method": self.command, "url": self.path, "status": status}
        log("call", **facts, duration_s=round(took_s, 4))


class _Metrics(_Answer):
    """Handler of metrics and health."""

    def do_GET(self) -> None:
        if self.path == "/healthz":
            good = self.server.processes.answers()
            self._send(200 if good else 503, json.dumps({"supervisord": good}))
        elif self.path == "/metrics":
            self._send(200, _counted.text(), "text/plain; version=0.0.4")
        else:
            self._send(404, json.dumps({"message": "expected /metrics or /healthz"}))


def servers(settings: Settings) -> tuple[ThreadingHTTPServer, ThreadingHTTPServer]:
    """The servers for calls and for metrics, bound and not yet served."""
    return (
        _Server((settings.host, settings.port), _DockerCalls, settings),
        _Server((settings.host, settings.metrics_port), _Metrics, settings),
    )
