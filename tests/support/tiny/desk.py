"""Chat API that answers `ok`, a Prometheus without samples, a pushgateway.

Standard library only.
"""

from __future__ import annotations

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

EVENTS = ({"delta": {"content": "ok"}, "finish_reason": None}, {"delta": {}, "finish_reason": "stop"})
ANSWER = "".join(f"data: {json.dumps({'choices': [{'index': 0, **one}]})}\n\n" for one in EVENTS) + "data: [DONE]\n\n"


def answer_to(query: str) -> dict[str, object]:
    """Answer of a Prometheus that has no sample."""
    if query == "time()":
        now = time.time()
        return {"resultType": "scalar", "result": [now, str(now)]}
    return {"resultType": "matrix" if query.endswith("]") else "vector", "result": []}


class All(BaseHTTPRequestHandler):
    """Answers clients as the chat API, and the instrument as what it adds."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
        if self.path == "/v1/chat/completions":
            self._say(ANSWER, "text/event-stream")
        else:
            self._judge(parse_qs(asked))

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self._data([])

    def do_GET(self) -> None:
        self._judge(parse_qs(urlsplit(self.path).query))

    def _judge(self, asked: dict[str, list[str]]) -> None:
        path, query = urlsplit(self.path).path, asked.get("query", [""])[0]
        if path.endswith("/series"):
            self._data([{}])
        elif path.endswith("/targets"):
            self._data({"activeTargets": []})
        else:
            self._data(answer_to(query))

    def _data(self, data: object) -> None:
        self._say(json.dumps({"status": "success", "data": data}), "application/json")

    def _say(self, text: str, kind: str) -> None:
        body = text.encode()
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class' name
        """Discard the log."""


ThreadingHTTPServer.daemon_threads = True
PORTS = {"desk": 8080, "prometheus": 9090, "pushgateway": 9091}
ThreadingHTTPServer(("0.0.0.0", PORTS[(sys.argv[1:] or ["desk"])[0]]), All).serve_forever()
