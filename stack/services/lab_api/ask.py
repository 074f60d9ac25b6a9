"""Parsing and validation of a client's request."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lab_api.affinity import Prefix
from lab_api.outcomes import GatewayError, Outcome
from lab_api.settings import Affinity


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One chat completion with the client's own bytes.

    Fields that the gateway does not use must reach the replica unchanged.
    """

    body: bytes
    stream: bool
    priority: int = 0  # vLLM's field: lower is earlier
    prefix: Prefix | None = None


def parse(body: bytes, model: str, affinity: Affinity | None = None) -> Ask:
    """The request in `body`, with its prefix if there is an affinity.

    Raises:
        GatewayError: a 4xx that names the field and the value.
    """
    try:
        asked = json.loads(body.decode())  # faster than the guess at its encoding
    except (ValueError, RecursionError) as error:
        raise _refused(f"the body must be a JSON object, but it does not parse: {str(error)[:200]}") from error
    if not isinstance(asked, dict):
        raise _refused(f"the body must be a JSON object, got {_shown(asked)}")
    if asked.get("model") != model:
        _refuse_model(asked.get("model"), model)
    _check_messages(asked.get("messages"))
    for name, (allowed, wanted) in _FIELDS.items():
        value = asked.get(name)
        if value is not None and not allowed(value):
            raise _refused(f"{name} must be {wanted}, got {_shown(value)}", param=name)
    prefix = None
    if affinity is not None:
        prefix = Prefix.of(asked["messages"], chars=affinity.chars, factor=affinity.factor)
    return Ask(body=body, stream=asked.get("stream") is True, priority=asked.get("priority") or 0, prefix=prefix)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _between(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


# More than any model's answer. Keeps numbers of thousands of digits from engines.
_TOKENS = (lambda value: _whole(value) and 1 <= value <= 10**9, "a whole number from 1 to 1000000000")
_FIELDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "stream": (lambda value: isinstance(value, bool), "true or false"),
    "max_tokens": _TOKENS,
    "max_completion_tokens": _TOKENS,
    "temperature": (_between(0, 2), "a number from 0 to 2"),
    "top_p": (_between(0, 1), "a number from 0 to 1"),
    "seed": (_whole, "a whole number"),
    "priority": (_whole, "a whole number"),
    # A stream is complete when its one choice has finished.
    "n": (lambda value: _whole(value) and value == 1, "1 (one choice for each request)"),
    "stream_options": (lambda value: isinstance(value, dict), "an object"),
}


def _refuse_model(asked: object, model: str) -> None:
    if not isinstance(asked, str) or not asked:
        raise _refused(f"model must be a name, here {model!r}, got {_shown(asked)}", param="model")
    raise _refused(
        f"model {asked[:100]!r} is not served here: request {model!r}",
        status=404,
        code="model_not_found",
        param="model",
    )


def _check_messages(messages: object) -> None:
    if not isinstance(messages, list) or not messages:
        raise _refused(f"messages must be a list with at least one message, got {_shown(messages)}", param="messages")
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if not isinstance(message, dict):
            raise _refused(f"{where} must be an object with role and content, got {_shown(message)}", param=where)
        if not isinstance(message.get("role"), str) or not message["role"]:
            raise _refused(
                f"{where}.role must be a role such as 'user', got {_shown(message.get('role'))}", param=f"{where}.role"
            )
        if not isinstance(message.get("content"), str | list | None):
            raise _refused(
                f"{where}.content must be text or a list of parts, got {_shown(message['content'])}",
                param=f"{where}.content",
            )


def _shown(value: object) -> str:
    return "nothing" if value is None else json.dumps(value)[:80]


def _refused(message: str, *, status: int = 400, code: str = "", param: str | None = None) -> GatewayError:
    return GatewayError(outcome=Outcome.INVALID_REQUEST, message=message, status=status, code=code, param=param)
