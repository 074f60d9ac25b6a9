"""Dialects of streamed answers, each classified by its bytes.

Chat completions are classified in `classify`. Other dialects are read by events.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import msgspec

from pytest_llmchaos.loadgen import classify
from pytest_llmchaos.loadgen.classify import FINISH_REASONS, Expected, Verdict
from pytest_llmchaos.loadgen.event_stream import Event, EventReader, LineReader
from pytest_llmchaos.model import Outcome
from pytest_llmchaos.subject.requests import Dialect


class Reader(Protocol):
    """Takes bytes in any pieces and returns the events that each piece completes."""

    @property
    def is_between_events(self) -> bool: ...
    def feed(self, piece: bytes) -> list[Event]: ...
    def unfinished(self) -> Event | None: ...


class IsFirst(Protocol):
    """True if the event has a token, in any channel or only in the answer's text."""

    def __call__(self, event: Event, *, any_channel: bool) -> bool: ...


@dataclass(frozen=True, kw_only=True)
class Format:
    """One dialect of streams.

    Attributes:
        reader: creates a reader of events.
        is_first_token: finds the first token.
        is_end: True for the event after which nothing of the answer comes.
        is_usage: True for an event that has the numbers of tokens and nothing of the
            answer.
        of_stream: classifies a whole stream.
        ends_with_done: True if the end is `[DONE]`, which is found without parsing.
        media_type: `Content-Type` of such a stream.
    """

    reader: Callable[[], Reader]
    is_first_token: IsFirst
    is_end: Callable[[Event], bool]
    of_stream: Callable[[bytes, Expected | None], Verdict]
    is_usage: Callable[[Event], bool] = lambda _: False
    ends_with_done: bool = True
    media_type: str = "text/event-stream"


class Piece(NamedTuple):
    """One event of a stream.

    Attributes:
        text: a part of the answer's own text.
        is_other: True if it has a token in another channel.
        finish: the outcome that it announces, or None.
        is_error: True for an error.
        is_last: True if nothing of the answer comes after it.
    """

    text: str = ""
    is_other: bool = False
    finish: Outcome | None = None
    is_error: bool = False
    is_last: bool = False


class _Adapter:
    """A dialect whose events are read by one function.

    It raises ValueError for an event that is not of the dialect.
    """

    def __init__(self, read: Callable[[bytes], Piece], reader: Callable[[], Reader]) -> None:
        self._read, self._reader = read, reader

    def is_first_token(self, event: Event, *, any_channel: bool) -> bool:
        try:
            piece = self._read(event.data)
        except ValueError:
            return False
        return bool(piece.text) or (any_channel and piece.is_other)

    def is_end(self, event: Event) -> bool:
        try:
            return event.is_done or self._read(event.data).is_last
        except ValueError:
            return False

    def of_stream(self, body: bytes, expected: Expected | None = None) -> Verdict:  # noqa: ARG002 - other dialects' signature
        """Classify a stream: good only with its last event, a finish and no error."""
        reader = self._reader()
        events = reader.feed(body)
        last = reader.unfinished()
        if last is not None and (self.is_end(last) or self._is_error(last)):
            events.append(last)
        seen: set[Outcome] = set()
        tokens, is_finished, is_over = 0, False, False
        for event in events:
            if event.is_done:
                is_over = True
                break
            try:
                piece = self._read(event.data)
            except ValueError:
                seen.add("inband_error" if event.is_error else "corrupted")
                continue
            tokens += bool(piece.text or piece.is_other)
            if piece.is_error or event.is_error:
                seen.add("inband_error")
            if piece.finish is not None:
                is_finished = True
                seen.add(piece.finish)
            if piece.is_last:
                is_over = True
                break
        if not (is_over and is_finished):
            seen.add("truncated")
        return Verdict(classify.worst_of(seen), tokens)

    def _is_error(self, event: Event) -> bool:
        try:
            return event.is_error or self._read(event.data).is_error
        except ValueError:
            return event.is_error


class _CountsChoice(msgspec.Struct, frozen=True):
    finish_reason: str | None = None


class _Counts(msgspec.Struct, frozen=True):
    """An event with `usage`. Some servers give it a choice without content."""

    choices: list[_CountsChoice] | None = None
    usage: dict[str, object] | None = None


