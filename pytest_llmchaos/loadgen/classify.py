"""What became of one answer, from its bytes. Pure: nothing is parsed while a stream runs, all of it once it has ended.

A stream is complete only with a finish reason, then `[DONE]`, and no error among its events: most clients take the
first clean end for success, and so miss every upstream that died in mid-sentence.
"""

from __future__ import annotations

import json
import re
from hashlib import sha256
from typing import Any, NamedTuple

from pytest_llmchaos.model import Outcome

# Enough to see a first token pass; whether it was one is settled when the stream has ended.
TOKEN = re.compile(rb'content"\s*:\s*"[^"]')
DONE = re.compile(rb"(?:^|\n)data: ?\[DONE\]\r?\n")


# What the parser raises for bytes that are no JSON, and for JSON nested deeper than it goes.
_NO_JSON = (ValueError, RecursionError)


class Verdict(NamedTuple):
    outcome: Outcome
    tokens: int


def of_status(status: int) -> Outcome | None:
    """The outcome of a refused request; None for an answer that may be good."""
    if status == 200:
        return None
    if status == 429:
        return "http_429"
    return "http_5xx" if status >= 500 else "http_4xx"


def of_stream(body: bytes, expected: str | None = None) -> Verdict:
    """The verdict on a stream of chat completion chunks, however it ended."""
    payloads, done, failed = _payloads(body)
    events, malformed = _events(payloads)
    text: list[str] = []
    finished = False
    for event in events:
        if event.get("error"):
            failed = True
        try:
            for choice in (event.get("choices") or [])[:1]:
                text.append(_text(choice["delta"].get("content")))
                finished = finished or bool(choice.get("finish_reason"))
        except (KeyError, TypeError, AttributeError):
            malformed = True
    tokens = sum(map(bool, text))
    if failed:
        return Verdict("inband_error", tokens)
    if malformed:
        return Verdict("corrupted", tokens)
    if not (done and finished):
        return Verdict("truncated", tokens)
    return Verdict(_compare("".join(text), expected), tokens)


def _text(content: Any) -> str:
    """The text of an answer; the field may be null. Raises TypeError for a list of parts, a number and the like."""
    if content is not None and not isinstance(content, str):
        raise TypeError(content)
    return content or ""


def _payloads(body: bytes) -> tuple[list[bytes], bool, bool]:
    """The data of all events, whether `[DONE]` was among them, and whether one was named an error."""
    lines = body.split(b"\n")
    if lines[-1].strip() != b"data: [DONE]":
        lines.pop()  # empty, or an event that was cut off
    payloads = [line[5:].strip() for line in lines if line.startswith(b"data:")]
    failed = any(line.startswith(b"event:") and line[6:].strip() == b"error" for line in lines)
    without = [payload for payload in payloads if payload != b"[DONE]"]
    return without, len(without) < len(payloads), failed


def of_whole(body: bytes, expected: str | None = None) -> Verdict:
    """The verdict on an answer that came in one piece."""
    try:
        answer = json.loads(body)
        if answer.get("error"):
            return Verdict("inband_error", 0)
        choice = answer["choices"][0]
        text = _text(choice["message"]["content"])
        tokens = int((answer.get("usage") or {}).get("completion_tokens", 0))
    except (*_NO_JSON, KeyError, TypeError, AttributeError, IndexError, OverflowError):
        return Verdict("corrupted", 0)
    if not choice.get("finish_reason"):
        return Verdict("truncated", tokens)
    return Verdict(_compare(text, expected), tokens)


def expected_text(check: str | None, prompt: str, max_tokens: int) -> str | None:
    """The only right answer, where the backend is one that has it."""
    if check is None:
        return None
    return "".join(sha256(f"{prompt}\x1f{i}".encode()).hexdigest()[:6] + " " for i in range(max_tokens))


def _events(payloads: list[bytes]) -> tuple[list[dict[str, Any]], bool]:
    """All events, and whether one of them was none. One call for all: it costs half as much as one call each."""
    try:
        events = json.loads(b"[" + b",".join(payloads) + b"]")
    except _NO_JSON:
        events = []
    if len(events) != len(payloads):
        events = [_event(payload) for payload in payloads]
    good = [event for event in events if isinstance(event, dict)]
    return good, len(good) < len(payloads)


def _event(payload: bytes) -> Any:
    try:
        return json.loads(payload)
    except _NO_JSON:
        return None


def _compare(text: str, expected: str | None) -> Outcome:
    if expected is None or text == expected:
        return "ok"
    # A clean end that hides missing tokens is a truncation that lies; anything else is a wrong answer.
    return "truncated" if expected.startswith(text) else "corrupted"
