"""The part of an answer that a client has, read from its events."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

# Fields that every event of one answer repeats.
REPEATED = ("id", "object", "created", "model", "system_fingerprint", "service_tier")
CALLS = ("tool_calls", "function_call")
# Channels besides the text and the calls. A replica would begin them anew.
CHANNELS = ("reasoning_content", "reasoning", "refusal", "audio")


class NotContinuableError(Exception):
    """An answer that no other replica can continue faithfully, with the reason."""


@dataclass(frozen=True, kw_only=True)
class Emitted:
    """The part of an answer that the client has received."""

    repeated: dict[str, object]
    text: str
    tokens: int  # with text, one for each event unless a usage counts them
    prompt_tokens: int | None  # by a usage among the events
    finished: bool
    counted: bool  # the usage of the whole answer was sent


def read(events: bytes) -> Emitted:
    """Read whole events.

    An answer that was finished may have tool calls, because nothing of it is requested.

    Raises:
        NotContinuableError: they contain more than the text of one answer.
    """
    called = ""
    repeated: dict[str, object] = {}
    pieces: list[str] = []
    counted = tokens = 0
    prompt_tokens = None
    finished = whole = False
    for event in parsed(events):
        choices = choices_of(event)
        if choices and not repeated:
            repeated = {name: event[name] for name in REPEATED if name in event}
        content = ""
        for choice in choices:
            delta = delta_of(choice)
            require_text(choice, delta, CHANNELS)
            called = next(filter(delta.get, CALLS), called)
            content = delta.get("content") or ""
            counted += _is_token(choice, delta)
            finished |= bool(choice.get("finish_reason"))
        if isinstance(usage := event.get("usage"), dict):
            prompt_tokens = whole_number(usage.get("prompt_tokens"), prompt_tokens)
            counted = whole_number(usage.get("completion_tokens"), counted)
            whole |= not choices
        if content:
            pieces.append(content)
            tokens = counted  # later tokens without text are not in the prompt of the rest, so they come again
    if called and not finished:
        raise NotContinuableError(f"its events have {called}")
    return Emitted(
        repeated=repeated,
        text=_joined(pieces),
        tokens=tokens,
        prompt_tokens=prompt_tokens,
        finished=finished,
        counted=whole,
    )


def parsed(events: bytes) -> Iterator[dict[str, Any]]:
    """The data of whole events, as the scanner forwards them."""
    for event in events.split(b"\n\n"):
        data = b"\n".join(line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:"))
        if not data:
            continue
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise NotContinuableError("an event is not JSON") from error
        if not isinstance(value, dict):
            raise NotContinuableError("an event is not a JSON object")
        yield value


def choices_of(event: dict[str, Any]) -> list[dict[str, Any]]:
    choices = event.get("choices")
    return [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []


def delta_of(choice: dict[str, Any]) -> dict[str, Any]:
    delta = choice.get("delta")
    return delta if isinstance(delta, dict) else {}


def require_text(choice: dict[str, Any], delta: dict[str, Any], channels: tuple[str, ...]) -> None:
    """Check that an event contains nothing in these channels, and one choice."""
    if choice.get("index", 0) != 0:
        raise NotContinuableError("it has more than one choice")
    if choice.get("logprobs"):
        raise NotContinuableError("its events have logprobs")
    if not isinstance(delta.get("content"), str | None):
        raise NotContinuableError("its content is not text")
    for name in channels:
        if delta.get(name):
            raise NotContinuableError(f"its events have {name}")


def whole_number(value: object, default: Any) -> Any:
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def _is_token(choice: dict[str, Any], delta: dict[str, Any]) -> bool:
    """True for text, and for a token that has no text yet.

    An event without text that opens or ends the answer is not a token.
    """
    opens_or_ends = "role" in delta or bool(choice.get("finish_reason"))
    return bool(delta.get("content")) or (delta.get("content") == "" and not opens_or_ends)


def _joined(pieces: list[str]) -> str:
    """The text. Halves of a character that came in two events become one."""
    try:
        return "".join(pieces).encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError as error:
        raise NotContinuableError("it was cut inside a character") from error
