"""Editors of one answer: at a moment, at each event, or of a whole body."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from fault_agent.acts import Act, Cut, Finish, Pause, Send
from fault_agent.faults.dialects import FINISH, TOKEN, Fields, read, text_of
from fault_agent.faults.events import LONGEST_BODY, LONGEST_EVENT, Stream

if TYPE_CHECKING:
    from collections.abc import Callable


class Editor(Protocol):
    """Changes one answer. The service's body goes in, acts of the relay come out."""

    def feed(self, piece: bytes) -> list[Act]:
        """Acts for the next bytes of the body, in pieces of any size."""

    def end(self) -> list[Act]:
        """Acts at the end of the service's body."""

    def release(self) -> bytes:
        """Bytes that wait in it. The fault has ended, so all that follows passes."""


class Moment(NamedTuple):
    """The event at which a fault acts.

    Attributes:
        raw: its bytes.
        data: its data.
        fields: the decoded data.
        tokens: number of tokens sent before it.
        text: text sent before it, if the editor keeps it.
    """

    raw: bytes
    data: bytes
    fields: Fields
    tokens: int
    text: str


class AtMoment:
    """Passes events until its moment, acts, and passes the rest.

    The moment is the first event of a wanted meaning after a number of tokens. A stream
    without it passes unchanged.

    Args:
        stream: cuts the body.
        act: acts instead of the event, None for another moment. A Finish or Cut must
            be its last act.
        hit: called when the editor acts.
        after_tokens: number of tokens that pass.
        wanted: meanings of the event, as bits.
        unwanted: meanings that it must not have, as bits.
        keeps_text: True if `act` needs the text.
    """

    __slots__ = ("_act", "_after", "_hit", "_is_over", "_passes", "_stream", "_text", "_tokens", "_unwanted", "_wanted")

    def __init__(
        self,
        stream: Stream,
        act: Callable[[Moment], list[Act]],
        hit: Callable[[], None],
        *,
        after_tokens: int = 0,
        wanted: int,
        unwanted: int = 0,
        keeps_text: bool = False,
    ) -> None:
        self._stream, self._act, self._hit = stream, act, hit
        self._after, self._wanted, self._unwanted = after_tokens, wanted, unwanted
        self._text: list[str] | None = [] if keeps_text else None
        self._tokens = 0
        self._passes = self._is_over = False

    def feed(self, piece: bytes) -> list[Act]:
        """Acts for the next bytes of the body."""
        if self._is_over:
            return []
        if self._passes:
            return _send(piece)
        return self._edit(self._stream.feed(piece))

    def end(self) -> list[Act]:
        """Acts at the end of the body."""
        if self._is_over or not self._stream.held:
            return []
        return self._edit([self._stream.take_rest()])

    def release(self) -> bytes:
        """Bytes of the event that is not complete."""
        return self._stream.take_rest()

    def _edit(self, events: list[bytes]) -> list[Act]:
        for place, raw in enumerate(events):
            if len(raw) > LONGEST_EVENT:
                self._passes = True
                break
            data = self._stream.data_of(raw)
            meaning, fields = read(data)
            if meaning & self._wanted and self._tokens >= self._after and not meaning & self._unwanted:
                return self._act_at(place, events, data, fields)
            if meaning & TOKEN:
                self._tokens += 1
                if self._text is not None:
                    self._text.append(text_of(fields))
        if self._stream.held > LONGEST_EVENT:
            self._passes = True
        if self._passes:
            events.append(self._stream.take_rest())
        return _send(b"".join(events))

    def _act_at(self, place: int, events: list[bytes], data: bytes, fields: Fields) -> list[Act]:
        moment = Moment(events[place], data, fields, self._tokens, "".join(self._text or ()))
        acts = self._act(moment)
        self._hit()
        self._passes = True
        self._is_over = isinstance(acts[-1], Finish | Cut)
        rest = self._stream.take_rest()
        after = [] if self._is_over else _send(b"".join(events[place + 1 :]) + rest)
        return [*_send(b"".join(events[:place])), *acts, *after]


class EachEvent:
    """Changes each event. `change` returns the same object for an unchanged one."""

    __slots__ = ("_change", "_hit", "_is_hit", "_passes", "_stream")

    def __init__(
        self, stream: Stream, change: Callable[[bytes, bytes, int, Fields], bytes], hit: Callable[[], None]
    ) -> None:
        self._stream, self._change, self._hit = stream, change, hit
        self._is_hit = self._passes = False

    def feed(self, piece: bytes) -> list[Act]:
        """Acts for the next bytes of the body."""
        return _send(piece) if self._passes else self._edit(self._stream.feed(piece))

    def end(self) -> list[Act]:
        """Acts at the end of the body."""
        return self._edit([self._stream.take_rest()]) if self._stream.held else []

    def release(self) -> bytes:
        """Bytes of the event that is not complete."""
        return self._stream.take_rest()

    def _edit(self, events: list[bytes]) -> list[Act]:
        for place, raw in enumerate(events):
            if len(raw) > LONGEST_EVENT:
                self._passes = True
                break
            data = self._stream.data_of(raw)
            meaning, fields = read(data)
            if not fields:
                continue
            changed = self._change(raw, data, meaning, fields)
            if changed is not raw:
                events[place] = changed
                if not self._is_hit:
                    self._is_hit = True
                    self._hit()
        if self._passes or self._stream.held > LONGEST_EVENT:
            self._passes = True
            events.append(self._stream.take_rest())
        return _send(b"".join(events))


