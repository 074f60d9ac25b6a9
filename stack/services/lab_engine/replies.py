"""JSON of answers and errors in OpenAI's format."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

OWNER = "llmchaos-sim"
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """Fields that every event of one answer repeats."""

    request_id: str
    model: str
    created: int  # Unix seconds, a label only

    def event_prefix(self) -> bytes:
        """An event up to its token.

        Tokens need no JSON escapes, so events are concatenated and not serialized.
        """
        start = json.dumps(self._chunk([]), separators=(",", ":"))[: -len("]}")]
        return f'data: {start}{{"index":0,"delta":{{"content":"'.encode()

    def first_event(self) -> bytes:
        return self.token_event({"role": "assistant", "content": ""})

    def token_event(self, delta: dict[str, Any], reason: str | None = None) -> bytes:
        return self.event([{"index": 0, "delta": delta, "finish_reason": reason}])

    def usage_event(self, usage: dict[str, Any]) -> bytes:
        return _event(self._chunk([]) | {"usage": usage})

    def event(self, choices: list[dict[str, Any]]) -> bytes:
        return _event(self._chunk(choices))

    def whole(self, message: dict[str, Any], reason: str, usage: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": self.request_id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": [{"index": 0, "message": message, "finish_reason": reason}],
            "usage": usage,
        }

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.request_id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }


TOKEN_EVENT_END = b'"},"finish_reason":null}]}\n\n'


def usage(prompt_tokens: int, generated: int) -> dict[str, Any]:
    return {"prompt_tokens": prompt_tokens, "completion_tokens": generated, "total_tokens": prompt_tokens + generated}


def error(message: str, *, kind: str, status: int, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": status}}


def error_event(message: str, *, kind: str, status: int) -> bytes:
    return _event(error(message, kind=kind, status=status))


def models(model: str, created: int, max_model_tokens: int) -> dict[str, Any]:
    entry = {
        "id": model,
        "object": "model",
        "created": created,
        "owned_by": OWNER,
        "simulated": True,
        "max_model_len": max_model_tokens,
    }
    return {"object": "list", "data": [entry]}


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"
