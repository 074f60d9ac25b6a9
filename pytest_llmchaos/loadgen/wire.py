"""HTTP/1.1 with keep-alive for one load, on httptools' parser in C.

gevent's own clients build headers for each request and hide the arrival of each chunk.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

import gevent
from gevent import socket, ssl
from gevent.event import AsyncResult
from gevent.monkey import get_original
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from pytest_llmchaos.host.http_client import tls_context
from pytest_llmchaos.loadgen.dialects import FORMATS
from pytest_llmchaos.loadgen.event_stream import DONE
from pytest_llmchaos.model import TLS_SYSTEM
from pytest_llmchaos.subject.requests import Dialect, authority, certificate_name

Ended = Literal["complete", "cut", "refused", "timeout", "silent", "left", "garbled", "endless"]
RECEIVE_BYTES = 65536
# A finished stream has this long for its last chunk before its connection is closed.
TAIL_S = 1.0
# An endless body must not fill the memory. Long answers get more.
BODY_MAX_BYTES = 2**20
# A server may close an idle connection while a request is on its way. A reused
# connection that breaks within this time without a byte of an answer is such a race.
RACE_S = 0.25
# The begin of an event with a JSON object.
_PLAIN = (b"data: {", b"data:{")
# The end of an event whose last field is a list of choices, as most have it.
_PLAIN_END = b"}]}\n\n"
# In an event with the numbers of tokens.
_USAGE, _USAGE_SPACED = b'"usage":{', b'"usage": {'
UNPARSABLE = (HttpParserError, HttpParserUpgrade)


class Leave(NamedTuple):
    """A client that closes its connection after `after_s` seconds.

    With `unless_begun` a client that has received a token stays.
    """

    after_s: float
    unless_begun: bool


class Answer:
    """One response as it arrives. `end_s` and other times are monotonic seconds.

    `was_sent` is False as long as no byte of the request has left.

    Args:
        dialect: format of the stream.
        replica_header: lower-case header whose value becomes `replica`.
        any_channel: True if reasoning, a tool call or a refusal may be the first token,
            False for the answer's own text only.
        max_bytes: largest body. A longer one ends the response as `endless`.
    """

    def __init__(
        self,
        replica_header: bytes = b"",
        *,
        dialect: Dialect = "chat",
        any_channel: bool = True,
        max_bytes: int = BODY_MAX_BYTES,
    ) -> None:
        self._replica_header, self._any_channel = replica_header, any_channel
        self._max_bytes = max_bytes
        self._format = FORMATS[dialect]
        self._reader = self._format.reader()
        self._between_events = False  # and the first token has been seen
        self.body = bytearray()
        self.replica = ""
        self.was_sent = self.began = self.complete = self.keep_alive = False
        self.ended: Ended = "cut"
        self.first_s: float | None = None
        self.last_s = self._usage_s = 0.0
        self.end_s = 0.0
        self.max_gap_s = 0.0
        self._framed = self._until_close = False
        self._status = 0
        self.retry_after = b""
        self.on_first_token: Callable[[], None] = _nothing
        self._parser: HttpResponseParser | None = HttpResponseParser(self)

    @property
    def status(self) -> int:
        """The HTTP status code, 0 before the response begins."""
        return self._status if self._parser is None else self._parser.get_status_code() if self.began else 0

    def release(self) -> None:
        """Drop the parser, to break the reference cycle with this answer."""
        self._status, self._parser = self.status, None

    def feed(self, data: bytes) -> None:
        """Parse received bytes. Raises one of UNPARSABLE."""
        if self._parser is not None:
            self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.began = True
        self._framed = False
        self.replica, self.retry_after = "", b""  # those of an interim response do not count

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"content-length" or (name == b"transfer-encoding" and value.lower().endswith(b"chunked")):
            self._framed = True
        elif name == self._replica_header:
            self.replica = value.decode("latin-1")
        elif name == b"retry-after":
            self.retry_after = value

    def on_headers_complete(self) -> None:
        self._until_close = not self._framed

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self._until_close = False
        # An interim response (1xx) is followed by the real one.
        if self._parser is not None and self.status >= 200:
            # The parser has this value only until the callback returns.
            self.complete, self.keep_alive = True, self._parser.should_keep_alive()

    def take(self, data: bytes, now_s: float, stream: bool) -> bool:
        """Process received bytes, b"" for the end. True if the response is over."""
        if data:
            seen = len(self.body)
            self.feed(data)
            is_done = stream and len(self.body) > seen and self._saw(seen, now_s)
            if is_done or self.complete:
                self.ended = "complete"
            elif len(self.body) > self._max_bytes:
                self.ended = "endless"
            else:
                return False
        elif self._until_close:
            self.complete, self.ended = True, "complete"
        else:
            self.ended = "cut" if self.status else "garbled" if self.began else "refused"
        self.end_s = now_s
        return True

    def _saw(self, seen: int, now_s: float) -> bool:
        """Note the times of the events in `body[seen:]`. True after the last one."""
        body = self.body
        if (
            self._between_events
            and body.startswith(_PLAIN, seen)
            and body.endswith(b"\n\n")
            and body.find(DONE, seen) < 0
            and (body.endswith(_PLAIN_END) or (body.find(_USAGE, seen) < 0 and body.find(_USAGE_SPACED, seen) < 0))
        ):
            # Whole events of the answer, as most pieces are, need no parsing.
            self._note_event(now_s)
            return False
        for event in self._reader.feed(bytes(body[seen:])):
            if self.first_s is not None:
                if self._format.is_usage(event):
                    self._usage_s = now_s
                else:
                    if self._format.is_end(event):
                        # A wait for the usage before the end is no gap between tokens.
                        self.last_s = max(self.last_s, self._usage_s)
                    self._note_event(now_s)
            elif self._format.is_first_token(event, any_channel=self._any_channel):
                self.first_s = self.last_s = now_s
                self.on_first_token()
            if self._format.is_end(event):
                return True
        self._between_events = (
            self.first_s is not None and self._format.ends_with_done and self._reader.is_between_events
        )
        return False

    def _note_event(self, now_s: float) -> None:
        gap_s = now_s - self.last_s
        self.max_gap_s = max(self.max_gap_s, gap_s)
        self.last_s = now_s


class Wire:
    """Connections to one server, each reused after its response was read to the end.

    Attributes:
        reconnected: requests that were sent again on a fresh connection, because the
            server had closed the idle one.
        authority: value of the header `Host`.
        prefix: path of the URL, without a slash at its end.
    """

    def __init__(self, url: str, *, tls: str = TLS_SYSTEM, host: str = "") -> None:
        """Prepare connections.

        `tls` is one of `Requests.tls`. With https the certificate must have the name in
        `authority`, unless `tls` is "unverified". `host` replaces the URL's host there.
        """
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = tls_context(tls, ssl) if parts.scheme == "https" else None
        self._name = certificate_name(url, host)
        self._idle: list[Any] = []
        self.reconnected = 0
        self.authority = authority(url, host)
        self.prefix = parts.path.rstrip("/")

    def warm_up(self) -> None:
        """Resolve the host once.

        The first look-up is slow, because it imports codecs.
        """
        with suppress(OSError):
            socket.getaddrinfo(self._host, self._port)

    def head(self, method: str, path: str, headers: Mapping[str, str]) -> bytes:
        """The part of a request that is the same for each: request line and headers."""
        lines = [f"{method} {self.prefix}{path} HTTP/1.1", f"Host: {self.authority}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return ("\r\n".join(lines) + "\r\n").encode()

    def exchange(
        self,
        request: bytes,
        *,
        timeout_s: float,
        stream: bool,
        idle_timeout_s: float | None = None,
        answer: Answer | None = None,
        leave: Leave | None = None,
    ) -> Answer:
        """Send a request and read its response. Server errors do not raise.

        Args:
            request: the whole request.
            timeout_s: seconds until the client gives up.
            stream: True to end with the event `[DONE]`.
            idle_timeout_s: seconds without a byte until the client gives up, or None.
            answer: filled while the response arrives.
            leave: the client's impatience, or None.
        """
        answer = answer or Answer()
        connection = None
        alarm = gevent.Timeout(max(0.001, timeout_s))
        alarm.start()
        impatience = None if leave is None else gevent.Timeout(max(0.001, leave.after_s))
        if leave is not None and impatience is not None:
            impatience.start()
            if leave.unless_begun:
                answer.on_first_token = impatience.close
        try:
            connection, is_fresh = self._connect()
            if not self._performed(connection, request, answer, stream, idle_timeout_s) and not is_fresh:
                self.reconnected += 1
                connection.close()
                connection = None
                connection = self._open()
                self._performed(connection, request, answer, stream, idle_timeout_s)
        except gevent.Timeout as expired:
            if expired not in (alarm, impatience):
                raise
            answer.ended = "timeout" if expired is alarm else "left"
        except OSError:
            answer.ended = "refused"
        finally:
            alarm.close()
            if impatience is not None:
                impatience.close()
                answer.on_first_token = _nothing
            answer.end_s = answer.end_s or time.monotonic()
            if connection is None:
                answer.release()
            else:
                self._return_connection(connection, answer)
        return answer

    def _performed(
        self, connection: Any, request: bytes, answer: Answer, stream: bool, idle_timeout_s: float | None
    ) -> bool:
        """Send and read.

        False if the connection broke at once without a byte of response.
        """
        sent_s = time.monotonic()
        answer.was_sent = True  # in part, if it breaks
        try:
            connection.sendall(request)
            self._receive(connection, answer, stream, idle_timeout_s)
        except UNPARSABLE:
            answer.ended = "cut" if answer.status else "garbled"
        except OSError:
            answer.ended = "cut" if answer.began else "refused"
        if answer.ended == "refused" and time.monotonic() - sent_s <= RACE_S:
            answer.end_s = 0.0
            return False
        return True

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _receive(self, connection: Any, answer: Answer, stream: bool, idle_timeout_s: float | None) -> None:
        if self._tls is None:
            _read_in_the_hub(connection, answer, stream, idle_timeout_s)
            return
        # Data that TLS has decrypted already makes no socket readable, hence the loop.
        is_over = False
        while not is_over:
            data = None
            with gevent.Timeout(idle_timeout_s, exception=False):
                data = connection.recv(RECEIVE_BYTES)
            if data is None:
                answer.ended = "silent"
                return
            is_over = answer.take(data, time.monotonic(), stream)

    def _connect(self) -> tuple[Any, bool]:
        """A connection, and True if it is a fresh one."""
        while self._idle:
            connection = self._idle.pop()
            if _is_quiet(connection):
                return connection, False
            connection.close()
        return self._open(), True

    def _open(self) -> Any:
        connection = socket.create_connection((self._host, self._port))
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                return self._tls.wrap_socket(connection, server_hostname=self._name)
        except BaseException:
            connection.close()
            raise
        return connection

    def _return_connection(self, connection: Any, answer: Answer) -> None:
        if answer.ended == "complete" and not answer.complete:
            # No client waits for this. Only the response's last chunk is missing.
            gevent.spawn(self._read_tail, connection, answer)
            return
        answer.release()
        if answer.ended == "complete" and answer.keep_alive:
            self._idle.append(connection)
        else:
            connection.close()

    def _read_tail(self, connection: Any, answer: Answer) -> None:
        # One deadline for everything, because a server may send comments forever.
        with gevent.Timeout(TAIL_S, exception=False), suppress(OSError, *UNPARSABLE):
            while not answer.complete:
                data = connection.recv(RECEIVE_BYTES)
                if not data:
                    break
                answer.feed(data)
        answer.release()
        if answer.complete and answer.keep_alive:
            self._idle.append(connection)
        else:
            connection.close()


def _nothing() -> None:
    pass


def _read_in_the_hub(connection: Any, answer: Answer, stream: bool, idle_timeout_s: float | None) -> None:
    """Read a response without waking its greenlet for each piece.

    Switching would be half of the work for a stream.
    """
    number, clock = connection.fileno(), time.monotonic
    over: Any = AsyncResult()
    loop = gevent.get_hub().loop
    watcher = loop.io(number, 1)
    silence = None if idle_timeout_s is None else loop.timer(idle_timeout_s, idle_timeout_s)

    def readable() -> None:
        if silence is not None:
            silence.again(silent, update=True)
        try:
            if answer.take(os.read(number, RECEIVE_BYTES), clock(), stream):
                watcher.stop()
                over.set(None)
        except BlockingIOError:
            pass
        except (OSError, *UNPARSABLE) as error:
            watcher.stop()
            over.set_exception(error)

    def silent() -> None:
        if over.ready() or not _is_quiet(connection):
            return  # bytes are here that a busy process has not read yet
        watcher.stop()
        answer.ended = "silent"
        over.set(None)

    watcher.start(readable)
    if silence is not None:
        silence.start(silent, update=True)
    try:
        over.get()
    finally:
        for each in (watcher, silence):
            if each is not None:
                each.stop()
                each.close()


_poll = get_original("select", "poll")
_POLLIN = get_original("select", "POLLIN")


def _is_quiet(connection: Any) -> bool:
    """True if an idle connection is still open.

    A readable one was closed by the server or is out of step.
    """
    poller = _poll()
    poller.register(connection.fileno(), _POLLIN)
    return not poller.poll(0)
