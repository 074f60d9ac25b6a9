"""Framing of HTTP/1 messages: the ends of heads and bodies.

The rules are those of RFC 9112, section 6. Whatever does not follow them raises
`NotHttpError`, and the relay then passes the rest of the connection on unread.
"""

from __future__ import annotations

import re
from typing import Final

from fault_agent.messages import AnswerHead, RequestHead

HEAD_MAX_BYTES: Final = 1 << 20
_LINE_MAX_BYTES: Final = 64 << 10  # a chunk's size with its extensions, or one trailer
_HEAD_END: Final = re.compile(rb"\n\r?\n")
_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # RFC 9110, 5.6.2
_REQUEST_LINE: Final = re.compile(rf"({_TOKEN}) (\S+) HTTP/(1\.[0-9])", re.ASCII)  # bytes above 0x7f are no spaces
_STATUS_LINE: Final = re.compile(r"HTTP/1\.[0-9] ([0-9]{3})(?: .*)?")
_BEGINS_REQUEST: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}(?: [^\n]*)?")
_WHOLE_LINE: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32} \S+ HTTP/1\.[0-9]\r?\n")
_HEX: Final = re.compile(rb"[0-9A-Fa-f]{1,15}")
_NAME: Final = re.compile(_TOKEN)
_BLANK_LINES: Final = b"\r\n"
_LENGTHS: Final = (b"content-length:", b"transfer-encoding:")


class NotHttpError(ValueError):
    """The bytes are not HTTP/1."""


class HeadTooLargeError(ValueError):
    """A head is longer than `HEAD_MAX_BYTES`."""


class HeadReader:
    """Collects bytes until a head is complete."""

    __slots__ = ("_held", "_searched")

    def __init__(self) -> None:
        self._held = b""
        self._searched = 0

    @property
    def held(self) -> bytes:
        """The bytes of a head that is not complete."""
        return self._held

    def feed(self, data: bytes) -> tuple[bytes, bytes] | None:
        """The head with its blank line, and what follows it. None if it is incomplete.

        Raises:
            HeadTooLargeError: it is longer than the limit.
        """
        held = self._held + data if self._held else data
        begin = self._searched or len(held) - len(held.lstrip(_BLANK_LINES))
        found = _HEAD_END.search(held, begin)
        if found is None:
            if len(held) > HEAD_MAX_BYTES:
                raise HeadTooLargeError(f"a head is longer than {HEAD_MAX_BYTES} bytes")
            self._held = held
            self._searched = max(begin, len(held) - 2)
            return None
        if found.end() > HEAD_MAX_BYTES:
            raise HeadTooLargeError(f"a head is longer than {HEAD_MAX_BYTES} bytes")
        self._held, self._searched = b"", 0
        return held[: found.end()], held[found.end() :]


def may_be_request(held: bytes) -> bool:
    """False as soon as the bytes cannot begin an HTTP/1 request."""
    begun = held.lstrip(_BLANK_LINES)
    if b"\n" in begun:
        return _WHOLE_LINE.match(begun) is not None
    return not begun or _BEGINS_REQUEST.fullmatch(begun) is not None


def request_head(head: bytes) -> RequestHead:
    """The request whose head these bytes are.

    Raises:
        NotHttpError: they are not the head of an HTTP/1 request.
    """
    first, headers = _lines(head)
    found = _REQUEST_LINE.fullmatch(first)
    if found is None:
        raise NotHttpError(f"no request line: {first[:60]!r}")
    method, path, version = found.groups()
    return RequestHead(method=method, path=path, version=version, headers=headers)


def answer_head(head: bytes, request: RequestHead) -> AnswerHead:
    """The answer whose head these bytes are.

    Raises:
        NotHttpError: they are not the head of an HTTP/1 answer.
    """
    first, headers = _lines(head)
    found = _STATUS_LINE.fullmatch(first)
    if found is None:
        raise NotHttpError(f"no status line: {first[:60]!r}")
    return AnswerHead(status=int(found.group(1)), headers=headers, request=request)


def _lines(head: bytes) -> tuple[str, tuple[tuple[str, str], ...]]:
    first, *rest = head.strip(_BLANK_LINES).decode("latin-1").split("\n")
    headers: list[tuple[str, str]] = []
    for line in rest:
        if line[:1] in (" ", "\t") and headers:  # a folded line, RFC 9112, 5.2
            name, value = headers[-1]
            headers[-1] = (name, f"{value} {line.strip()}")
            continue
        name, colon, value = line.partition(":")
        if not colon or not _NAME.fullmatch(name):
            raise NotHttpError(f"no header: {line[:60]!r}")
        headers.append((name.lower(), value.strip()))
    return first.rstrip("\r"), tuple(headers)


