"""Selection of requests by their head and body."""

from __future__ import annotations

import json
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from fault_agent.faults.json_rpc import tool_of
from lab_common.values import InvalidValueError, require_text

if TYPE_CHECKING:
    from fault_agent.messages import RequestHead

_OLLAMA = ("/api/chat", "/api/generate")  # stream unless the request declines
_TGI_STREAM = "/generate_stream"


@dataclass(frozen=True, kw_only=True, slots=True)
class Match:
    """Requests that a fault applies to. All conditions must hold.

    Globs have `*`, `?` and `[...]`. A `*` matches slashes too.

    Attributes:
        path: glob of the path without its query.
        method: glob of the method. The default lets health probes and scrapes pass.
        model: glob of the field `model` in the body, None for any body.
        header: name and glob of the value, as in "x-tenant: a*". None for any headers.
        streaming: True for requests of a stream, False for others, None for both.
        tool: glob of the tool's name in a call of MCP, None for any request.
    """

    path: str = "*"
    method: str = "POST"
    model: str | None = None
    header: str | None = None
    streaming: bool | None = None
    tool: str | None = None

    def __post_init__(self) -> None:
        """Check the conditions.

        Raises:
            InvalidValueError: one of them is of another type, or empty.
        """
        require_text("match.path", self.path)
        require_text("match.method", self.method)
        if self.model is not None:
            require_text("match.model", self.model)
        if self.tool is not None:
            require_text("match.tool", self.tool)
        if self.header is not None:
            require_text("match.header", self.header)
            name, colon, _ = self.header.partition(":")
            if not colon or not name.strip():
                raise InvalidValueError(f'match.header must be "name: glob", got {self.header!r}')
        if self.streaming is not None and not isinstance(self.streaming, bool):
            raise InvalidValueError(f"match.streaming must be true, false or null, got {self.streaming!r}")

    @property
    def needs_body(self) -> bool:
        """True if the whole body of a request is needed for the decision."""
        return self.model is not None or self.streaming is not None or self.tool is not None

    def matches(self, head: RequestHead, body: bytes) -> bool:
        """True if a request is selected. `body` is read only if `needs_body`."""
        path = head.path.partition("?")[0]
        if not fnmatchcase(path, self.path) or not fnmatchcase(head.method, self.method.upper()):
            return False
        if self.header is not None:
            name, _, glob = self.header.partition(":")
            name, glob = name.strip().lower(), glob.strip()
            if not any(key == name and fnmatchcase(value, glob) for key, value in head.headers):
                return False
        return not self.needs_body or self._matches_body(path, body)

    def _matches_body(self, path: str, body: bytes) -> bool:
        fields = _fields(body)
        if self.streaming is not None and _is_streaming(path, fields) != self.streaming:
            return False
        if self.tool is not None:
            called = tool_of(fields)
            if not called or not fnmatchcase(called, self.tool):
                return False
        if self.model is None:
            return True
        model = fields.get("model")
        return isinstance(model, str) and fnmatchcase(model, self.model)


def _fields(body: bytes) -> dict[str, object]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _is_streaming(path: str, fields: dict[str, object]) -> bool:
    if path.endswith(_TGI_STREAM):
        return True
    return bool(fields.get("stream", path.endswith(_OLLAMA) and bool(fields)))
