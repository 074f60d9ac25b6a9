"""What became of one answer, from its bytes. Pure.

A stream is complete only with a good finish reason, then `[DONE]`, and no error among its events: most clients take the
first clean end for success, and so miss every upstream that died in mid-sentence.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from hashlib import sha256
from typing import NamedTuple

import msgspec

from pytest_llmchaos.loadgen.event_stream import Event, EventReader
from pytest_llmchaos.model import Outcome

# What an answer with this finish reason is called. Any other word is `corrupted`: an end that this table does not know.
FINISH_REASONS: Mapping[str, Outcome] = {
    "stop": "ok",  # OpenAI and all that speak its API
    "length": "ok",
    "tool_calls": "ok",
    "function_call": "ok",
    "eos_token": "ok",  # TGI
    "stop_sequence": "ok",
    "model_length": "ok",  # Mistral: the end of the context
    "repetition": "ok",  # vLLM: it found the model in a loop
    "content_filter": "truncated",  # text was withheld
    "abort": "truncated",  # vLLM and SGLang: given up by the server
    "error": "inband_error",
}
_BY_CLASS: tuple[tuple[int, Outcome], ...] = ((500, "http_5xx"), (400, "http_4xx"), (300, "http_3xx"))
# A server that asks for more means "never".
LONGEST_RETRY_S = 366 * 86_400.0
# The worst of several decides.
_WORST_FIRST: tuple[Outcome, ...] = ("inband_error", "corrupted", "truncated", "ok")


class _Delta(msgspec.Struct, frozen=True):
    """What one event adds to the answer, or the whole message. Each field is one channel."""

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
    """`delta` is missing or null in Azure's content filter events, which carry no text."""

    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: str | None = None


class _Usage(msgspec.Struct, frozen=True):
    completion_tokens: int | None = None


class _Body(msgspec.Struct, frozen=True):
    """One event, or a whole answer. `kind` is "error" in errors of vLLM and SGLang that lack the field `error`."""

    id: str | None = None
    model: str | None = None
    choices: list[_Choice] | None = None
    error: object = None
    kind: object = msgspec.field(name="object", default=None)
    usage: _Usage | None = None

    @property
    def is_error(self) -> bool:
        return self.error not in (None, False, "") or self.kind == "error"


_decode = msgspec.json.Decoder(_Body).decode


class Expected(NamedTuple):
    """The only right answer, where the backend is one that has it: what it says, and the model that it names."""

    text: str
    model: str


class Verdict(NamedTuple):
    outcome: Outcome
    tokens: int


def of_status(status: int) -> Outcome | None:
    """The outcome of a refused or redirected request; None for an answer that may be good.

    Redirects are not followed: the address that clients were given does not serve them.
    """
    if status == 429:
        return "http_429"
    for least, outcome in _BY_CLASS:
        if status >= least:
            return outcome
    return None


def retry_after_s(value: bytes, now_unix_s: float) -> float | None:
    """Seconds until a refused client may come back (RFC 9110, 10.2.3): a number, or a date. None for anything else."""
    text = value.strip().decode("latin-1")
    if text.isascii() and text.isdigit():
        return min(float(text), LONGEST_RETRY_S)
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    return min(max(0.0, date.timestamp() - now_unix_s), LONGEST_RETRY_S)


def is_first_token(event: Event, *, any_channel: bool) -> bool:
    """Whether the event shows its client a token: of any channel, or of the answer's own text only."""
    try:
        choices = _body(event.data).choices or ()
    except ValueError:
        return False
    deltas = [choice.delta for choice in choices if choice.delta is not None]
    return any(delta.content or (any_channel and delta.is_in_other_channel) for delta in deltas)


def of_stream(body: bytes, expected: Expected | None = None) -> Verdict:
    """The verdict on a stream of chat completion chunks, however it ended. Nothing after `[DONE]` counts."""
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
    worst: Outcome = next((outcome for outcome in _WORST_FIRST if outcome in seen), "ok")
    return Verdict(_compare("".join(text), expected) if worst == "ok" else worst, tokens)


def _chunks_of(body: bytes) -> tuple[list[_Body], set[Outcome], bool]:
    """The chunks up to `[DONE]`, what was wrong with events as such, and whether `[DONE]` came."""
    reader = EventReader()
    events = reader.feed(body)
    last = reader.unfinished()
    if last is not None and (last.is_done or _is_error(last)):
        # Half of an event says nothing, but neither of these two can be a half.
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
    """The verdict on an answer that came in one piece."""
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
    """What is known in advance of an answer; None without a check."""
    if check is None:
        return None
    text = "".join(sha256(f"{prompt}\x1f{i}".encode()).hexdigest()[:6] + " " for i in range(max_tokens))
    return Expected(text, model)


def _is_foreign(chunks: Sequence[_Body], expected: Expected) -> bool:
    """Whether anything is not of this one answer: another model, another answer's chunk, or a second channel.

    The backend whose answers are known speaks in no channel but content. Some chunks name neither answer nor model.
    """
    ids = {chunk.id for chunk in chunks if chunk.id}
    models = {chunk.model for chunk in chunks if chunk.model}
    messages = (m for chunk in chunks for c in chunk.choices or () for m in (c.delta, c.message) if m is not None)
    return len(ids) > 1 or not models <= {expected.model} or any(m.is_in_other_channel for m in messages)


def _body(data: bytes) -> _Body:
    """Raises ValueError for what is no chunk: not JSON, no object, or a field of another type."""
    try:
        return _decode(data)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        # Servers that cut an emoji in two send half of a surrogate pair, which only Python's own parser takes.
        try:
            return msgspec.convert(json.loads(data.decode()), _Body)
        except RecursionError as error:
            raise ValueError(str(error)) from error
    except RecursionError as error:
        raise ValueError(str(error)) from error


def _is_error(event: Event) -> bool:
    try:
        return _body(event.data).is_error or event.is_error
    except ValueError:
        return False


def _compare(text: str, expected: Expected | None) -> Outcome:
    if expected is None or text == expected.text:
        return "ok"
    # A clean end that hides missing tokens is a truncation that lies; anything else is a wrong answer.
    return "truncated" if expected.text.startswith(text) else "corrupted"
