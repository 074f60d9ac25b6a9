"""A chat API for first requests, whose answer is one function of the request."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from pytest_llmchaos.host.ports import http_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

GOOD = b"".join(
    b"data: " + one + b"\n\n"
    for one in (
        b'{"choices":[{"index":0,"delta":{"content":"hello"},"finish_reason":null}]}',
        b'{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}',
        b"[DONE]",
    )
)


@dataclass
class Reply:
    """One answer."""

    body: bytes = GOOD
    status: int = 200
    kind: str = "text/event-stream"
    more: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Asked:
    """One request. Names of headers are lower-case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@contextmanager
def api(
    answer: Callable[[Asked], Reply | None], tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> Iterator[tuple[str, list[Asked]]]:
    """Serve on loopback: the address and the requests.

    An answer of None closes the connection.
    """
    asked: list[Asked] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked.append(Asked(self.command, self.path, headers, body))
            reply = answer(asked[-1])
            self.close_connection = True
            if reply is None:
                return
            self.send_response(reply.status)
            for name, value in {
                "Content-Type": reply.kind,
                "Content-Length": str(len(reply.body)),
                **reply.more,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.body)

        def do_POST(self) -> None:
            self.do_GET()

        do_PUT = do_DELETE = do_POST  # noqa: N815 - the names that http.server looks for

    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

        def handle_error(self, *_: object) -> None:
            pass

    server = Server((host, 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield http_url(host, int(server.server_address[1])), asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def certificate(folder: Path, *names: str) -> ssl.SSLContext:
    """A server's certificate, signed by `folder/ca.pem`. Names are such as DNS:web."""

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    new = ("-newkey", "rsa:2048", "-nodes", "-subj")
    if not (folder / "ca.pem").exists():
        openssl("req", "-x509", *new, "/CN=authority", "-keyout", "ca-key.pem", "-out", "ca.pem", "-days", "2")
    (folder / "names.txt").write_text(f"subjectAltName = {', '.join(names)}\n")
    openssl("req", *new, "/CN=web", "-keyout", "key.pem", "-out", "web.csr")
    signed = ("-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-days", "2", "-extfile", "names.txt")
    openssl("x509", "-req", "-in", "web.csr", *signed, "-out", "web.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "web.pem", folder / "key.pem")
    return context
