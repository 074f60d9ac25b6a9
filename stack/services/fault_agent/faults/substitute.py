"""Answers that the agent gives instead of the service, in OpenAI's format."""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus

_TYPES = {429: "rate_limit_error", 529: "overloaded_error"}
_REASONS = {529: "Overloaded"}  # of Anthropic's API and others, not registered


@dataclass(frozen=True, kw_only=True, slots=True)
class Substitute:
    """An answer instead of the service's.

    Attributes:
        status: HTTP status code.
        headers: without Content-Length, which the relay adds.
        body: the whole body.
        delay_s: seconds from the request to the answer.
        cuts: True for no answer, but the end of the connection.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    delay_s: float = 0.0
    cuts: bool = False

    @property
    def reason(self) -> str:
        """The reason phrase of the status line."""
        return reason_of(self.status)


def reason_of(status: int) -> str:
    """The reason phrase of a status code."""
    if status in _REASONS:
        return _REASONS[status]
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def error_answer(status: int, *, delay_s: float = 0.0, retry_after_s: int | None = None) -> Substitute:
    """An error with a JSON body, marked as injected."""
    body = {"error": error(status, f"{reason_of(status)} (injected by the fault agent)")}
    headers = [("content-type", "application/json")]
    if retry_after_s is not None:
        headers.append(("retry-after", str(retry_after_s)))
    return Substitute(status=status, headers=tuple(headers), body=json.dumps(body).encode(), delay_s=delay_s)


def error(status: int, message: str) -> dict[str, object]:
    """The value of the field `error`."""
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"message": message, "type": kind, "param": None, "code": status}
