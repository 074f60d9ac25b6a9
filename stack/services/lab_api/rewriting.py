"""The events of a second replica, rewritten as the rest of the first one's."""

import json
from typing import Any

from lab_api.emitted import (
    CALLS,
    CHANNELS,
    REPEATED,
    Emitted,
    NotContinuableError,
    choices_of,
    delta_of,
    parsed,
    require_text,
    whole_number,
)

# A model hardly repeats this much of its answer in one event.
_ECHO_TOKENS, _ECHO_CHARACTERS = 4, 12


class Rewriter:
    """Rewrites one stream.

    The client sees one id, one role and one usage.
    """

    def __init__(self, emitted: Emitted) -> None:
        self._emitted = emitted
        self._begun = False  # an event with text, a call or an end has come

    def __call__(self, events: bytes) -> bytes:
        """The events to forward. May be empty.

        Raises:
            NotContinuableError: the replica began another answer.
        """
        return b"".join(self._event(event) for event in parsed(events) if self._belongs(event))

    def finish(self, reason: str) -> bytes:
        """A last event with this finish reason."""
        return self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})

    def _belongs(self, event: dict[str, Any]) -> bool:
        """Remove what the client has. False if the event only opens an answer."""
        for choice in choices_of(event):
            delta = delta_of(choice)
            require_text(choice, delta, CHANNELS)
            delta.pop("role", None)
            if not self._begun and delta.get("content"):
                delta["content"] = self._without_echo(delta["content"])
            self._begun |= bool(delta.get("content") or choice.get("finish_reason")) or any(map(delta.get, CALLS))
        return self._begun or isinstance(event.get("usage"), dict)

    def _without_echo(self, content: str) -> str:
        """The content without the partial answer.

        Servers that echo it (llama.cpp before #23089) send it at the start of the first
        event. A model that repeats several tokens sends them in several events, unless
        the server puts several tokens into one.

        Raises:
            NotContinuableError: a short beginning is an echo or a repetition.
        """
        text, tokens = self._emitted.text, self._emitted.tokens
        if tokens < 2 or not content.startswith(text):
            return content
        if tokens < _ECHO_TOKENS or len(text) < _ECHO_CHARACTERS:
            raise NotContinuableError("the rest begins with the beginning, as an echo or a repetition")
        return content[len(text) :]

    def _event(self, event: dict[str, Any]) -> bytes:
        own = {name: value for name, value in event.items() if name not in REPEATED}
        if isinstance(usage := own.get("usage"), dict):
            own["usage"] = self._summed(usage)
        return b"data: " + json.dumps(self._emitted.repeated | own, separators=(",", ":")).encode() + b"\n\n"

    def _summed(self, usage: dict[str, Any]) -> dict[str, Any]:
        """The usage of both requests as that of one.

        The second prompt was the first one and the partial answer, so their total is
        right even where an event had several tokens.
        """
        prompt, completion = (whole_number(usage.get(name), None) for name in ("prompt_tokens", "completion_tokens"))
        if prompt is None or completion is None:
            return usage
        before = self._emitted.tokens
        prompt = max(0, prompt - before) if self._emitted.prompt_tokens is None else self._emitted.prompt_tokens
        total = prompt + before + completion
        summed = usage | {"prompt_tokens": prompt, "completion_tokens": before + completion, "total_tokens": total}
        details = usage.get("prompt_tokens_details")
        if isinstance(details, dict) and (cached := whole_number(details.get("cached_tokens"), None)) is not None:
            summed["prompt_tokens_details"] = details | {"cached_tokens": min(cached, prompt)}
        return summed
