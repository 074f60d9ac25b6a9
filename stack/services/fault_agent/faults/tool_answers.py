"""Answers to tool calls that do not reach the service."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, ClassVar

from fault_agent.faults import json_rpc
from fault_agent.faults.base import LONGEST_LEASE_S, register
from fault_agent.faults.dialects import Fields, dump, parse
from fault_agent.faults.flaky import LONGEST_RETRY_S
from fault_agent.faults.substitute import Substitute
from fault_agent.faults.tool_calls import JSON, AnswerEdit, ToolAnswer
from lab_common.values import require_whole

if TYPE_CHECKING:
    from fault_agent.messages import RequestHead

SESSION = "mcp-session-id"


@register
@dataclass(frozen=True, kw_only=True, slots=True)
class ToolError(ToolAnswer):
    """Calls fail with a JSON-RPC error, as of a bug in the server."""

    kind: ClassVar[str] = "tool_error"

    def reply(self, call: Fields) -> Fields:
        """The JSON-RPC answer to a call."""
        return json_rpc.error(call, json_rpc.INTERNAL_ERROR, "Internal error")


@register
@dataclass(frozen=True, kw_only=True, slots=True)
class ToolIsError(ToolAnswer):
    """Calls have a result with `isError`, as of a tool that failed."""

    kind: ClassVar[str] = "tool_is_error"

    def reply(self, call: Fields) -> Fields:
        """The JSON-RPC answer to a call."""
        text = f"{json_rpc.tool_of(call)} failed (injected by the fault agent)"
        content = [{"type": "text", "text": text}]
        return json_rpc.result(call, {"resultType": "complete", "content": content, "isError": True})


@register
@dataclass(frozen=True, kw_only=True, slots=True)
class ToolRateLimited(ToolAnswer):
    """Calls are refused with HTTP status 429.

    Attributes:
        retry_after_s: whole seconds of the header Retry-After.
    """

    kind: ClassVar[str] = "tool_rate_limited"
    retry_after_s: int = 1

    def check(self) -> None:
        """Check the options. Raises InvalidValueError."""
        ToolAnswer.check(self)
        require_whole("retry_after_s", self.retry_after_s, at_least=0, at_most=LONGEST_RETRY_S)

    def call_of(self, body: bytes) -> str:
        """The tool and its arguments, the same for a repeated call."""
        params = parse(body).get("params")
        named = params if isinstance(params, dict) else {}
        return json.dumps([named.get("name"), named.get("arguments")], sort_keys=True)

    def answer(self, head: RequestHead, body: bytes) -> Substitute:  # noqa: ARG002 - the base's
        """The answer to one call."""
        headers = (*JSON, ("retry-after", str(self.retry_after_s)))
        return Substitute(status=429, headers=headers, body=dump(self.reply(parse(body))))

    def reply(self, call: Fields) -> Fields:
        """The JSON-RPC answer to a call."""
        return json_rpc.error(call, json_rpc.SERVER_ERROR, "Too many requests", retry_after_s=self.retry_after_s)


@register
@dataclass(frozen=True, kw_only=True, slots=True)
class ToolSessionExpired(ToolAnswer):
    """Calls in a session get HTTP status 404, by which servers report its end.

    A new session gets it too. Calls without a session pass.
    """

    kind: ClassVar[str] = "tool_session_expired"

    def answers(self, head: RequestHead, body: bytes) -> bool:
        """True if the call has a session."""
        return head.header(SESSION) != "" and ToolAnswer.answers(self, head, body)

    def answer(self, head: RequestHead, body: bytes) -> Substitute:  # noqa: ARG002 - the base's
        """The answer to one call."""
        return Substitute(status=404, headers=JSON, body=dump(self.reply(parse(body))))

    def reply(self, call: Fields) -> Fields:
        """The JSON-RPC answer to a call."""
        return json_rpc.error(call, json_rpc.INVALID_REQUEST, "Session not found")


@register
@dataclass(frozen=True, kw_only=True, slots=True)
class ToolHang(ToolAnswer):
    """Calls get no answer. Their connections close when the fault ends."""

    kind: ClassVar[str] = "tool_hang"

    def answer(self, head: RequestHead, body: bytes) -> Substitute:  # noqa: ARG002 - the base's
        """No answer."""
        return Substitute(status=500, headers=(), body=b"", delay_s=LONGEST_LEASE_S, cuts=True)


@register
@dataclass(frozen=True, kw_only=True, slots=True)
class ToolGone(ToolAnswer, AnswerEdit):
    """Calls fail with an unknown tool, and lists of tools lack it."""

    kind: ClassVar[str] = "tool_gone"

    def reply(self, call: Fields) -> Fields:
        """The JSON-RPC answer to a call."""
        return json_rpc.error(call, json_rpc.INVALID_PARAMS, f"Unknown tool: {json_rpc.tool_of(call)}")

    def edits(self, head: RequestHead, body: bytes) -> bool:
        """True for a request of the list of tools."""
        return replace(self.match, tool=None).matches(head, body) and json_rpc.method_of(parse(body)) == "tools/list"

    def changed(self, result: Fields) -> Fields:
        """The list without the tool."""
        tools = result.get("tools")
        return (
            result | {"tools": [one for one in tools if not self._is_gone(one)]} if isinstance(tools, list) else result
        )

    def _is_gone(self, tool: object) -> bool:
        name = tool.get("name") if isinstance(tool, dict) else None
        return isinstance(name, str) and fnmatchcase(name, self.match.tool or "")
