"""Protocols of services, which the fault agent finds by their answers."""

import contextlib
import http.server
import socket
import socketserver
import ssl
import threading

import pytest
from support.agent_process import Agent
from support.api_server import certificate

SETTINGS = bytes.fromhex("000000 04 00 00000000")
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"


class Quiet(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass


class Answering(socketserver.BaseRequestHandler):
    """Answers the first bytes of each connection by the server's function."""

    def handle(self):
        self.server.got.append(self.request.recv(4096))
        with contextlib.suppress(OSError):
            self.request.sendall(self.server.answer(self.server.got[-1]))
            self.request.settimeout(1)
            self.request.recv(1)


@contextlib.contextmanager
def serving(server):
    server.daemon_threads, server.block_on_close = True, False
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def answering(answer):
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answering)
    server.answer, server.got = answer, []
    return serving(server)


def protocol_of(server, folder):
    port = server.server_address[1]
    agent = Agent(port, folder)
    try:
        answer = agent.ask({"do": "protocols", "ports": []})["protocols"]
    finally:
        agent.stop()
    assert list(answer) == [str(port)]
    return answer[str(port)]


@pytest.mark.parametrize("wants_a_client_certificate", [False, True])
def test_tls_is_found_by_a_real_handshake(tmp_path, wants_a_client_certificate):
    context = certificate(tmp_path, "DNS:web")
    if wants_a_client_certificate:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(tmp_path / "ca.pem")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    with serving(server):
        assert protocol_of(server, tmp_path) == "TLS"


def test_tls_that_refuses_the_name_is_tls(tmp_path):
    with answering(lambda _: bytes.fromhex("15 0303 0002 0270")) as server:
        assert protocol_of(server, tmp_path) == "TLS"
    assert server.got[0].startswith(b"\x16\x03")  # a greeting of TLS


def test_a_plain_server_is_http1(tmp_path):
    with serving(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)) as server:
        assert protocol_of(server, tmp_path) == "HTTP/1"


def test_a_server_that_waits_for_a_whole_line_is_http1(tmp_path):
    def answer(got):
        return BAD_REQUEST if got.startswith(PREFACE) else b""

    with answering(answer) as server:
        assert protocol_of(server, tmp_path) == "HTTP/1"
    assert len(server.got) == 2


def test_a_server_of_http2_alone_is_http2(tmp_path):
    with answering(lambda got: SETTINGS if got.startswith(PREFACE) else b"") as server:
        assert protocol_of(server, tmp_path) == "HTTP/2"
    assert [got[:7] for got in server.got[1:]] == [b"PRI * H", b"OPTIONS"]


def test_a_server_that_sends_its_first_frame_unasked_is_http2(tmp_path):
    with answering(lambda _: SETTINGS) as server:
        assert protocol_of(server, tmp_path) == "HTTP/2"


def test_a_port_with_both_is_http1_because_its_requests_can_be_read(tmp_path):
    def answer(got):
        if got.startswith(PREFACE):
            return SETTINGS
        return BAD_REQUEST if got.startswith(b"OPTIONS * HTTP/1.1\r\n") else b""

    with answering(answer) as server:
        assert protocol_of(server, tmp_path) == "HTTP/1"


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"\x15"], ids=["silent", "ssh", "one byte"])
def test_other_services_are_unknown(tmp_path, answer):
    with answering(lambda _: answer) as server:
        assert protocol_of(server, tmp_path) == ""


def test_a_service_that_listens_no_more_is_unknown(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    agent = Agent(port, tmp_path)
    try:
        assert agent.ask({"do": "protocols"})["protocols"] == {str(port): ""}
        refused = agent.call({"do": "protocols", "ports": [0]})
    finally:
        agent.stop()
    assert "ports must be a list of numbers from 1 to 65535" in refused["error"]
