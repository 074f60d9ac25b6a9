"""HTTP calls of the instrument to services of this machine."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from typing import TYPE_CHECKING

import pytest
from support.api_server import Reply, api

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.host.http_client import exchange, request
from pytest_llmchaos.model import TLS_UNVERIFIED
from pytest_llmchaos.prometheus.annotations import Signals
from pytest_llmchaos.prometheus.queries import Prometheus
from pytest_llmchaos.runtime.simulated_engine import ask_admin_port

if TYPE_CHECKING:
    from collections.abc import Iterator

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@contextlib.contextmanager
def server(*answers: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A server: its address and requests. Each connection gets the next answer."""
    got: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for answer in answers:
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(5)
                    request = b""
                    while b"\r\n\r\n" not in request:
                        request += connection.recv(65536)
                    got.append(request)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}", got
        finally:
            thread.join(5)


@pytest.fixture
def nowhere() -> str:
    """An address that refuses connections."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture(autouse=True)
def proxy(monkeypatch: pytest.MonkeyPatch, nowhere: str) -> None:
    """Set every variable that could redirect the lab's traffic."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://{nowhere}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


def test_a_proxy_of_the_environment_is_not_used() -> None:
    with server(OK) as (address, got):
        assert request("GET", f"http://{address}/health", timeout_s=5).status_code == 200

    assert got[0].startswith(b"GET /health HTTP/1.1\r\n")


def test_neither_the_judge_nor_the_first_request_uses_a_proxy_on_ipv6_loopback() -> None:
    answer = {"status": "success", "data": {"resultType": "scalar", "result": [0, "7"]}}
    with api(lambda _: Reply(json.dumps(answer).encode()), host="::1") as (url, asked):
        assert request("GET", f"{url}/health", timeout_s=5).status_code == 200
        assert Prometheus(url).clock_offset_s() < 0
        exchange("POST", f"{url}/v1", tls=TLS_UNVERIFIED, name="", timeout_s=5, most_bytes=9, headers={})

    assert [one.path.partition("?")[0] for one in asked] == ["/health", "/api/v1/query", "/v1"]


def test_a_redirect_is_an_answer() -> None:
    with server(b"HTTP/1.1 302 Found\r\nLocation: http://example.org/\r\nContent-Length: 0\r\n\r\n") as (address, _):
        assert request("GET", f"http://{address}/", timeout_s=5).status_code == 302


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (b"", "RemoteProtocolError: Server disconnected"),
        (b"nonsense\r\n\r\n", "RemoteProtocolError: "),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}", "RemoteProtocolError: peer closed connection"),
    ],
    ids=["nothing", "no HTTP", "cut off"],
)
def test_a_broken_answer_is_a_connection_error_with_its_cause(answer: bytes, cause: str) -> None:
    with server(answer) as (address, _), pytest.raises(ConnectionError, match=cause):
        request("GET", f"http://{address}/", timeout_s=5)


def test_a_refused_connection_is_a_connection_error(nowhere: str) -> None:
    with pytest.raises(ConnectionError, match=r"ConnectError: .*refused"):
        request("GET", f"http://{nowhere}/", timeout_s=5)


def test_a_server_that_answers_nothing_in_time_is_a_connection_error() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        pytest.raises(ConnectionError, match="ReadTimeout"),
    ):
        request("GET", f"http://127.0.0.1:{listener.getsockname()[1]}/", timeout_s=0.1)


class TestSignals:
    """Signals pushed to the Pushgateway."""

    def test_signals_are_put_under_the_job_of_the_instrument(self) -> None:
        with server(OK) as (address, got):
            signals = Signals(f"http://{address}")
            signals.phase("fault")

        assert signals.lost is None
        assert got[0].startswith(b"PUT /metrics/job/llmchaos HTTP/1.1\r\n")

    def test_signals_that_are_refused_or_lost_are_noted_and_raise_nothing(self, nowhere: str) -> None:
        with server(b"HTTP/1.1 500 Oops\r\nContent-Length: 3\r\n\r\nbad") as (address, _):
            refused = Signals(f"http://{address}")
            refused.phase("fault")
        lost = Signals(f"http://{nowhere}")
        lost.phase("fault")

        assert refused.lost == "the pushgateway answered 500: bad"
        assert "refused" in str(lost.lost)


class TestAdminPort:
    """Calls to an engine's admin port."""

    def test_reports_its_reason_for_a_refusal(self) -> None:
        with (
            server(b"HTTP/1.1 409 Conflict\r\nContent-Length: 4\r\n\r\nbusy") as (address, got),
            pytest.raises(NotReady, match="refused `end`: busy"),
        ):
            ask_admin_port(address, "end", "7")

        assert got[0].startswith(b"DELETE /faults/7 HTTP/1.1\r\n")

    def test_without_a_listener_is_an_error_with_the_address(self, nowhere: str) -> None:
        with pytest.raises(NotReady, match=f"the engine's admin port at {nowhere} did not answer `list`: ConnectError"):
            ask_admin_port(nowhere, "list", "")


def test_a_request_has_exactly_the_headers_that_are_given() -> None:
    dripping = b"HTTP/1.1 200 OK\r\nX-A: b\r\n\r\nfirst"
    about = {"tls": "", "name": "", "most_bytes": 100, "headers": {"Host": "web"}}
    with server(dripping) as (address, got):
        reply = exchange("GET", f"http://{address}/x", timeout_s=5.0, **about)

    assert (reply.status, reply.headers["x-a"], reply.body, reply.broken) == (200, "b", b"first", "")
    assert got == [b"GET /x HTTP/1.1\r\nHost: web\r\n\r\n"]