class Body:
    """Follows the bytes of one body to its end.

    Attributes:
        done: True once the body is complete.
        until_close: True if only the end of the connection ends it.
    """

    __slots__ = ("_chunked", "_left", "_line", "_state", "done", "until_close")

    def __init__(self, *, length: int | None = 0, chunked: bool = False) -> None:
        """`length` in bytes, None for a body that the connection's end ends."""
        self._chunked = chunked
        self._left = 0 if chunked or length is None else length
        self._line = b""
        self._state = "size"
        self.until_close = length is None and not chunked
        self.done = not chunked and length == 0

    def advance(self, data: bytes, start: int, decoded: list[bytes] | None = None) -> int:
        """The index after the last byte of `data` that belongs to the body.

        Args:
            data: bytes of the connection.
            start: index of the first one that is not yet followed.
            decoded: gets the content without its framing, unless None.

        Raises:
            NotHttpError: a chunk is malformed.
        """
        if self._chunked:
            return self._advance_chunks(data, start, decoded)
        end = len(data) if self.until_close else min(len(data), start + self._left)
        if decoded is not None and end > start:
            decoded.append(data[start:end])
        if not self.until_close:
            self._left -= end - start
            self.done = self._left == 0
        return end

    def _advance_chunks(self, data: bytes, at: int, decoded: list[bytes] | None) -> int:
        size = len(data)
        while at < size and not self.done:
            if self._state == "data":
                end = min(size, at + self._left)
                if decoded is not None:
                    decoded.append(data[at:end])
                self._left -= end - at
                at = end
                if self._left == 0:
                    self._state = "after data"
                continue
            newline = data.find(b"\n", at)
            if newline < 0:
                self._line += data[at:]
                if len(self._line) > _LINE_MAX_BYTES:
                    raise NotHttpError("a line of a chunk is too long")
                return size
            line = self._line + data[at:newline] if self._line else data[at:newline]
            self._line = b""
            at = newline + 1
            self._end_line(line.rstrip(b"\r"))
            if self._state == "data" and data.startswith(b"\r\n", at + self._left):  # most often, all of it is here
                if decoded is not None:
                    decoded.append(data[at : at + self._left])
                at += self._left + 2
                self._state = "size"
        return at

    def _end_line(self, line: bytes) -> None:
        if self._state == "after data":
            if line:
                raise NotHttpError(f"no line end after a chunk: {line[:20]!r}")
            self._state = "size"
        elif self._state == "size":
            digits = line.partition(b";")[0].strip()
            if not _HEX.fullmatch(digits):
                raise NotHttpError(f"no size of a chunk: {line[:20]!r}")
            self._left = int(digits, 16)
            self._state = "data" if self._left else "trailers"
        elif not line:
            self.done = True


def body_of_request(head: RequestHead) -> Body:
    """The body that follows the head of a request.

    Raises:
        NotHttpError: its length is ambiguous.
    """
    if "transfer-encoding" in (names := {name for name, _ in head.headers}):
        return Body(chunked=_is_chunked(head.headers, final=True))
    return Body(length=_length(head.headers) if "content-length" in names else 0)


def body_of_answer(head: AnswerHead) -> Body:
    """The body after the head of an answer, none for 1xx, 204, 304 and tunnels.

    Raises:
        NotHttpError: its length is ambiguous.
    """
    if head.request.method == "HEAD" or head.status < 200 or head.status in (204, 304) or is_tunnel(head):
        return Body()
    if any(name == "transfer-encoding" for name, _ in head.headers):
        return Body(chunked=True) if _is_chunked(head.headers, final=False) else Body(length=None)
    if any(name == "content-length" for name, _ in head.headers):
        return Body(length=_length(head.headers))
    return Body(length=None)


def is_tunnel(head: AnswerHead) -> bool:
    """True if the connection is no longer HTTP after this answer."""
    return head.status == 101 or (head.request.method == "CONNECT" and 200 <= head.status < 300)


def is_last(head: RequestHead) -> bool:
    """True if the connection ends with the answer to this request."""
    options = ",".join(value.lower() for name, value in head.headers if name == "connection").split(",")
    return head.version == "1.0" or "close" in (option.strip() for option in options)


def is_coded(head: AnswerHead) -> bool:
    """True if a transfer coding other than chunked hides the body."""
    return any(value.lower() != "chunked" for name, value in head.headers if name == "transfer-encoding")


def _is_chunked(headers: tuple[tuple[str, str], ...], *, final: bool) -> bool:
    codings = ",".join(value.lower() for name, value in headers if name == "transfer-encoding").split(",")
    chunked = codings[-1].strip() == "chunked"
    if final and not chunked:
        raise NotHttpError("the body of a request has no end: chunked is not its last coding")
    return chunked


def _length(headers: tuple[tuple[str, str], ...]) -> int:
    given = {one.strip() for name, value in headers if name == "content-length" for one in value.split(",")}
    if len(given) != 1 or not (length := given.pop()).isascii() or not length.isdigit() or len(length) > 18:
        raise NotHttpError("the length of a body is ambiguous")
    return int(length)


def without_length(raw: bytes, *, chunked: bool) -> bytes:
    """The head of an answer whose length is no longer known."""
    lines: list[bytes] = []
    is_dropped = False
    for line in raw.split(b"\n"):
        is_dropped = line.lower().startswith(_LENGTHS) or (is_dropped and line[:1] in (b" ", b"\t"))  # folded
        if not is_dropped:
            lines.append(line)
    end = lines.index(next(line for line in lines[1:] if not line.rstrip(b"\r")))
    lines.insert(end, b"Transfer-Encoding: chunked\r" if chunked else b"Connection: close\r")
    return b"\n".join(lines)