class _TextChoice(msgspec.Struct, frozen=True):
    text: str | None = None
    finish_reason: str | None = None


class _TextChunk(msgspec.Struct, frozen=True):
    choices: list[_TextChoice] | None = None
    error: object = None
    kind: object = msgspec.field(name="object", default=None)


class _Message(msgspec.Struct, frozen=True):
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[object] | None = None


class _OllamaLine(msgspec.Struct, frozen=True):
    """A line of `/api/chat`, or of `/api/generate`, which has `response`."""

    message: _Message | None = None
    response: str | None = None
    thinking: str | None = None
    done: bool = False
    done_reason: str | None = None
    error: object = None


class _TgiToken(msgspec.Struct, frozen=True):
    text: str | None = None
    special: bool = False


class _TgiDetails(msgspec.Struct, frozen=True):
    finish_reason: str | None = None


class _TgiEvent(msgspec.Struct, frozen=True):
    token: _TgiToken | None = None
    generated_text: str | None = None
    details: _TgiDetails | None = None
    error: object = None


_counts = msgspec.json.Decoder(_Counts)
_text_chunk = msgspec.json.Decoder(_TextChunk)
_ollama_line = msgspec.json.Decoder(_OllamaLine)
_tgi_event = msgspec.json.Decoder(_TgiEvent)


def _of_completions(data: bytes) -> Piece:
    chunk = classify.parse(data, _text_chunk)
    choices = chunk.choices or ()
    reasons = [choice.finish_reason for choice in choices if choice.finish_reason]
    return Piece(
        text="".join(choice.text or "" for choice in choices),
        finish=classify.worst_of([_outcome(reason) for reason in reasons]) if reasons else None,
        is_error=chunk.error not in (None, False, "") or chunk.kind == "error",
    )


def _of_ollama(data: bytes) -> Piece:
    line = classify.parse(data, _ollama_line)
    message = line.message or _Message()
    return Piece(
        text=message.content or line.response or "",
        is_other=bool(message.thinking or line.thinking or message.tool_calls),
        # Older versions give no reason for a good end.
        finish=_outcome(line.done_reason or "stop") if line.done else None,
        is_error=line.error not in (None, False, ""),
        is_last=line.done,
    )


def _of_tgi(data: bytes) -> Piece:
    event = classify.parse(data, _tgi_event)
    is_last = event.generated_text is not None
    token = event.token or _TgiToken()
    return Piece(
        text="" if token.special else token.text or "",
        finish=_outcome((event.details and event.details.finish_reason) or "stop") if is_last else None,
        is_error=event.error not in (None, False, ""),
        is_last=is_last,
    )


def _outcome(reason: str) -> Outcome:
    return FINISH_REASONS.get(reason, "corrupted")


def _is_done(event: Event) -> bool:
    return event.is_done


def _is_usage(event: Event, is_token: IsFirst) -> bool:
    try:
        chunk = classify.parse(event.data, _counts)
    except ValueError:
        return False
    is_finish = any(choice.finish_reason for choice in chunk.choices or ())
    return chunk.usage is not None and not is_finish and not is_token(event, any_channel=True)


_completions = _Adapter(_of_completions, EventReader)
_ollama = _Adapter(_of_ollama, LineReader)
_tgi = _Adapter(_of_tgi, EventReader)
_LINES = Format(
    reader=LineReader,
    is_first_token=_ollama.is_first_token,
    is_end=_ollama.is_end,
    of_stream=_ollama.of_stream,
    ends_with_done=False,
    media_type="application/x-ndjson",
)
FORMATS: Mapping[Dialect, Format] = {
    "chat": Format(
        reader=EventReader,
        is_first_token=classify.is_first_token,
        is_end=_is_done,
        of_stream=classify.of_stream,
        is_usage=lambda event: _is_usage(event, classify.is_first_token),
    ),
    "completions": Format(
        reader=EventReader,
        is_first_token=_completions.is_first_token,
        is_end=_is_done,
        of_stream=_completions.of_stream,
        is_usage=lambda event: _is_usage(event, _completions.is_first_token),
    ),
    "ollama": _LINES,
    "ollama-generate": _LINES,
    "tgi": Format(
        reader=EventReader,
        is_first_token=_tgi.is_first_token,
        is_end=_tgi.is_end,
        of_stream=_tgi.of_stream,
        ends_with_done=False,
    ),
}
