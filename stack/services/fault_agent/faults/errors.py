"""Answers with an error, in OpenAI's format."""

from __future__ import annotations

import json

from fault_agent.faults.base import Substitute, reason_of

_TYPES = {429: "rate_limit_error", 529: "overloaded_error"}


def substitute(status: int, *, delay_s: float = 0.0, retry_after_s: int | None = None) -> Substitute:
    """An error answer with a JSON body, marked as injected."""
    body = {"error": error(status, f"{reason_of(status)} (injected by the fault agent)")}
    headers = [("content-type", "application/json")]
    if retry_after_s is not None:
        headers.append(("retry-after", str(retry_after_s)))
    return Substitute(status=status, headers=tuple(headers), body=json.dumps(body).encode(), delay_s=delay_s)


def error(status: int, message: str) -> dict[str, object]:
    """The value of the field `error`."""
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"message": message, "type": kind, "param": None, "code": status}
