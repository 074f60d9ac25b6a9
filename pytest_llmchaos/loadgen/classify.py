"""Classification of one answer by its bytes.

A stream is complete only with a good finish reason, then `[DONE]`, and no error event.
Most clients take the first clean end for success and miss an upstream that died
halfway.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from email.utils import parsedate_to_datetime
from hashlib import sha256
from typing import NamedTuple, TypeVar

import msgspec

from pytest_llmchaos.loadgen.event_stream import Event, EventReader
from pytest_llmchaos.model import Outcome

# The outcome by finish reason. Any other reason is `corrupted`.
FINISH_REASONS: Mapping[str, Outcome] = {
    "stop": "ok",  # OpenAI and compatible servers
    "length": "ok",
    "tool_calls": "ok",
    "function_call": "ok",
    "eos_token": "ok",  # TGI
    "stop_sequence": "ok",
    "model_length": "ok",  # Mistral: the end of the context
    "repetition": "ok",  # vLLM: the model repeats itself
    "content_filter": "truncated",  # text was withheld
    "abort": "truncated",  # vLLM and SGLang: aborted by the server
    "error": "inband_error",
}
_BY_CLASS: tuple[tuple[int, Outcome], ...] = ((500, "http_5xx"), (400, "http_4xx"), (300, "http_3xx"))
# A longer wait means "never".
LONGEST_RETRY_S = 366 * 86_400.0
# The worst of several outcomes counts.
_WORST_FIRST: tuple[Outcome, ...] = ("inband_error", "corrupted", "truncated", "ok")


class _Delta(msgspec.Struct, frozen=True):
    """A piece of the answer, or the whole message. Each field is one channel."""

    content: str | None = None
    reasoning: str | None = None  # vLLM since 0.11, Ollama, OpenRouter
    reasoning_content: str | None = None  # DeepSeek, SGLang, llama.cpp, LiteLLM, older vLLM
    refusal: str | None = None
    tool_calls: list[object] | None = None
    function_call: dict[str, object] | None = None

    @property
    def is_in_other_channel(self) -> bool:
        return bool(self.reasoning or self.reasoning_content or self.tool_calls or self.refusal or self.function_call)


class _Choice(msgspec.Struct, frozen=True):
    """One choice. Azure's content filter events, which carry no text, lack `delta`."""

    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: str | None = None


class _Usage(msgspec.Struct, frozen=True):
    completion_tokens: int | None = None


class _Body(msgspec.Struct, frozen=True):
    """One event, or a whole answer.

    `kind` is "error" in errors of vLLM and SGLang that lack the field `error`.
    """

    id: str | None = None
    model: str | None = None
    choices: list[_Choice] | None = None
    error: object = None
    kind: object = msgspec.field(name="object", default=None)
    usage: _Usage | None = None

    @property
    def is_error(self) -> bool:
        return self.error not in (None, False, "") or self.kind == "error"


_decoder = msgspec.json.Decoder(_Body)
Parsed = TypeVar("Parsed")


class Expected(NamedTuple):
    """The text and model name of the only correct answer."""

    text: str
    model: str


class Verdict(NamedTuple):
    """The outcome of an answer and its number of tokens."""

    outcome: Outcome
    tokens: int


def of_status(status: int) -> Outcome | None:
    """The outcome of an HTTP error or redirect, or None for an answer that may be good.

    Redirects are not followed, because the service at the given address did not answer.
    """
    if status == 429:
        return "http_429"
    for least, outcome in _BY_CLASS:
        if status >= least:
            return outcome
    return None


def retry_after_s(value: bytes, now_unix_s: float) -> float | None:
    """Seconds to wait by a Retry-After header, or None if it is invalid.

    The value is a number or a date (RFC 9110, 10.2.3).
    """
    text = value.strip().decode("latin-1")
    if text.isascii() and text.isdigit():
        return min(float(text), LONGEST_RETRY_S)
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    return min(max(0.0, date.timestamp() - now_unix_s), LONGEST_RETRY_S)


def is_first_token(event: Event, *, any_channel: bool) -> bool:
    """True if the event has a token, in any channel or only in the answer's text."""
    try:
        choices = _body(event.data).choices or ()
    except ValueError:
        return False
    deltas = [choice.delta for choice in choices if choice.delta is not None]
    return any(delta.content or (any_channel and delta.is_in_other_channel) for delta in deltas)


def of_stream(body: bytes, expected: Expected | None = None) -> Verdict:
    """Classify a stream of chat completion chunks.

    Events after `[DONE]` are ignored.
    """
    chunks, seen, is_done = _chunks_of(body)
    text: list[str] = []
    tokens = 0
    finished: set[Outcome] = set()
    for chunk in chunks:
        for choice in chunk.choices or ():
            delta = choice.delta
            if delta is not None:
                if delta.content:
                    text.append(delta.content)
                tokens += bool(delta.content or delta.is_in_other_channel)
            if choice.finish_reason:
                finished.add(FINISH_REASONS.get(choice.finish_reason, "corrupted"))
    seen |= finished
    if not (is_done and finished):
        seen.add("truncated")
    if expected is not None and _is_foreign(chunks, expected):
        seen.add("corrupted")
    worst = worst_of(seen)
    return Verdict(_compare("".join(text), expected) if worst == "ok" else worst, tokens)


def _chunks_of(body: bytes) -> tuple[list[_Body], set[Outcome], bool]:
    """The chunks before `[DONE]`, bad outcomes, and True if `[DONE]` came."""
    reader = EventReader()
    events = reader.feed(body)
    last = reader.unfinished()
    if last is not None and (last.is_done or _is_error(last)):
        # An unfinished event is ignored, but these two are complete.
        events.append(last)
    chunks: list[_Body] = []
    wrong: set[Outcome] = set()
    for event in events:
        if not event.data.startswith(b"{") and event.is_done:
            return chunks, wrong, True
        try:
            chunk = _body(event.data)
        except ValueError:
            wrong.add("inband_error" if event.is_error else "corrupted")
            continue
        chunks.append(chunk)
        if event.is_error or ((chunk.error is not None or chunk.kind is not None) and chunk.is_error):
            wrong.add("inband_error")
    return chunks, wrong, False


def of_whole(body: bytes, expected: Expected | None = None) -> Verdict:
    """Classify an answer that is not streamed."""
    try:
        answer = _body(body)
    except ValueError:
        return Verdict("corrupted", 0)
    if answer.is_error:
        return Verdict("inband_error", 0)
    message = answer.choices[0].message if answer.choices else None
    if not answer.choices or message is None:
        return Verdict("corrupted", 0)
    tokens = (answer.usage.completion_tokens if answer.usage is not None else None) or 0
    reason = answer.choices[0].finish_reason
    if not reason:
        return Verdict("truncated", tokens)
    outcome: Outcome = FINISH_REASONS.get(reason, "corrupted")
    if expected is not None and _is_foreign([answer], expected):
        outcome = "corrupted"
    return Verdict(_compare(message.content or "", expected) if outcome == "ok" else outcome, tokens)


def expected_of(check: str | None, prompt: str, max_tokens: int, model: str) -> Expected | None:
    """The expected answer, or None without a check."""
    if check is None:
        return None
    text = "".join(sha256(f"{prompt}\x1f{i}".encode()).hexdigest()[:6] + " " for i in range(max_tokens))
    return Expected(text, model)


def _is_foreign(chunks: Sequence[_Body], expected: Expected) -> bool:
    """True if a chunk belongs to another model or answer, or has a second channel.

    A backend with expected answers uses only `content`. Some chunks lack id and model.
    """
    ids = {chunk.id for chunk in chunks if chunk.id}
    models = {chunk.model for chunk in chunks if chunk.model}
    messages = (m for chunk in chunks for c in chunk.choices or () for m in (c.delta, c.message) if m is not None)
    return len(ids) > 1 or not models <= {expected.model} or any(m.is_in_other_channel for m in messages)


def parse(data: bytes, decoder: msgspec.json.Decoder[Parsed]) -> Parsed:
    """Parse an event. Raises ValueError for invalid JSON or a field of another type."""
    try:
        return decoder.decode(data)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        # A split emoji is half of a surrogate pair, which only Python's parser accepts.
        try:
            return msgspec.convert(json.loads(data.decode()), decoder.type)
        except RecursionError as error:
            raise ValueError(str(error)) from error
    except RecursionError as error:
        raise ValueError(str(error)) from error


def worst_of(seen: Collection[Outcome]) -> Outcome:
    """The worst of several outcomes of one answer."""
    return next((outcome for outcome in _WORST_FIRST if outcome in seen), "ok")


def _body(data: bytes) -> _Body:
    return parse(data, _decoder)


def _is_error(event: Event) -> bool:
    try:
        return _body(event.data).is_error or event.is_error
    except ValueError:
        return False


def _compare(text: str, expected: Expected | None) -> Outcome:
    if expected is None or text == expected.text:
        return "ok"
    # A prefix with a clean end is a hidden truncation, anything else a wrong answer.
    return "truncated" if expected.text.startswith(text) else "corrupted"
