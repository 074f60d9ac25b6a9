"""Scanner of a streamed completion's bytes.

It finds the ends of events and decides whether the answer is complete. Tokens are not
parsed: each event gets a few byte searches, and only a possible first token, end or
error is decoded.
"""

import json
from typing import Any

from lab_api.tally import Usage

DONE = b"data: [DONE]\n\n"
EVENT_MAX_BYTES = 2**20
_REASON = b'"finish_reason"'
_BOM = b"\xef\xbb\xbf"
# Fields of an event without data.
_OTHER_FIELDS = (b"event", b"id", b"retry")
# Finish reasons of a server that abandoned the answer.
GIVEN_UP = ("abort", "error")
_TEXT_FIELDS = ("content", "reasoning_content", "reasoning", "refusal", "tool_calls", "function_call")


class Scanner:
    """Takes chunks, returns whole data events, and keeps the state of the stream.

    Comments, `[DONE]`, an error event and everything after it are not returned: the
    relay writes these itself.
    """

    __slots__ = (
        *("_after_cr", "_begun", "_tail", "corrupted", "done", "error", "events", "finished", "silent", "started"),
        "usage",
    )

    def __init__(self) -> None:
        self._tail = b""
        self._after_cr = self._begun = False
        self.started = False  # a first token was seen
        self.finished = False  # a finish_reason was seen
        self.done = False
        self.error: str | None = None  # message of an in-band error
        self.corrupted: str | None = None  # reason to stop reading the stream
        self.events = 0  # data events returned, one per token on most servers
        self.silent = 0  # those that open or end an answer, without a token
        self.usage: Usage | None = None  # as the server counted

    @property
    def complete(self) -> bool:
        """The only good end: a finish_reason, then [DONE], and no error."""
        return self.done and self.finished and self.error is None and self.corrupted is None

    @property
    def tokens(self) -> int:
        """Events with a token."""
        return max(0, self.events - self.silent)

    @property
    def ended(self) -> bool:
        """True if later bytes cannot matter."""
        return self.done or self.error is not None or self.corrupted is not None

    def feed(self, chunk: bytes) -> bytes:
        """The whole events that `chunk` completes, ready to forward. May be empty."""
        if self.ended:
            return b""
        if self._after_cr or b"\r" in chunk:
            chunk = self._with_newlines(chunk)
        if self._tail:
            chunk = self._tail + chunk
            self._tail = b""
        end = chunk.rfind(b"\n\n") + 2
        if end == 1:
            end = 0
        if end != len(chunk):
            self._tail = chunk[end:]
            chunk = chunk[:end]
            if len(self._tail) > EVENT_MAX_BYTES:
                self.corrupted = f"an event is longer than {EVENT_MAX_BYTES} bytes"
        if not chunk:
            return b""
        events = chunk.count(b"\n\n")
        if self.started and not self.finished and _ordinary(chunk, events):
            self.events += events
            return chunk
        return self._examined(chunk)

    def _with_newlines(self, chunk: bytes) -> bytes:
        """LF for each line end.

        A CR at the end counts as one. An LF at the start of the next chunk belongs to
        it.
        """
        if self._after_cr:
            chunk = chunk.removeprefix(b"\n")
        self._after_cr = chunk.endswith(b"\r")
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _examined(self, chunk: bytes) -> bytes:
        if not self._begun:
            chunk = chunk.removeprefix(_BOM)
            self._begun = True
        kept: list[bytes] = []
        for event in chunk.split(b"\n\n"):
            data = _data_of(event)
            if data is None:
                continue
            if data == b"[DONE]":
                self.done = True
                break
            if not self._understood(event, data):
                break
            kept.append(event)
        self.events += len(kept)
        return b"\n\n".join([*kept, b""]) if kept else b""

    def _understood(self, event: bytes, data: bytes) -> bool:
        """Record the event's meaning. False if the stream ends with it."""
        try:
            said = json.loads(data)
        except (ValueError, RecursionError):
            said = None
        if any(line.startswith((b"error:", b"event: error", b"event:error")) for line in event.split(b"\n")):
            self.error = _error_text(said if said is not None else data.decode(errors="replace"))
            return False
        if not isinstance(said, dict):
            self.corrupted = f"an event is not a JSON object: {data[:60]!r}"
            return False
        if said.get("error") not in (None, False, "") or said.get("object") == "error":
            self.error = _error_text(said.get("error") or said.get("message"))
            return False
        choices = said.get("choices")
        has_token = False
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                reason = choice.get("finish_reason")
                if reason in GIVEN_UP:
                    self.error = f"finish_reason {reason}"
                    return False
                self.finished |= bool(reason)
                has_token |= _says_something(choice)
                self.started |= self.finished or has_token
        self.silent += not has_token
        if (usage := said.get("usage")) is not None:
            self.usage = Usage.of(usage) or self.usage
        return True


def _ordinary(chunk: bytes, events: int) -> bool:
    """True if every event is one data line of plain JSON.

    It neither ends the answer nor reports an error.
    """
    return (
        chunk.startswith(b"data: {")
        and chunk.count(b"}\n\ndata: {") == events - 1
        and chunk.endswith(b"}\n\n")
        and chunk.count(_REASON) == chunk.count(b'"finish_reason":null') + chunk.count(b'"finish_reason": null')
        and b'"error"' not in chunk
    )


def _data_of(event: bytes) -> bytes | None:
    """The event's data, or None for a comment.

    llama.cpp has used the form `error: {...}`.
    """
    lines = [line for line in event.split(b"\n") if line and line.partition(b":")[0] not in (b"", *_OTHER_FIELDS)]
    if not lines:
        return None
    data = [line.split(b":", 1)[1].strip() for line in lines if line.startswith((b"data:", b"error:"))]
    return b"\n".join(data) if data else b"\n".join(lines)


def _says_something(choice: dict[str, Any]) -> bool:
    delta = choice.get("delta")
    return isinstance(delta, dict) and any(delta.get(name) for name in _TEXT_FIELDS)


def _error_text(error: object) -> str:
    message = error.get("message") if isinstance(error, dict) else error
    return (message if isinstance(message, str) else json.dumps(error))[:300]
