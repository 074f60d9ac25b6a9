"""A small service with the OpenAI chat API, without a model.

It streams a fixed answer and counts its answers for Prometheus.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ANSWER = ["Please", "switch", "it", "off", "and", "on", "again", ",", "then", "wait", "a", "minute", "."]
WORD_S = 0.005


class Counts:
    """The service's own counters."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers = {"whole": 0, "broken": 0}

    def add(self, result: str) -> None:
        with self._lock:
            self._answers[result] += 1

    def text(self) -> str:
        lines = ["# HELP faq_answers_total Answers given, by how they ended.", "# TYPE faq_answers_total counter"]
        lines += [f'faq_answers_total{{result="{result}"}} {count}' for result, count in self._answers.items()]
        return "\n".join(lines) + "\n"


COUNTS = Counts()


class Desk(BaseHTTPRequestHandler):
    """`GET /healthz`, `GET /metrics`, `POST /v1/chat/completions`."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/metrics":
            self._whole(200, COUNTS.text(), "text/plain; version=0.0.4")
        else:
            self._whole(200 if self.path == "/healthz" else 404, "", "text/plain")

    def do_POST(self) -> None:
        try:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            words = ANSWER[: int(asked.get("max_tokens", len(ANSWER)))]
        except (ValueError, TypeError, AttributeError):
            self._whole(400, '{"error": {"message": "not a chat completion request"}}', "application/json")
            return
        try:
            self._stream(words)
        except OSError:
            COUNTS.add("broken")
        else:
            COUNTS.add("whole")

    def _stream(self, words: list[str]) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for word in words:
            self._event({"choices": [{"index": 0, "delta": {"content": word + " "}, "finish_reason": None}]})
            time.sleep(WORD_S)
        self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        self._chunk(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def _event(self, event: dict[str, object]) -> None:
        self._chunk(b"data: " + json.dumps(event).encode() + b"\n\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def _whole(self, status: int, text: str, kind: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class' name
        """Log nothing: clients and Prometheus count requests."""


class Server(ThreadingHTTPServer):
    """A server whose backlog holds many clients while the process is frozen."""

    daemon_threads = True
    request_queue_size = 128


def main() -> None:
    server = Server(("0.0.0.0", int(os.environ.get("FAQ_LISTEN", "8080"))), Desk)  # noqa: S104 - in a container
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever()


if __name__ == "__main__":
    main()
