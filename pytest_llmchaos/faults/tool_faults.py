"""Tool calls that fail, as requests of MCP over streamable HTTP."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.faults.base import OnTarget, check_target
from pytest_llmchaos.faults.compositions import Target, together
from pytest_llmchaos.faults.option_checks import check_choice, check_number, check_text, check_whole
from pytest_llmchaos.faults.wire_faults import LONGEST_S, WireFault, WireOption, selection
from pytest_llmchaos.faults.wire_match import Match
from pytest_llmchaos.model import Fault

HOWS = (
    "lost_answer",
    "error",
    "is_error",
    "rate_limited",
    "slow",
    "hang",
    "empty",
    "malformed",
    "wrong_schema",
    "tool_gone",
    "session_expired",
    "injected_text",
)
_TOOL = re.compile(r"[A-Za-z0-9_.*?\[\]!-]{1,128}")  # names of MCP, and wildcards


@dataclass(frozen=True, kw_only=True)
class ToolFault(WireFault):
    """Calls of a tool that fail.

    Attributes:
        how: What happens to a call.
        tool: Glob of the tool's name.
    """

    kind: ClassVar[str] = "tool"
    expects: ClassVar[str] = (
        "callers of the tool see it; effects without an answer are done again by a caller that retries"
    )
    how: str
    tool: str

    @property
    def agent_kind(self) -> str:
        return self.how if self.how.startswith("tool_") else f"tool_{self.how}"

    @property
    def strength(self) -> Mapping[str, object]:
        options = {name: value for name, value in super().strength.items() if name != "match"}
        return {"tool": self.tool, "how": self.how, **options}


@dataclass(frozen=True, kw_only=True)
class OnTool(OnTarget):
    """A fault of a service's tool."""

    primitive: ToolFault

    def __str__(self) -> str:
        return f"{super().__str__()}.{self.primitive.tool} {self.primitive.how}"


def tool(
    target: Target,
    *,
    how: str,
    share: float = 1.0,
    then: str | None = None,
    delay_s: float | None = None,
    retry_after_s: int | None = None,
    text: str | None = None,
) -> Fault:
    """Let calls of a tool fail.

    Calls are requests `tools/call` of MCP over streamable HTTP. Answers of the service
    keep their form, JSON or server-sent events.

    | `how` | the caller sees | the service |
    |---|---|---|
    | `lost_answer` | the end of the connection, or nothing | has acted |
    | `slow` | the answer after `delay_s` | has acted |
    | `empty` | a result without content | has acted |
    | `malformed` | half of the answer, which is no JSON | has acted |
    | `wrong_schema` | values of other types than the tool's output schema | has acted |
    | `injected_text` | an instruction in the result | has acted |
    | `error` | JSON-RPC error -32603 | gets no call |
    | `is_error` | a result with `isError` | gets no call |
    | `rate_limited` | HTTP status 429 with Retry-After | gets no call |
    | `hang` | nothing until the revert | gets no call |
    | `tool_gone` | JSON-RPC error -32602, and lists without the tool | gets no call |
    | `session_expired` | HTTP status 404, if the call has a session | gets no call |

    - Ends: after `fault_s` (`passing`).
    - Fidelity: `proxy`.
    - Expected signal: callers of the tool see it. A caller that retries does an effect
      again whose answer was lost. No alert of the lab watches tools.

    Args:
        target: `SERVICE.TOOL`, such as `desk.refund`. TOOL may have the wildcards `*`,
            `?` and `[...]`. A service alone means all its tools. A list is hit at once.
        how: What happens to a call, from the table.
        share: Share of the calls that is hit, above 0, at most 1.
        then: Of `lost_answer`: `close` (default) ends the connection, `hang` keeps it
            silent until the revert.
        delay_s: Of `slow`, which needs it: seconds, above 0, at most 3600.
        retry_after_s: Of `rate_limited`: whole seconds, 0 to 86400. Default: 1.
        text: Of `injected_text`: the instruction. Default: to call the tool again.

    Returns:
        A fault for `experiment(fault=...)` and `lab.inject`.

    Raises:
        BadScenario: `target` is not as described, `how` is unknown, or an option is out
            of bounds or belongs to another `how`.
    """
    checked = check_choice("tool(how=...)", how, HOWS)
    given = {"then": then, "delay_s": delay_s, "retry_after_s": retry_after_s, "text": text}
    options = _options(checked, {name: value for name, value in given.items() if value is not None})
    targets = list(target) if isinstance(target, list | tuple) else [target]
    made = [_on_tool(one, checked, share, options) for one in targets]
    if not made:
        raise BadScenario(f"faults.tool(target) must name at least one tool such as 'desk.refund', got {target!r}")
    return together(*made) if len(made) > 1 else made[0]


def split_tool(where: str, target: object) -> tuple[str, str]:
    """Return the service and the glob of the tool of `SERVICE.TOOL`.

    Args:
        where: The argument, for the message.
        target: The value to check.

    Raises:
        BadScenario: It is not of this form.
    """
    service, dot, name = target.partition(".") if isinstance(target, str) else ("", "", "")
    if not service or (dot and not _TOOL.fullmatch(name)):
        raise BadScenario(
            f"{where} must be SERVICE.TOOL such as 'desk.refund', or 'desk.*' for all tools of a service, got {target!r}"
        )
    return service, name or "*"


def _on_tool(target: object, how: str, share: float, options: tuple[tuple[str, WireOption], ...]) -> OnTool:
    service, name = split_tool("faults.tool(target)", target)
    chosen = selection("tool", share, Match(conditions=(("tool", name),)))
    fault = ToolFault(how=how, tool=name, options=(*options, *chosen))
    return OnTool(primitive=fault, target=check_target("tool", service))


def _options(how: str, given: Mapping[str, object]) -> tuple[tuple[str, WireOption], ...]:
    """Return the options of `how`. Raises BadScenario for others, and bad values."""
    owners = {"then": "lost_answer", "delay_s": "slow", "retry_after_s": "rate_limited", "text": "injected_text"}
    for name in given:
        if owners[name] != how:
            raise BadScenario(
                f"faults.tool({name}=...) is of how={owners[name]!r}, got how={how!r}: drop it or change how"
            )
    if how == "slow":
        if "delay_s" not in given:
            raise BadScenario("faults.tool(how='slow') needs delay_s, the seconds by which answers come late")
        return (("delay_s", check_number("tool(delay_s=...)", given["delay_s"], above=0, at_most=LONGEST_S)),)
    found: list[tuple[str, WireOption]] = []
    if "then" in given:
        found.append(("then", check_choice("tool(then=...)", given["then"], ("close", "hang"))))
    if "retry_after_s" in given:
        seconds = check_whole("tool(retry_after_s=...)", given["retry_after_s"], at_least=0, at_most=86400)
        found.append(("retry_after_s", seconds))
    if "text" in given:
        found.append(("text", check_text("tool(text=...)", given["text"])))
    return tuple(found)
