"""Allow-list in front of the Docker socket, with a fake daemon.

A forbidden call must never reach the daemon.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import TYPE_CHECKING, Any

import pytest
from support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CONFIG = Path(__file__).parents[2] / "stack" / "docker-proxy" / "haproxy.cfg"
CALLS: dict[str, dict[str, dict[str, Any]]] = json.loads(
    (Path(__file__).parents[1] / "data" / "docker_proxy_calls.json").read_text()
)
NAMES = {"project": "llmchaos-a", "foreign": "llmchaos-ab-api-1", "id": "4f1c" * 16, "short_id": "4f1c4f1c4f1c"}
HAPROXY = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
DEADLINE_S = 10.0

pytestmark = pytest.mark.skipif(HAPROXY is None, reason="needs the haproxy program: apt-get install haproxy")


@dataclass
class Daemon:
    """Fake Docker on a Unix socket: answers 200 and records every request."""

    path: Path
    seen: list[str] = field(default_factory=list)

    def serve(self) -> ThreadingUnixStreamServer:
        seen = self.seen

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                if self.path != "/_ping":
                    seen.append(f"{self.command} {self.path}")
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_OPTIONS = do_PATCH = answer  # noqa: N815 - http.server's names

            def address_string(self) -> str:
                return "unix"

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingUnixStreamServer):
            daemon_threads = True

        server = Server(str(self.path), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return server


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """The running proxy."""

    port: int
    metrics_port: int
    log: Path
    daemon: Daemon

    def ask(self, call: dict[str, Any], names: dict[str, str] = NAMES) -> tuple[int, str]:
        """Send a request byte by byte as the table has it. Returns status and body."""
        body = str(call.get("body", ""))
        headers = {"Host": "docker", "Connection": "close", **call.get("headers", {})}
        if body and "Transfer-Encoding" not in headers:
            headers["Content-Length"] = str(len(body))
        lines = [
            f"{call['method']} {call['path'].format(**names)} HTTP/1.1",
            *(f"{k}: {v}" for k, v in headers.items()),
        ]
        return self.send("\r\n".join([*lines, "", body]).encode())

    def send(self, raw: bytes) -> tuple[int, str]:
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall(raw)
            answer = b""
            while chunk := connection.recv(65536):
                answer += chunk
        return int(answer.split()[1]), answer.decode(errors="replace")

    def lines(self) -> list[dict[str, Any]]:
        """Complete lines so far. The last one may still be in flight."""
        whole = self.log.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]

    def logged(self, wanted: tuple[str, int, str, str]) -> int:
        """Count the lines of the log that match."""
        return sum(1 for one in self.lines() if (one["verdict"], one["status"], one["method"], one["url"]) == wanted)

    def until(self, look: Callable[[], bool]) -> None:
        until(look, within_s=DEADLINE_S, seen=lambda: self.lines()[-3:])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    directory = tmp_path_factory.mktemp("proxy")
    daemon = Daemon(path=directory / "docker.sock")
    server = daemon.serve()
    ports = {"LAB_PORT": str(free_port()), "LAB_METRICS_PORT": str(free_port())}
    variables = {
        "LAB_PROJECT": NAMES["project"],
        "LAB_REPAIRS": "api,model-1,model-2",
        "LAB_SCALED": "model-1,model-2",
        **ports,
    }
    log = directory / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(HAPROXY), "-db", "-f", str(CONFIG)],
            env={**variables, "LAB_DOCKER_SOCKET": str(daemon.path)},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    running = Proxy(port=int(ports["LAB_PORT"]), metrics_port=int(ports["LAB_METRICS_PORT"]), log=log, daemon=daemon)
    try:

        def is_healthy() -> bool:
            assert process.poll() is None, log.read_text()
            return health(running) == 200

        until(is_healthy, "the proxy is healthy", DEADLINE_S, seen=log.read_text)
        yield running
    finally:
        process.terminate()
        process.wait(timeout=5)
        server.shutdown()
        server.server_close()


def health(proxy: Proxy) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{proxy.metrics_port}/healthz", timeout=2) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0


@pytest.mark.parametrize("name", CALLS["denied"])
def test_a_forbidden_call_is_403_and_logged_and_never_reaches_the_daemon(proxy: Proxy, name: str) -> None:
    call = CALLS["denied"][name]
    wanted = ("denied", 403, call["method"], call["path"].format(**NAMES))
    seen, logged = list(proxy.daemon.seen), proxy.logged(wanted)
    status, _ = proxy.ask(call)

    assert status == 403
    assert proxy.daemon.seen == seen
    proxy.until(lambda: proxy.logged(wanted) == logged + 1)


@pytest.mark.parametrize("name", CALLS["allowed"])
def test_a_call_that_a_repair_needs_reaches_the_daemon_as_it_is(proxy: Proxy, name: str) -> None:
    call = CALLS["allowed"][name]
    status, _ = proxy.ask(call)

    assert status == 200
    assert proxy.daemon.seen[-1] == f"{call['method']} {call['path'].format(**NAMES)}"


def test_acts_are_logged_and_reads_are_not(proxy: Proxy) -> None:
    wanted = ("allowed", 200, "POST", "/containers/llmchaos-a-api-1/kill?signal=SIGKILL")
    logged = proxy.logged(wanted)
    proxy.ask(CALLS["allowed"]["inspect the other replica"])
    proxy.ask(CALLS["allowed"]["kill"])
    proxy.until(lambda: proxy.logged(wanted) == logged + 1)

    assert not [line for line in proxy.lines() if line["verdict"] == "allowed" and line["method"] == "GET"]


def test_an_allowed_call_does_not_let_a_forbidden_one_follow_on_its_connection(proxy: Proxy) -> None:
    good = b"GET /containers/llmchaos-a-api-1/json HTTP/1.1\r\nHost: docker\r\n\r\n"
    bad = b"POST /containers/create HTTP/1.1\r\nHost: docker\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    before = len(proxy.daemon.seen)
    _, answers = proxy.send(good + bad)

    assert (answers.count("HTTP/1.1 200 OK"), answers.count("HTTP/1.1 403 Forbidden")) == (1, 1)
    assert proxy.daemon.seen[before:] == ["GET /containers/llmchaos-a-api-1/json"]


@pytest.mark.parametrize(
    "raw",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /containers/llmchaos-a-api-1/json\x00 HTTP/1.1\r\nHost: docker\r\n\r\n",
        b"GET /containers/llmchaos-a-api-1/json /x HTTP/1.1\r\nHost: docker\r\n\r\n",
        b"POST /containers/llmchaos-a-api-1/start HTTP/1.1\r\nHost: docker\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\nhello",
        b"GET containers/llmchaos-a-api-1/json HTTP/1.1\r\nHost: docker\r\n\r\n",
    ],
    ids=["HTTP/2", "a zero byte", "two addresses", "two lengths", "no slash first"],
)
def test_a_request_that_is_not_http_1_never_reaches_the_daemon(proxy: Proxy, raw: bytes) -> None:
    before = list(proxy.daemon.seen)
    status, _ = proxy.send(raw)

    assert status in (400, 403)
    assert proxy.daemon.seen == before


def test_the_answer_to_a_denied_call_lists_what_is_allowed(proxy: Proxy) -> None:
    _, answer = proxy.ask(CALLS["denied"]["read /info"])

    assert "allowed are list with the project label" in json.loads(answer.split("\r\n\r\n", 1)[1])["message"]


def test_metrics_are_served_and_nothing_else_is_on_their_port(proxy: Proxy) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{proxy.metrics_port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"http://127.0.0.1:{proxy.metrics_port}/containers/json", timeout=5)
    refused.value.close()

    assert 'haproxy_frontend_requests_denied_total{proxy="docker"}' in text
    assert refused.value.code == 404


def test_the_configuration_is_valid_for_this_haproxy_without_a_warning() -> None:
    variables = {"LAB_PROJECT": "p", "LAB_REPAIRS": "api"}
    checked = subprocess.run(
        [str(HAPROXY), "-c", "-f", str(CONFIG)], env=variables, capture_output=True, text=True, check=False
    )

    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize("missing", ["LAB_PROJECT", "LAB_REPAIRS"])
def test_without_a_project_or_services_it_does_not_start(missing: str) -> None:
    variables = {"LAB_PROJECT": "p", "LAB_REPAIRS": "api"}
    del variables[missing]
    checked = subprocess.run(
        [str(HAPROXY), "-c", "-f", str(CONFIG)], env=variables, capture_output=True, text=True, check=False
    )

    assert checked.returncode == 1
    assert f"expected {missing}" in checked.stderr
