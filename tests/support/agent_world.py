"""A fault agent between a plain socket server and plain sockets.

Both ends look at bytes and at the clock. They share no code with the agent.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from support.agent_process import Agent
from support.waiting import until

WORDS = tuple(f"w{n} " for n in range(8))
DONE = b"data: [DONE]\n\n"


def event(text: str | None = None, finish: str | None = None) -> bytes:
    """One event of a chat completion."""
    delta = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + json.dumps({"id": "c1", "model": "m1", "choices": [choice]}).encode() + b"\n\n"


EVENTS = (*map(event, WORDS), event(finish="stop"), DONE)


@dataclass
class Seen:
    """One request as the service saw it."""

    head: bytes
    at_s: float
    sent_s: list[float] = field(default_factory=list)


class Service:
    """Answers GET with `hi`, and POST with a stream of eight tokens."""

    def __init__(self, port: int = 0) -> None:
        self.requests: list[Seen] = []
        self.ends: list[str] = []  # "eof" or "reset", for each connection that ended
        self.gap_s = 0.01
        self.body = b"hi"
        self.is_early = False  # it answers before it reads the body
        self._socket = socket.create_server(("127.0.0.1", port))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._socket.accept()
                threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with peer, peer.makefile("rb") as lines:
            try:
                while head := read_head(lines):
                    size = length_of(head)
                    lines.read(0 if self.is_early else size)
                    seen = Seen(head, time.monotonic())
                    self.requests.append(seen)
                    self._answer(peer, seen)
                    lines.read(size if self.is_early else 0)
            except OSError:
                self.ends.append("reset")
            else:
                self.ends.append("eof")

    def _answer(self, peer: socket.socket, seen: Seen) -> None:
        if seen.head.startswith(b"GET"):
            seen.sent_s.append(time.monotonic())
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(self.body), self.body))
            return
        peer.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nX-Odd: as it is\r\n\r\n"
        )
        if self.gap_s == 0:
            peer.sendall(b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in EVENTS) + b"0\r\n\r\n")
            return
        for one in EVENTS:
            seen.sent_s.append(time.monotonic())
            peer.sendall(b"%x\r\n%b\r\n" % (len(one), one))
            time.sleep(self.gap_s)
        peer.sendall(b"0\r\n\r\n")


@dataclass
class Answer:
    """One answer as the client saw it.

    `end` is `complete`, `eof`, `reset` or `silence`.
    """

    head: bytes = b""
    body: bytes = b""
    end: str = "silence"
    took_s: float = 0.0
    at_s: list[float] = field(default_factory=list)  # of each piece of the body

    @property
    def status(self) -> int:
        return int(self.head.split(b" ", 2)[1]) if self.head else 0

    @property
    def texts(self) -> list[str]:
        """Texts of the events that can be read."""
        found = []
        for block in self.body.split(b"\n\n"):
            with contextlib.suppress(ValueError, KeyError, IndexError, TypeError):
                found.append(json.loads(block.removeprefix(b"data: "))["choices"][0]["delta"]["content"])
        return found


class Client:
    """One connection to the agent."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=2)
        self._lines = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self.socket.close()

    def get(self, *, patience_s: float = 2.0) -> Answer:
        return self.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", patience_s=patience_s)

    def post(self, id_: str = "", *, patience_s: float = 2.0, **more: object) -> Answer:
        body = json.dumps({"model": "m1", "stream": True, **more}).encode()
        name = f"X-Request-Id: {id_}\r\n" if id_ else ""
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n{name}Content-Length: {len(body)}\r\n\r\n"
        return self.ask(head.encode() + body, patience_s=patience_s)

    def ask(self, data: bytes, *, patience_s: float = 2.0) -> Answer:
        answer, begun_s = Answer(), time.monotonic()
        self.socket.settimeout(patience_s)
        try:
            self.socket.sendall(data)
            self._read(answer)
        except TimeoutError:
            answer.end = "silence"
        except OSError:
            answer.end = "reset"
        answer.took_s = time.monotonic() - begun_s
        return answer

    def _read(self, answer: Answer) -> None:
        answer.head = read_head(self._lines)
        if not answer.head:
            answer.end = "eof"
        elif b"chunked" not in answer.head.lower():
            answer.body = self._lines.read(length_of(answer.head))
            answer.end = "complete"
        else:
            while size := int(self._lines.readline() or b"-1", 16):
                if size < 0:
                    answer.end = "eof"
                    return
                answer.at_s.append(time.monotonic())
                answer.body += self._lines.read(size)
                self._lines.readline()
            self._lines.readline()
            answer.end = "complete"


def read_head(lines: Any) -> bytes:
    head = b""
    while (line := lines.readline()) not in (b"\r\n", b""):
        head += line
    return head


def length_of(head: bytes) -> int:
    return next((int(one.split(b":")[1]) for one in head.splitlines() if one.lower().startswith(b"content-length:")), 0)


class World:
    """Service, agent, and clients."""

    def __init__(self, folder: Path) -> None:
        self.service = Service()
        self.agent = Agent(self.service.port, folder)
        self.port = self.agent.port

    def close(self) -> None:
        self.agent.kill()
        self.service.close()

    def client(self) -> Client:
        return Client(self.port)

    def knock(self) -> str:
        """The end of one GET on a new connection, or `refused`."""
        try:
            with self.client() as client:
                return client.get().end
        except ConnectionRefusedError:
            return "refused"
        except ConnectionResetError:  # the reset came before `connect` returned
            return "reset"

    def control(self, **asked: object) -> dict[str, Any]:
        """Send one line to the control socket and return the decoded answer."""
        return self.agent.call(asked)

    @contextlib.contextmanager
    def fault(self, kind: str, *, lease_s: float = 20, seed: int = 7, **options: object) -> Iterator[Fault]:
        answer = self.control(do="start", fault={"kind": kind, "lease_s": lease_s, "seed": seed, **options})
        assert "ok" in answer, answer
        fault = Fault(self, answer["ok"]["id"])
        try:
            yield fault
        finally:
            fault.end()


@dataclass
class Fault:
    """A fault in force, by its id."""

    world: World
    id: str

    def state(self) -> Mapping[str, Any]:
        listed = self.world.control(do="list")["ok"]["faults"]
        found: Mapping[str, Any] = next(one for one in listed if one["id"] == self.id)
        return found

    def count(self, what: str = "hit") -> int:
        return int(self.state()["counters"].get(what, 0))

    def wait_for_hit(self, number: int = 1) -> None:
        until(lambda: self.count() >= number, f"{number} hits of {self.id}", 5)

    def end(self) -> None:
        self.world.control(do="end", id=self.id)
