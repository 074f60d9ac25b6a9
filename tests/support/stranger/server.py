"""A gateway that is healthy only if its file was read as in its own folder.

It needs its environment file, its secret, its config, and the names of other services.
Standard library only.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

WORDS = ["Switch", "it", "off", "and", "on", "."]
ANSWERS = {"whole": 0, "broken": 0}
LOCK = threading.Lock()


def missing() -> list[str]:
    """Names of what differs from the compose file."""
    wrong = [name for name in os.environ.get("NEEDS", "").split(",") if name and not _has_address(name)]
    if os.environ.get("NEEDS"):
        if os.environ.get("FROM_FILE") != "yes" or not os.environ["PUBLIC_URL"].endswith(":18480"):
            wrong.append("environment")
        if Path("/run/secrets/key").read_text().strip() != "not-a-real-key":
            wrong.append("secret")
        if Path("/limits.txt").read_text().strip() != "most: 7":
            wrong.append("config")
    return wrong


def _has_address(name: str) -> bool:
    try:
        socket.gethostbyname(name)
    except OSError:
        return False
    return True


class Gateway(BaseHTTPRequestHandler):
    """`GET /healthz`, `GET /metrics`, `POST /v1/chat/completions`."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/healthz":
            wrong = missing()
            self._whole(503 if wrong else 200, ", ".join(wrong))
        elif self.path == "/metrics":
            with LOCK:
                self._whole(200, "".join(f'answers_total{{result="{k}"}} {v}\n' for k, v in ANSWERS.items()))
        else:
            self._whole(404, "")

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        try:
            self._stream(WORDS[: int(asked.get("max_tokens", len(WORDS)))])
        except OSError:
            count("broken")
        else:
            count("whole")

    def _stream(self, words: list[str]) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        for word in words:
            self._event({"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]})
        self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def _event(self, event: dict[str, object]) -> None:
        self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")

    def _whole(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("content-type", "text/plain; version=0.0.4")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class' name
        """Discard the log."""


def count(result: str) -> None:
    with LOCK:
        ANSWERS[result] += 1


class Server(ThreadingHTTPServer):
    """A server whose backlog holds clients while the process is frozen."""

    daemon_threads = True
    request_queue_size = 128


Server(("0.0.0.0", 8080), Gateway).serve_forever()
