"""Refusals of a request."""

from __future__ import annotations

import json


class BadRequestError(ValueError):
    """A request answered with a 4xx. `param` names the wrong field, if any."""

    def __init__(
        self, message: str, *, param: str | None = None, status: int = 400, kind: str = "BadRequestError"
    ) -> None:
        super().__init__(message)
        self.param = param
        self.status = status
        self.kind = kind


def brief(value: object) -> str:
    """A value as JSON, for a message."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."
