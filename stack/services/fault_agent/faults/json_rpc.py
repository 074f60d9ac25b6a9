"""Messages of MCP, which are JSON-RPC 2.0 objects. Batches count as other bodies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

# Codes of JSON-RPC 2.0, section 5.1. -32000 is the first of those for servers.
INVALID_REQUEST: Final = -32600
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
SERVER_ERROR: Final = -32000


def method_of(fields: Mapping[str, object]) -> str:
    """The method of a request or notification, "" for other bodies."""
    method = fields.get("method")
    return method if isinstance(method, str) and fields.get("jsonrpc") == "2.0" else ""


def tool_of(fields: Mapping[str, object]) -> str:
    """The name of the tool that a request calls, "" for other bodies."""
    params = fields.get("params")
    name = params.get("name") if method_of(fields) == "tools/call" and isinstance(params, dict) else None
    return name if isinstance(name, str) else ""


def error(request: Mapping[str, object], code: int, message: str, **data: object) -> dict[str, object]:
    """The answer that a request failed, marked as injected."""
    about = {"code": code, "message": f"{message} (injected by the fault agent)", **({"data": data} if data else {})}
    return {"jsonrpc": "2.0", "id": request.get("id"), "error": about}


def result(request: Mapping[str, object], value: Mapping[str, object]) -> dict[str, object]:
    """The answer to a request."""
    return {"jsonrpc": "2.0", "id": request.get("id"), "result": value}
