"""Events of model servers: their meaning, and events that a fault makes of them.

OpenAI's chat and plain completions, Ollama's `/api/chat` and `/api/generate`, TGI, and
answers of MCP. The fields of an event distinguish them.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from fault_agent.faults.substitute import error

# What an event brings, as bits.
TOKEN = 1  # a part of the answer in any channel
FINISH = 2  # the reason of the end
END = 4  # the last event
RESULT = 8  # of a JSON-RPC request
FAILURE = 16  # the same, an error
DONE = b"[DONE]"
Fields = dict[str, Any]  # decoded JSON
_CHANNELS = ("content", "reasoning", "reasoning_content", "refusal", "tool_calls", "function_call")
_decode = json.JSONDecoder().decode
_WORD = re.compile(r"\s*\S+")
ERROR = "error injected by the fault agent"


class Read(NamedTuple):
    """One event. `fields` is empty if its data is not a JSON object."""

    meaning: int
    fields: Fields


_NOTHING = Read(0, {})
_DONE = Read(END, {})


def read(data: bytes) -> Read:
    """Read the data of an event."""
    if not data.startswith(b"{"):
        stripped = data.strip()
        if stripped == DONE:
            return _DONE
        if not stripped.startswith(b"{"):
            return _NOTHING
    fields = parse(data)
    return Read(_meaning(fields), fields) if fields else _NOTHING


def parse(data: bytes) -> Fields:
    """A JSON object, empty if the data is not one."""
    try:
        value = _decode(data.decode())
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def dump(fields: Fields) -> bytes:
    """Compact JSON in ASCII."""
    return json.dumps(fields, separators=(",", ":")).encode()


def text_of(fields: Fields) -> str:
    """The text that a token of TGI adds to `generated_text`, "" of other dialects."""
    token = fields.get("token")
    text = token.get("text") if isinstance(token, dict) and not token.get("special") else None
    return text if isinstance(text, str) else ""


def failed(fields: Fields) -> list[bytes]:
    """Data of the events that report an error in the place of this one."""
    if "done" in fields:
        return [dump({"error": ERROR})]
    if _is_tgi(fields):
        return [dump({"error": ERROR, "error_type": "generation"})]
    return [dump({"error": error(500, ERROR)}), DONE]


def stopped(fields: Fields, text: str, tokens: int) -> list[bytes]:
    """Data of the events that end an answer well in the place of this token.

    Args:
        fields: of the token.
        text: sent before it. Only TGI repeats it.
        tokens: sent before it.
    """
    fields = emptied(fields)
    if "done" in fields:
        return [dump(fields | {"done": True, "done_reason": "stop"})]
    if _is_tgi(fields):
        token = {"id": 2, "text": "</s>", "logprob": 0.0, "special": True}
        details = {"finish_reason": "eos_token", "generated_tokens": tokens, "seed": None}
        return [dump(fields | {"token": token, "generated_text": text, "details": details})]
    for choice in _dicts(fields.get("choices")):
        choice["finish_reason"] = "stop"
        if isinstance(choice.get("delta"), dict):
            choice["delta"] = {}
    if "usage" in fields:
        fields["usage"] = None
    return [dump(fields), DONE]


def emptied(fields: Fields) -> Fields:
    """The same event or whole answer without text in any channel."""
    for choice in _dicts(fields.get("choices")):
        _empty_channels(choice.get("delta"))
        _empty_channels(choice.get("message"))
        if "text" in choice:
            choice["text"] = ""
    _empty_channels(fields.get("message"))
    fields.pop("thinking", None)
    if "response" in fields:
        fields["response"] = ""
    if isinstance(fields.get("token"), dict):
        fields["token"]["text"] = ""
    if isinstance(fields.get("generated_text"), str):
        fields["generated_text"] = ""
        if isinstance(details := fields.get("details"), dict) and "tokens" in details:
            details["tokens"] = []
    return fields


def is_whole_answer(fields: Fields) -> bool:
    """True for the body of an answer that is not streamed."""
    if "done" in fields:
        return isinstance(fields.get("message"), dict) or isinstance(fields.get("response"), str)
    if isinstance(fields.get("generated_text"), str):
        return True
    return any(isinstance(c.get("message"), dict) or "text" in c for c in _dicts(fields.get("choices")))


def shortened(fields: Fields, words: int, *, is_finished: bool) -> Fields | None:
    """A whole answer that ends after some words, or None if it is too short.

    With `is_finished` the end looks good, else the answer has no finish reason.
    """
    least = words + is_finished
    holders = [(fields, "response"), (fields, "generated_text"), (fields.get("message"), "content")]
    for choice in _dicts(fields.get("choices")):
        holders += [(choice, "text"), (choice.get("message"), "content")]
    is_long = False
    for holder, name in holders:
        text = holder.get(name) if isinstance(holder, dict) else None
        if isinstance(holder, dict) and isinstance(text, str):
            found = _WORD.findall(text)
            is_long = is_long or len(found) >= least
            holder[name] = "".join(found[:words])
    if not is_long:
        return None
    for choice in _dicts(fields.get("choices")):
        choice["finish_reason"] = "stop" if is_finished else None
    if isinstance(details := fields.get("details"), dict):
        details["finish_reason"] = "eos_token" if is_finished else None
    if "done" in fields:
        fields.pop("done_reason", None)
        fields |= {"done": True, "done_reason": "stop"} if is_finished else {"done": False}
    return fields


def _meaning(fields: Fields) -> int:
    choices = fields.get("choices")
    if isinstance(choices, list):
        return _of_choices(choices)
    if "done" in fields:
        return _of_ollama(fields)
    if "jsonrpc" in fields and "method" not in fields:
        return RESULT if isinstance(fields.get("result"), dict) else FAILURE if "error" in fields else 0
    if _is_tgi(fields):
        end = FINISH | END if isinstance(fields.get("generated_text"), str) else 0
        return (TOKEN if text_of(fields) else 0) | end
    return 0


def _of_choices(choices: list[Any]) -> int:
    meaning = 0
    for choice in choices:
        if not isinstance(choice, dict):
            continue
        delta = choice.get("delta")
        if _has_token(delta) if isinstance(delta, dict) else choice.get("text"):
            meaning |= TOKEN
        if choice.get("finish_reason"):
            meaning |= FINISH
    return meaning


def _has_token(delta: Fields) -> bool:
    if delta.get("content"):
        return True
    return any(map(delta.get, _CHANNELS))


def _of_ollama(fields: Fields) -> int:
    message = fields.get("message")
    has_token = fields.get("response") or fields.get("thinking")
    if isinstance(message, dict):
        has_token = has_token or message.get("content") or message.get("thinking") or message.get("tool_calls")
    return (TOKEN if has_token else 0) | (FINISH | END if fields["done"] is True else 0)


def _is_tgi(fields: Fields) -> bool:
    return "token" in fields or "generated_text" in fields


def _empty_channels(message: object) -> None:
    if isinstance(message, dict):
        for name in (*_CHANNELS, "thinking"):
            message.pop(name, None)
        message["content"] = ""


def _dicts(values: object) -> list[Fields]:
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []
