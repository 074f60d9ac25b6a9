"""Parsers of server-sent events and of lines of JSON.

Server-sent events are parsed as in the HTML standard, 9.2.6. One addition: llama.cpp
has sent errors in a field of its own, `error: {...}`. The standard ignores unknown
fields, so other clients take such a failure for a clean end.
"""

from __future__ import annotations

from typing import NamedTuple

_BOM = b"\xef\xbb\xbf"
DONE = b"[DONE]"


class Event(NamedTuple):
    """One event with data. `is_error` is True if its type or field is `error`."""

    data: bytes
    is_error: bool = False

    @property
    def is_done(self) -> bool:
        return self.data.strip() == DONE


class EventReader:
    """Takes bytes in any pieces and returns the events that each piece completes."""

    __slots__ = ("_after_cr", "_before_bom", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._before_bom = True
        self._after_cr = False

    @property
    def is_between_events(self) -> bool:
        """True if the next byte begins an event."""
        return not (self._rest or self._after_cr or self._before_bom)

    def feed(self, piece: bytes) -> list[Event]:
        """Return the events that end in `piece`. An event ends with a blank line."""
        if self._after_cr or b"\r" in piece:
            piece = self._with_newlines(piece)
        text = self._rest + piece
        if self._before_bom:
            if _BOM.startswith(text):
                self._rest = text
                return []
            text = text.removeprefix(_BOM)
            self._before_bom = False
        *blocks, rest = text.split(b"\n\n")
        self._rest = rest.lstrip(b"\n")
        return [event for event in map(_event, blocks) if event is not None]

    def unfinished(self) -> Event | None:
        """The incomplete event at the end of the stream, which the standard drops."""
        return _event(self._rest)

    def _with_newlines(self, piece: bytes) -> bytes:
        """Normalize line ends to LF. A CR LF may be split between two pieces."""
        if self._after_cr:
            piece = piece.removeprefix(b"\n")
            self._after_cr = False
        if piece.endswith(b"\r"):
            self._after_cr = True
        return piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


class LineReader:
    """Takes bytes in any pieces and returns each line as an event."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    @property
    def is_between_events(self) -> bool:
        """True if the next byte begins a line."""
        return not self._rest

    def feed(self, piece: bytes) -> list[Event]:
        """Return the lines that end in `piece`. Blank lines are no events."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        return [Event(line) for line in map(bytes.strip, lines) if line]

    def unfinished(self) -> Event | None:
        """The last line, which lacks its end."""
        return Event(self._rest.strip()) if self._rest.strip() else None


def _event(block: bytes) -> Event | None:
    if block.startswith(b"data: ") and b"\n" not in block:
        return Event(block[6:])
    data: list[bytes] = []
    is_error = False
    for line in block.split(b"\n"):
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            data.append(value)
        elif name == b"event":
            is_error = value == b"error"
        elif name == b"error":
            data.append(value)
            is_error = True
    whole = b"\n".join(data)
    return Event(whole, is_error) if whole or is_error else None
