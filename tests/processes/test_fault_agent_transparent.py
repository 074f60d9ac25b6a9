"""Bytes, ends and pressure through an agent without a fault.

Scripted peers on raw sockets stand on both sides of the process. They share no code
with the agent.
"""

from __future__ import annotations

import hashlib
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from support import conversations
from support.agent_process import Agent
from support.waiting import until
from support.wire import KNOCK, Flight, Peer, Service, close_all, connect, reaches, talk

if TYPE_CHECKING:
    from collections.abc import Iterator

GENERATE = (Phase.explicit, Phase.generate)  # a failing conversation takes seconds and shrinks too slowly
SEEN_WITHIN_S = 0.2  # a client's close reaches the service
MB = 1_000_000
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'
TOKEN = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)


ODD: dict[str, tuple[bytes, bytes]] = {
    "lines that end with LF alone": (b"GET / HTTP/1.0\n\n", b"HTTP/1.0 200 OK\nContent-Length: 2\n\nok"),
    "a folded header": (GET[:-2] + b"X-A: a\r\n  b\r\n\r\n", OK[:17] + b"X-A: a\r\n\tb\r\n" + OK[17:]),
    "the same length twice": (
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
    ),
    "an answer that is not HTTP": (GET, b"ICY 200 OK\r\n\r\n" + b"\x00\xff" * 100),
    "a broken chunk": (GET, STREAM + b"5\r\nhello\r\nnot a size\r\n\r\n"),
    "a length that is no number": (GET, b"HTTP/1.1 200 OK\r\nContent-Length: 2x\r\n\r\nok, and more"),
    "more than the length": (GET, OK + b"and more"),
}


@pytest.fixture(autouse=True)
def _close_all() -> Iterator[None]:
    yield
    close_all()


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    one = Service()
    yield one
    one.close()


@pytest.fixture(scope="module")
def agent(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    one = Agent(service.port, tmp_path_factory.mktemp("agent"))
    yield one
    assert one.stop() == 0, one.log.read_text()


@pytest.fixture(scope="module")
def slow_agent(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """An agent with a fault that changes no byte."""
    one = Agent(service.port, tmp_path_factory.mktemp("slow"))
    one.start("latency", delay_s=0.01)
    yield one
    assert one.stop() == 0, one.log.read_text()


@pytest.fixture(scope="module")
def idle_agent(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """An agent with faults that meet each message and hit one in a billion."""
    one = Agent(service.port, tmp_path_factory.mktemp("idle"))
    for kind, options in (("flaky", {}), ("late_first_token", {"delay_s": 1})):
        one.start(kind, share=1e-9, match={"method": "*"}, **options)
    yield one
    assert one.stop() == 0, one.log.read_text()


@pytest.fixture(params=["agent", "slow_agent"])
def way(request: pytest.FixtureRequest) -> Agent:
    """Each of the two agents."""
    found: Agent = request.getfixturevalue(request.param)
    return found


def pair(agent: Agent, service: Service) -> tuple[Peer, Peer]:
    """A connection's two ends."""
    client = connect(agent.port)
    return client, service.accepted()


def flights(*sides: bytes) -> list[Flight]:
    """The client's and the service's bytes in turn, then both ends."""
    turns = [
        Flight(client=(data,)) if number % 2 == 0 else Flight(service=(data,)) for number, data in enumerate(sides)
    ]
    return [*turns, Flight(client_ends=True), Flight(service_ends=True)]


class TestBytes:
    @settings(max_examples=100, phases=GENERATE)
    @given(conversation=conversations.conversations())
    def test_http_passes_byte_for_byte(self, agent, service, conversation):
        talk(agent.port, service, conversation.flights)

    @settings(max_examples=50, phases=GENERATE)
    @given(conversation=st.one_of(conversations.conversations(), conversations.plain_tcp()))
    def test_a_fault_that_hits_nothing_meets_each_message_and_changes_no_byte(self, idle_agent, service, conversation):
        requests, bodies = (idle_agent.met(kind) for kind in ("flaky", "late_first_token"))

        talk(idle_agent.port, service, conversation.flights)

        assert idle_agent.met("flaky") - requests == conversation.requests
        assert idle_agent.met("late_first_token") - bodies == conversation.bodies

    @settings(max_examples=60, phases=GENERATE)
    @given(conversation=conversations.plain_tcp())
    def test_plain_tcp_passes_byte_for_byte(self, agent, service, conversation):
        talk(agent.port, service, conversation.flights)

    @settings(max_examples=30, phases=GENERATE)
    @given(conversation=conversations.conversations())
    def test_latency_changes_no_byte_of_http(self, slow_agent, service, conversation):
        talk(slow_agent.port, service, conversation.flights)

    @settings(max_examples=20, phases=GENERATE)
    @given(conversation=conversations.plain_tcp())
    def test_latency_changes_no_byte_of_plain_tcp(self, slow_agent, service, conversation):
        talk(slow_agent.port, service, conversation.flights)

    @pytest.mark.parametrize("size", [60_000, 900_000])
    def test_a_header_block_below_1_mb_passes(self, agent, service, size):
        request = GET[:-2] + b"X-Long: " + b"v" * size + b"\r\n\r\n"
        answer = OK[:17] + b"X-Long: " + b"w" * size + b"\r\n" + OK[17:]

        talk(agent.port, service, flights(request, answer))

    @pytest.mark.parametrize("name", ODD)
    def test_an_odd_message_passes(self, agent, service, name):
        talk(agent.port, service, flights(*ODD[name]))

    def test_a_head_that_ends_with_the_connection_passes(self, agent, service):
        talk(
            agent.port,
            service,
            [
                Flight(client=(b"GET / HTTP/1.1\r\nHo",), client_ends=True),
                Flight(service=(b"HTTP/1.1 400 Bad Request\r\n\r\n",), service_ends=True),
            ],
        )

    @pytest.mark.parametrize("begun", [b"EHLO a", b"GET / HTTP/1.1\r\nHo", GET + b"GET /second HTT"])
    def test_a_head_that_waits_for_its_end_passes_once_the_service_sends(self, agent, service, begun):
        client, peer = pair(agent, service)
        client.send(begun)
        whole = begun[: begun.find(GET) + len(GET)] if begun.startswith(GET) else b""
        peer.sees(whole)

        peer.send(b"220 no HTTP\r\n\r\n")

        client.sees(b"220 no HTTP\r\n\r\n")
        peer.sees(begun[len(whole) :])
        client.send(b"P/1.1\r\n\r\n")
        peer.sees(b"P/1.1\r\n\r\n")

    @pytest.mark.parametrize("then", ["the client ends", "the answer is no HTTP"])
    def test_a_body_that_is_held_for_a_decision_is_not_lost(self, agent, service, then):
        begun = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\nhello"
        client, peer = pair(agent, service)
        fault = agent.start("flaky", match={"model": "x"})
        client.send(begun)
        until(lambda: agent.ask({"do": "list"})["seen"]["requests"] > 0, "the agent reads the request")

        if then == "the client ends":
            client.end()
            peer.sees(begun)
            peer.sees_the_end()
        else:
            peer.send(b"ICY 200 OK\r\n\r\n")
            client.sees(b"ICY 200 OK\r\n\r\n")
            client.send(b"x" * 15)
            peer.sees(begun + b"x" * 15)

        agent.end(fault)

    def test_an_answer_in_another_transfer_coding_is_not_edited(self, agent, service):
        request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
        answer = STREAM.replace(b"chunked", b"gzip, chunked") + b"3\r\n\x1f\x8b\x08\r\n0\r\n\r\n"
        fault = agent.start("truncate", after_tokens=1)

        talk(agent.port, service, flights(request, answer))

        agent.end(fault)

    def test_100_mb_pass_both_ways_at_once(self, agent, service):
        block = bytes(range(256)) * 4096
        blocks = (block,) * 50

        talk(
            agent.port,
            service,
            [
                Flight(client=(b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",)),
                Flight(service=(b"HTTP/1.1 200 \r\n\r\n",)),
                Flight(client=blocks, service=blocks, client_ends=True, service_ends=True),
            ],
        )


class TestRefusals:
    @pytest.mark.parametrize("piece", [1_100_000, 7_000])
    def test_a_header_block_above_1_mb_never_reaches_the_service(self, agent, service, piece):
        client, peer = pair(agent, service)
        sent = GET[:-2] + b"X-Long: " + b"v" * 1_100_000
        deadline_s = time.monotonic() + 5
        while sent and not client.reset and time.monotonic() < deadline_s:
            sent = sent[client.send(sent[:piece]) :]
            client.read()
            if client.ended:
                break

        client.sees_the_end()
        peer.sees_the_end()

        assert bytes(peer.got) == b""
        assert bytes(client.got).startswith(b"HTTP/1.1 431 ") or (client.reset and not client.got)

    def test_an_answer_with_a_header_block_above_1_mb_is_not_passed(self, agent, service):
        client, peer = pair(agent, service)
        client.send(GET)
        peer.sees(GET)
        sent = OK[:17] + b"X-Long: " + b"v" * 8_000_000
        deadline_s = time.monotonic() + 5
        while sent and not peer.reset and time.monotonic() < deadline_s:
            sent = sent[peer.send(sent) :]
            client.read()

        client.sees_the_end()

        assert b"v" not in client.got


class TestEnds:
    """Each side's end reaches the other as what it was."""

    @pytest.mark.parametrize("how", ["close", "abort"])
    @pytest.mark.parametrize("at", ["idle", "asked", "streams", "uploads"])
    def test_a_cancel_reaches_the_service(self, way, service, at, how):
        client, peer = pair(way, service)
        if at == "uploads":
            upload = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhello"
            client.send(upload)
            peer.sees(upload)
        elif at != "idle":
            client.send(GET)
            peer.sees(GET)
        if at == "streams":
            peer.send(STREAM + TOKEN)
            client.sees(STREAM + TOKEN)

        getattr(client, how)()

        assert peer.sees_the_end() <= SEEN_WITHIN_S

    def test_a_service_that_streams_on_after_a_cancel_is_cut_off(self, agent, service):
        client, peer = pair(agent, service)
        client.send(GET)
        peer.sees(GET)
        peer.send(STREAM)
        client.sees(STREAM)

        client.close()

        def is_cut_off() -> bool:
            peer.send(TOKEN)
            return peer.reset

        until(is_cut_off, "the service's write fails", 1, every_s=0.005)

    def test_a_client_that_closes_while_it_reads_nothing_frees_the_service(self, agent, service):
        client, peer = pair(agent, service)
        client.send(GET)
        peer.sees(GET)
        _fill(peer, STREAM)

        client.close()

        def is_cut_off() -> bool:
            peer.send(b"x" * MB)
            return peer.reset

        until(is_cut_off, "the service's write fails", 1, every_s=0.005)

    @pytest.mark.parametrize("at", ["asked", "streams"])
    def test_a_reset_by_the_service_is_no_clean_end(self, agent, service, at):
        client, peer = pair(agent, service)
        client.send(GET)
        peer.sees(GET)
        if at == "streams":
            said = b"HTTP/1.0 200 OK\r\n\r\nhalf of"
            peer.send(said)
            client.sees(said)

        peer.abort()

        client.sees_the_end()
        assert client.reset, "a body that lasts until the end of the connection was cut, and looks whole"

    def test_no_socket_stays_open(self, agent, service):
        client, peer = pair(agent, service)
        client.close()
        peer.close()
        before = until(agent.sockets)
        for how in ("close", "abort"):
            for first in (0, 1):
                both = pair(agent, service)
                both[first].send(KNOCK)
                getattr(both[first], how)()
                both[1 - first].sees_the_end()
                both[1 - first].close()

        until(lambda: agent.sockets() <= before, "the agent closes its sockets", seen=agent.sockets)


class TestPressure:
    """A side that does not read makes the other side's writes block."""

    GROWS_BYTES = 8 * MB
    BUFFERED_BYTES = 32 * MB  # in the kernel's buffers of two connections, at most

    @pytest.mark.parametrize("reader", ["client", "service"])
    def test_a_side_that_reads_nothing_blocks_the_other(self, way, service, reader):
        client, peer = pair(way, service)
        before = way.rss_bytes()
        if reader == "client":
            client.send(GET)
            peer.sees(GET)
            writes, reads = peer, client
            head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (200 * MB)
        else:
            writes, reads = client, peer
            head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (200 * MB)

        sent = _fill(writes, head)

        assert len(head) < sent < self.BUFFERED_BYTES
        assert way.rss_bytes() - before < self.GROWS_BYTES
        wanted = hashlib.sha256((head + _pattern(sent))[:sent]).hexdigest()
        until(lambda: reads.read() or len(reads.got) >= sent, "all bytes", seen=lambda: len(reads.got))
        assert hashlib.sha256(reads.got).hexdigest() == wanted
        client.close()
        peer.close()

    @pytest.mark.parametrize(("kind", "options"), [("latency", {"delay_s": 60}), ("bandwidth", {"bytes_per_s": 1000})])
    def test_a_link_that_holds_bytes_blocks_the_service(self, agent, service, kind, options):
        client, peer = pair(agent, service)
        client.send(GET)
        peer.sees(GET)
        before = agent.rss_bytes()
        fault = agent.start(kind, **options)

        sent = _fill(peer, STREAM)

        assert sent < self.BUFFERED_BYTES
        assert agent.rss_bytes() - before < self.GROWS_BYTES
        agent.end(fault)
        until(lambda: client.read() or len(client.got) >= sent, "all bytes", seen=lambda: len(client.got))
        assert bytes(client.got) == (STREAM + _pattern(sent))[:sent]

    def test_a_stalled_stream_blocks_the_service(self, agent, service):
        client, peer = pair(agent, service)
        request = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
        before = agent.rss_bytes()
        fault = agent.start("stall", after_tokens=3)
        client.send(request)
        peer.sees(request)

        sent = _fill(peer, STREAM, TOKEN * 1_000_000)

        client.read()
        assert _content(client) == EVENT * 3
        assert sent < self.BUFFERED_BYTES
        assert agent.rss_bytes() - before < self.GROWS_BYTES
        agent.end(fault)
        events = (sent - len(STREAM)) // len(TOKEN)
        wanted = EVENT * events
        until(lambda: client.read() or _content(client).startswith(wanted), "all events", every_s=0.2)

    def test_a_body_too_long_to_be_read_for_a_decision_is_not_held(self, agent, service):
        client, peer = pair(agent, service)
        before = agent.rss_bytes()
        fault = agent.start("flaky", match={"model": "x"})
        head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (200 * MB)

        sent = _fill(client, head)

        assert sent < self.BUFFERED_BYTES
        assert agent.rss_bytes() - before < 3 * self.GROWS_BYTES  # 4 MiB twice, and on their way
        until(lambda: peer.read() or len(peer.got) >= sent, "all bytes", seen=lambda: len(peer.got))
        assert bytes(peer.got) == (head + _pattern(sent))[:sent]
        agent.end(fault)

    def test_other_connections_go_on_while_one_is_blocked(self, agent, service):
        client, peer = pair(agent, service)
        client.send(GET)
        peer.sees(GET)
        _fill(peer, STREAM)

        talk(agent.port, service, flights(GET, OK))

        client.close()
        peer.close()


def refused(agent: Agent) -> bool:
    """True if a new connection fails, or is reset at once."""
    try:
        client = connect(agent.port)
    except ConnectionError:
        return True
    client.sees_the_end()
    return client.reset


def _pattern(size: int) -> bytes:
    """Bytes in which a lost or moved block is seen."""
    block = b"".join(b"%07d " % number for number in range(12_500))
    return block * (size // len(block) + 1)


def _content(peer: Peer) -> bytes:
    """The content of the whole chunks after a head."""
    rest, found = bytes(peer.got).partition(b"\r\n\r\n")[2], []
    at = 0
    while (line_end := rest.find(b"\r\n", at)) >= 0:
        begin, size = line_end + 2, int(rest[at:line_end], 16)
        if len(rest) < begin + size + 2:
            break
        found.append(rest[begin : begin + size])
        at = begin + size + 2
    return b"".join(found)


def _fill(peer: Peer, head: bytes, rest: bytes = b"") -> int:
    """Write until nothing more is taken for 0.3 s. Returns the bytes taken."""
    data = memoryview(head + (rest or _pattern(64 * MB)))
    sent, last_s = 0, time.monotonic()
    while time.monotonic() - last_s < 0.3:
        size = peer.send(data[sent:])
        assert not peer.reset
        if size:
            sent, last_s = sent + size, time.monotonic()
        else:
            time.sleep(0.005)
    return sent


class TestService:
    """A service that restarts or refuses."""

    @pytest.fixture
    def world(self, tmp_path: Path) -> Iterator[tuple[Agent, Service]]:
        service = Service()
        agent = Agent(service.port, tmp_path)
        yield agent, service
        service.close()
        assert agent.stop() == 0, agent.log.read_text()

    def test_a_restart_is_survived(self, world):
        agent, service = world
        client, peer = pair(agent, service)
        service.close()
        peer.abort()
        client.sees_the_end()

        with closing(Service(service.port)) as again:
            until(lambda: reaches(agent.port, again), "the agent's port is open")
            talk(agent.port, again, flights(GET, OK))

    def test_a_refusal_is_a_refusal(self, world):
        agent, service = world
        talk(agent.port, service, flights(GET, OK))
        service.close()

        assert refused(agent), "a connection that the service refused ended cleanly"
        until(lambda: not agent.accepts(), "the agent's port refuses", 2)

        with closing(Service(service.port)) as again:
            until(lambda: reaches(agent.port, again), "the agent's port is open again", 2)
            talk(agent.port, again, flights(GET, OK))

    def test_streams_of_other_clients_outlive_a_refusal(self, world):
        agent, service = world
        client, peer = pair(agent, service)
        client.send(GET)
        peer.sees(GET)
        service.close()
        assert refused(agent)
        until(lambda: not agent.accepts(), "the agent's port refuses", 2)

        peer.send(OK)

        client.sees(OK)

    def test_sigterm_ends_it_at_once_with_open_streams(self, world):
        agent, service = world
        client, peer = pair(agent, service)
        client.send(GET)
        peer.sees(GET)
        began_s = time.monotonic()

        assert agent.stop() == 0

        assert time.monotonic() - began_s < 1
        client.sees_the_end()
        peer.sees_the_end()