class Swap:
    """Sends one token after the next one. Two tokens must follow, before the finish."""

    __slots__ = ("_after", "_first", "_hit", "_passes", "_stream", "_tokens")

    def __init__(self, stream: Stream, hit: Callable[[], None], *, after_tokens: int) -> None:
        self._stream, self._hit, self._after = stream, hit, after_tokens
        self._first = b""  # the token that waits
        self._tokens = 0
        self._passes = False

    def feed(self, piece: bytes) -> list[Act]:
        """Acts for the next bytes of the body."""
        return _send(piece) if self._passes else self._edit(self._stream.feed(piece))

    def end(self) -> list[Act]:
        """Acts at the end of the body."""
        acts = self._edit([self._stream.take_rest()])
        return acts if self._passes else [*acts, *_send(self._first)]

    def release(self) -> bytes:
        """The token that waits, and the event that is not complete."""
        held = b"" if self._passes else self._first + self._stream.take_rest()
        self._passes = True
        return held

    def _edit(self, events: list[bytes]) -> list[Act]:
        sent: list[bytes] = []
        for raw in events:
            if self._passes:
                sent.append(raw)
                continue
            meaning = read(self._stream.data_of(raw)).meaning if len(raw) <= LONGEST_EVENT else FINISH
            if not meaning:
                sent.append(raw)
            elif meaning != TOKEN:
                sent += (self._first, raw)
                self._passes = True
            elif self._first:
                sent += (self._stream.closed(raw), self._first)
                self._hit()
                self._passes = True
            elif self._tokens == self._after:
                self._first = raw
            else:
                self._tokens += 1
                sent.append(raw)
        if self._stream.held > LONGEST_EVENT and not self._passes:
            sent.append(self._first)
            self._passes = True
        if self._passes:
            sent.append(self._stream.take_rest())
        return _send(b"".join(sent))


class Whole:
    """Changes a JSON body that arrived as a whole. `change` returns None to pass it."""

    __slots__ = ("_change", "_hit", "_pieces", "_size")

    def __init__(self, change: Callable[[bytes], list[Act] | None], hit: Callable[[], None]) -> None:
        self._change, self._hit = change, hit
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, piece: bytes) -> list[Act]:
        """Acts for the next bytes of the body."""
        self._size += len(piece)
        self._pieces.append(piece)
        return self._take() if self._size > LONGEST_BODY else []

    def end(self) -> list[Act]:
        """Acts at the end of the body."""
        if not self._pieces or self._size > LONGEST_BODY:
            return []
        body = b"".join(self._pieces)
        acts = self._change(body)
        if acts is None:
            return _send(body)
        self._hit()
        return acts

    def release(self) -> bytes:
        """The body so far."""
        body = b"".join(self._pieces)
        self._pieces.clear()
        return body

    def _take(self) -> list[Act]:
        body = b"".join(self._pieces)
        self._pieces.clear()
        return _send(body)


class PauseFirst:
    """Waits before the first byte of a body."""

    __slots__ = ("_hit", "_pause")

    def __init__(self, pause: Pause, hit: Callable[[], None]) -> None:
        self._pause: Pause | None = pause
        self._hit = hit

    def feed(self, piece: bytes) -> list[Act]:
        """Acts for the next bytes of the body."""
        if self._pause is None or not piece:
            return _send(piece)
        pause, self._pause = self._pause, None
        self._hit()
        return [pause, Send(piece)]

    def end(self) -> list[Act]:
        """Acts at the end of the body."""
        return []

    def release(self) -> bytes:
        """No bytes: it holds none back."""
        return b""


class PauseLast:
    """Waits after the last byte of a body, before its end."""

    __slots__ = ("_hit",)

    def __init__(self, hit: Callable[[], None]) -> None:
        self._hit = hit

    def feed(self, piece: bytes) -> list[Act]:
        """Acts for the next bytes of the body."""
        return _send(piece)

    def end(self) -> list[Act]:
        """Acts at the end of the body."""
        self._hit()
        return [Pause(None)]

    def release(self) -> bytes:
        """No bytes: it holds none back."""
        return b""


class Drip:
    """Sends a few bytes at a time, with a pause between two pieces."""

    __slots__ = ("_hit", "_is_hit", "_pause", "_room", "_size")

    def __init__(self, size: int, pause: Pause, hit: Callable[[], None]) -> None:
        self._size, self._pause, self._hit = size, pause, hit
        self._room = size  # bytes before the next pause
        self._is_hit = False

    def feed(self, piece: bytes) -> list[Act]:
        """Acts for the next bytes of the body."""
        if piece and not self._is_hit:
            self._is_hit = True
            self._hit()
        acts: list[Act] = []
        at = 0
        while at < len(piece):
            if not self._room:
                acts.append(self._pause)
                self._room = self._size
            part = piece[at : at + self._room]
            acts.append(_BYTES[part[0]] if len(part) == 1 else Send(part))
            at += len(part)
            self._room -= len(part)
        return acts

    def end(self) -> list[Act]:
        """Acts at the end of the body."""
        return []

    def release(self) -> bytes:
        """No bytes: it holds none back."""
        return b""


# Each byte as an act, because a drip of a large piece would allocate too many.
_BYTES = tuple(Send(bytes([byte])) for byte in range(256))


def _send(data: bytes) -> list[Act]:
    return [Send(data)] if data else []
