"""Streams cut into raw events, byte for byte.

Server-sent events are cut as in the HTML standard, 9.2.6, with LF, CRLF or CR. The
place of a cut depends on the bytes alone, never on the pieces that they arrive in.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fault_agent.messages import AnswerHead

Format = Literal["events", "lines", "whole"]
# A longer event passes unchanged, and so does the rest of its stream.
LONGEST_EVENT = 1 << 18
# A longer body passes unchanged.
LONGEST_BODY = 1 << 20
_FORMATS: dict[str, Format] = {
    "text/event-stream": "events",
    "application/x-ndjson": "lines",
    "application/ndjson": "lines",
    "application/jsonl": "lines",
    "application/json": "whole",
}
# JSON allows a blank before each value. An empty line would break clients of Ollama.
_KEEP_ALIVES: dict[Format, bytes] = {"events": b": keep-alive\n\n", "lines": b" ", "whole": b" "}
# Lines up to a blank one. A CR after a line end by CR or LF ends the event at once.
# A CR after a CRLF waits for the next byte, because such a stream has an LF there.
_EVENT = re.compile(
    rb"[^\r\n]*+(?:(?>\r\n|\n|\r)[^\r\n]++)*+(?:\r\n(?:\r\n|\n|\r(?=[^\n]))|\n[\n\r]|\r\r)",
)
_BLANK_LINES = (b"\n\n", b"\r\r", b"\n\r", b"\r\n\r\n")
_DATA = re.compile(rb"(?:\A(?:\xef\xbb\xbf)?|(?<=[\r\n]))data(?:: ?([^\r\n]*)|(?=[\r\n]|\Z))")


class Stream(Protocol):
    """Cuts one stream into raw events, and finds the data in each."""

    @property
    def held(self) -> int:
        """Bytes of the event that is not complete."""

    def feed(self, piece: bytes) -> list[bytes]:
        """The raw events that end in `piece`. Joined, they are the stream itself."""

    def take_rest(self) -> bytes:
        """The bytes of the event that is not complete. They are held no longer."""

    def data_of(self, raw: bytes) -> bytes:
        """The data of an event, b"" without data."""

    def with_data(self, raw: bytes, data: bytes) -> bytes:
        """A complete event with other data and the same other fields and line ends."""

    def closed(self, raw: bytes) -> bytes:
        """The event with the end that the last one of a stream may lack."""

    def cut(self, raw: bytes) -> bytes:
        """The event up to the middle of its data."""


class EventStream:
    """Server-sent events."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> list[bytes]:
        """The raw events that end in `piece`."""
        text = self._rest + piece if self._rest else piece
        if b"\r" not in text:
            *blocks, self._rest = text.split(b"\n\n")
            return [block + b"\n\n" for block in blocks]
        events = []
        at = 0
        while found := _EVENT.match(text, at):
            events.append(found[0])
            at = found.end()
        self._rest = text[at:]
        return events

    @property
    def held(self) -> int:
        """Bytes of the event that is not complete."""
        return len(self._rest)

    def take_rest(self) -> bytes:
        """The bytes of the event that is not complete."""
        rest, self._rest = self._rest, b""
        return rest

    def data_of(self, raw: bytes) -> bytes:
        """The data of an event, its lines joined by LF."""
        if raw.startswith(b"data:") and raw.find(b"\n") == len(raw) - 2 and b"\r" not in raw:
            return raw[6:-2] if raw.startswith(b" ", 5) else raw[5:-2]
        return b"\n".join(_DATA.findall(raw))

    def with_data(self, raw: bytes, data: bytes) -> bytes:
        """A complete event with other data, in one line."""
        lines = [line for line in _DATA.finditer(raw) if line[1]]
        return self.closed(raw[: lines[0].start(1)] + data.replace(b"\n", b" ") + raw[lines[-1].end() :])

    def closed(self, raw: bytes) -> bytes:
        """The event with a blank line at its end."""
        return raw if raw.endswith(_BLANK_LINES) else raw + b"\n\n"

    def cut(self, raw: bytes) -> bytes:
        """The event up to the middle of its last line of data."""
        last = [line for line in _DATA.finditer(raw) if line[1]][-1]
        return raw[: (last.start(1) + last.end()) // 2]


class Lines:
    """Lines of JSON."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> list[bytes]:
        """The lines that end in `piece`."""
        text = self._rest + piece if self._rest else piece
        *lines, self._rest = text.split(b"\n")
        return [line + b"\n" for line in lines]

    @property
    def held(self) -> int:
        """Bytes of the line that is not complete."""
        return len(self._rest)

    def take_rest(self) -> bytes:
        """The bytes of the line that is not complete."""
        rest, self._rest = self._rest, b""
        return rest

    def data_of(self, raw: bytes) -> bytes:
        """The line without blanks around it."""
        return raw.strip()

    def with_data(self, raw: bytes, data: bytes) -> bytes:
        """A complete line with other data."""
        return self.closed(data.replace(b"\n", b" ") + raw[len(raw.rstrip()) :])

    def closed(self, raw: bytes) -> bytes:
        """The line with its end."""
        return raw if raw.endswith(b"\n") else raw + b"\n"

    def cut(self, raw: bytes) -> bytes:
        """The first half of the line."""
        return raw[: len(raw.rstrip()) // 2]


STREAMS: Mapping[Format, Callable[[], Stream]] = {"events": EventStream, "lines": Lines}


def format_of(answer: AnswerHead) -> Format | None:
    """The format of a good answer, or None if it cannot be edited."""
    if answer.status != 200 or answer.header("content-encoding").strip().lower() not in ("", "identity"):
        return None
    return _FORMATS.get(answer.header("content-type").partition(";")[0].strip().lower())


def keep_alive_of(answer: AnswerHead) -> bytes:
    """Bytes between two events that clients ignore, b"" for other formats."""
    found = format_of(answer)
    return b"" if found is None else _KEEP_ALIVES[found]
