"""HTTP/1.1 for one load: keep-alive connections and a parser in C. It knows no outcome; it says what happened on the wire.

`geventhttpclient`'s own client builds headers anew and hides when each chunk came; its parser is what we need.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal
from urllib.parse import urlsplit

import gevent
from gevent import socket, ssl
from gevent.event import AsyncResult
from gevent.monkey import get_original
from geventhttpclient._parser import HTTPParseError, HTTPResponseParser

from pytest_llmchaos.loadgen.classify import DONE, TOKEN

Ended = Literal["complete", "cut", "refused", "timeout", "garbled"]
RECEIVE_BYTES = 65536
# How long a finished stream may take to close its last chunk, before its connection is given up.
TAIL_S = 1.0


class Answer(HTTPResponseParser):
    """One response as it arrives. `end_s` and the like are monotonic seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.body = bytearray()
        self.replica = ""
        self.began = self.complete = False
        self.ended: Ended = "cut"
        self.first_s: float | None = None
        self.last_s = 0.0
        self.end_s = 0.0
        self.max_gap_s = 0.0
        self._name = ""
        self._named = False

    @property
    def status(self) -> int:
        return int(self.get_code()) if self.began else 0

    def _on_message_begin(self) -> None:
        self.began = True

    def _on_status(self, text: str) -> None: ...

    def _on_header_field(self, text: str) -> None:
        # Both names and values can arrive in pieces.
        self._name = self._name + text if self._named else text
        self._named = True

    def _on_header_value(self, text: str) -> None:
        self._named = False
        if self._name.lower() == "x-llmlab-replica":
            self.replica += text

    def _on_headers_complete(self) -> None: ...

    def _on_body(self, data: bytearray) -> None:
        self.body += data

    def _on_message_complete(self) -> None:
        # An interim answer (1xx) is followed by the real one.
        self.complete = self.get_code() >= 200

    def take(self, data: bytes, now_s: float, stream: bool) -> bool:
        """Take what was received (nothing: the end); True once no more needs to be read."""
        seen = len(self.body)
        self.feed(data)
        said_so = stream and len(self.body) > seen and self._saw(seen, now_s)
        done = said_so or self.complete
        if data and not done:
            return False
        self.ended = "complete" if done else "cut" if self.began else "refused"
        self.end_s = now_s
        return True

    def _saw(self, seen: int, now_s: float) -> bool:
        """Take the times of the events in `body[seen:]`; True once the stream has said that it is done."""
        body = self.body
        if self.first_s is None:
            if TOKEN.search(body, max(0, body.rfind(b"\n", 0, seen))):
                self.first_s = self.last_s = now_s
        elif body.find(b"data:", seen) >= 0:
            self.max_gap_s = max(self.max_gap_s, now_s - self.last_s)
            self.last_s = now_s
        done = body.find(b"[DONE]", max(0, seen - 6))
        return done >= 0 and DONE.search(body, max(0, done - 8)) is not None


class Wire:
    """Connections to one server. A connection is used again once its answer was read to the end."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or "127.0.0.1"
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._idle: list[Any] = []
        self.authority = parts.netloc
        self.prefix = parts.path.rstrip("/")

    def warm_up(self) -> None:
        """Look the host up once: the first look-up imports half of the codecs, which must not be the first caller's time."""
        with suppress(OSError):
            socket.getaddrinfo(self._host, self._port)

    def head(self, method: str, path: str, headers: Mapping[str, str]) -> bytes:
        """The request up to its Content-Length and whatever differs from one request to the next."""
        lines = [f"{method} {self.prefix}{path} HTTP/1.1", f"Host: {self.authority}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return ("\r\n".join(lines) + "\r\n").encode()

    def exchange(self, request: bytes, *, timeout_s: float, stream: bool, answer: Answer | None = None) -> Answer:
        """Send, and read until the answer is whole (a stream: until it says so). Never raises for what a server does.

        Who wants to see it arrive gives the `answer` that is to be filled.
        """
        answer = answer or Answer()
        connection = None
        alarm = gevent.Timeout(max(0.001, timeout_s))
        alarm.start()
        try:
            connection = self._connected()
            connection.sendall(request)
            self._receive(connection, answer, stream)
        except gevent.Timeout as expired:
            if expired is not alarm:
                raise
            answer.ended = "timeout"
        except HTTPParseError:
            answer.ended = "cut" if answer.status else "garbled"
        except OSError:
            answer.ended = "cut" if answer.began else "refused"
        finally:
            alarm.close()
            answer.end_s = answer.end_s or time.monotonic()
            if connection is not None:
                self._put_back(connection, answer)
        return answer

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _receive(self, connection: Any, answer: Answer, stream: bool) -> None:
        if self._tls is None:
            _read_in_the_hub(connection, answer, stream)
            return
        # What TLS has decrypted and not yet given out makes no socket readable, so this must ask again and again.
        while not answer.take(connection.recv(RECEIVE_BYTES), time.monotonic(), stream):
            pass

    def _connected(self) -> Any:
        while self._idle:
            connection = self._idle.pop()
            if _is_quiet(connection):
                return connection
            connection.close()
        connection = socket.create_connection((self._host, self._port))
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                return self._tls.wrap_socket(connection, server_hostname=self._host)
        except BaseException:
            connection.close()
            raise
        return connection

    def _put_back(self, connection: Any, answer: Answer) -> None:
        if answer.ended == "complete" and answer.complete:
            if answer.should_keep_alive():
                self._idle.append(connection)
                return
        elif answer.ended == "complete":
            # Nobody waits for this: the answer is known, only its last chunk is under way.
            gevent.spawn(self._read_tail, connection, answer)
            return
        connection.close()

    def _read_tail(self, connection: Any, answer: Answer) -> None:
        try:
            connection.settimeout(TAIL_S)
            while not answer.complete:
                data = connection.recv(RECEIVE_BYTES)
                answer.feed(data)
                if not data:
                    break
            connection.settimeout(None)
        except (OSError, HTTPParseError):
            connection.close()
            return
        if answer.complete and answer.should_keep_alive():
            self._idle.append(connection)
        else:
            connection.close()


def _read_in_the_hub(connection: Any, answer: Answer, stream: bool) -> None:
    """Read an answer without waking its greenlet for each of its pieces: half of the work of a stream would be switching."""
    number, clock = connection.fileno(), time.monotonic
    over: Any = AsyncResult()
    watcher = gevent.get_hub().loop.io(number, 1)

    def readable() -> None:
        try:
            if answer.take(os.read(number, RECEIVE_BYTES), clock(), stream):
                watcher.stop()
                over.set(None)
        except BlockingIOError:
            pass
        except (OSError, HTTPParseError) as error:
            watcher.stop()
            over.set_exception(error)

    watcher.start(readable)
    try:
        over.get()
    finally:
        watcher.stop()
        watcher.close()


_poll = get_original("select", "poll")
_POLLIN = get_original("select", "POLLIN")


def _is_quiet(connection: Any) -> bool:
    """Whether an idle connection is still open: one that has something to read was closed, or is out of step."""
    poller = _poll()
    poller.register(connection.fileno(), _POLLIN)
    return not poller.poll(0)
