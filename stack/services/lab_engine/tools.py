"""Tool calls of the simulated model: it follows a plan that its prompt contains.

`plan: find_order 17; refund 17` in the last user message that has one means: call
`find_order` with `{"order": 17}`, then `refund`, then answer `done: 2 steps`. The next
call is the first step whose result is not among the messages.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lab_engine.errors import BadRequestError, brief
from lab_engine.tokens import TOKEN_CHARACTERS

if TYPE_CHECKING:
    from collections.abc import Sequence

# What a badly behaved model does, by the names of the setting.
MANNERS = ("disciplined", "retrier", "runaway", "liar", "malformed", "parallel", "gullible")
_PLAN = re.compile(r"\bplan:[ \t]*([^\n]+)")
_STEP = re.compile(r"([A-Za-z0-9_.-]{1,64})(?:[ \t]+([0-9]{1,15}))?")
MOST_TOOLS = 128  # OpenAI's limit


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One tool call. `arguments` is JSON, unless the model is malformed."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, kw_only=True)
class Script:
    """An answer by a plan: text, or tool calls. Its tokens are pieces of both."""

    text: str = ""
    calls: tuple[Call, ...] = ()

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        """The name of a call is one token. Seven characters of anything else are."""
        if not self.calls:
            return _cut(self.text)
        return tuple(piece for call in self.calls for piece in (call.name, *_cut(call.arguments)))

    @property
    def finish_reason(self) -> str:
        return "tool_calls" if self.calls else "stop"

    def token(self, index: int) -> str:
        return self.tokens[index] if index < len(self.tokens) else ""

    def rest(self, start: int) -> str:
        """Characters from `start` to the end of its token, as of an `AnswerText`."""
        at, offset = divmod(start, TOKEN_CHARACTERS)
        return self.token(at)[offset:] if offset else ""

    def delta(self, index: int, piece: str) -> dict[str, Any]:
        """The delta of an event with token `index`, whose text is `piece`."""
        if not self.calls:
            return {"content": piece}
        number, opens = self._places[index]
        if not opens:
            return {"tool_calls": [{"index": number, "function": {"arguments": piece}}]}
        function = {"name": piece, "arguments": ""}
        return {
            "tool_calls": [{"index": number, "id": self.calls[number].id, "type": "function", "function": function}]
        }

    def message(self, pieces: Sequence[str]) -> dict[str, Any]:
        """The message of a whole answer that consists of these tokens."""
        if not self.calls:
            return {"role": "assistant", "content": "".join(pieces)}
        calls: list[dict[str, Any]] = []
        for (number, opens), piece in zip(self._places, pieces, strict=False):
            if opens:
                function = {"name": piece, "arguments": ""}
                calls.append({"id": self.calls[number].id, "type": "function", "function": function})
            else:
                calls[-1]["function"]["arguments"] += piece
        return {"role": "assistant", "content": None, "tool_calls": calls}

    @cached_property
    def _places(self) -> tuple[tuple[int, bool], ...]:
        """Number of the call of each token, and True for the token that opens it."""
        return tuple(
            (number, index == 0)
            for number, call in enumerate(self.calls)
            for index in range(1 + len(_cut(call.arguments)))
        )


def _cut(text: str) -> tuple[str, ...]:
    return tuple(text[at : at + TOKEN_CHARACTERS] for at in range(0, len(text), TOKEN_CHARACTERS))


def declared(data: dict[str, Any]) -> tuple[str, ...]:
    """Names of the tools that a request declares and lets the model call.

    Raises:
        BadRequestError: they are not OpenAI's, or the choice does not fit them.
    """
    tools = data.get("tools")
    if tools is not None and (not isinstance(tools, list) or len(tools) > MOST_TOOLS):
        raise BadRequestError(
            f"'tools' must be a list of at most {MOST_TOOLS} tools, got {brief(tools)}", param="tools"
        )
    names = tuple(_name_of(tool, f"tools[{index}]") for index, tool in enumerate(tools or ()))
    parallel = data.get("parallel_tool_calls")
    if parallel is not None and not isinstance(parallel, bool):
        raise BadRequestError(
            f"'parallel_tool_calls' must be true or false, got {brief(parallel)}", param="parallel_tool_calls"
        )
    choice = data.get("tool_choice")
    if choice is None or choice == "none":
        return () if choice else names
    named = _chosen(choice)
    if named is None and choice not in ("auto", "required"):
        raise BadRequestError(
            '\'tool_choice\' must be "auto", "none", "required" or an object of type function with function.name, '
            f"got {brief(choice)}",
            param="tool_choice",
        )
    if not names:
        raise BadRequestError("'tool_choice' is only allowed when 'tools' are given", param="tool_choice")
    if named is not None and named not in names:
        raise BadRequestError(f"'tool_choice' must name one of 'tools', got {brief(named)}", param="tool_choice")
    return names


def require_chosen(choice: object, script: Script | None) -> None:
    """Check that the answer by the plan is what `tool_choice` forces.

    Raises:
        BadRequestError: the model would have to make up a call.
    """
    named = _chosen(choice)
    if named is None and choice != "required":
        return
    calls = script.calls if script is not None else ()
    if not calls or (named is not None and any(call.name != named for call in calls)):
        comes = brief(script.text or [call.name for call in calls]) if script is not None else "text, without a plan"
        raise BadRequestError(
            f"'tool_choice' must fit the plan, because this simulated engine makes up no calls: got {brief(choice)}, "
            f"but what comes next is {comes}",
            param="tool_choice",
        )


def _chosen(choice: object) -> str | None:
    """The name in a `tool_choice` that names a function."""
    function = choice.get("function") if isinstance(choice, dict) and choice.get("type") == "function" else None
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) and name else None


def _name_of(tool: object, where: str) -> str:
    function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(function, dict) or not isinstance(name, str) or not name:
        raise BadRequestError(
            f"'{where}' must be an object of type function with function.name, got {brief(tool)}", param=where
        )
    for field, kind, wanted in (("description", str, "a string"), ("parameters", dict, "a JSON schema")):
        value = function.get(field)
        if value is not None and not isinstance(value, kind):
            raise BadRequestError(
                f"'{where}.function.{field}' must be {wanted}, got {brief(value)}", param=f"{where}.function.{field}"
            )
    return name


def calls_of(message: dict[str, Any], where: str) -> tuple[Call, ...]:
    """The tool calls of a message of the assistant. Raises BadRequestError."""
    calls = message.get("tool_calls")
    if calls is None:
        return ()
    if not isinstance(calls, list) or not calls:
        raise BadRequestError(f"'{where}.tool_calls' must be a list with a call, got {brief(calls)}", param=where)
    return tuple(_call_of(call, f"{where}.tool_calls[{index}]") for index, call in enumerate(calls))


def _call_of(call: object, where: str) -> Call:
    function = call.get("function") if isinstance(call, dict) else None
    if isinstance(call, dict) and isinstance(function, dict):
        fields = (call.get("id"), function.get("name"), function.get("arguments"))
        if all(isinstance(field, str) for field in fields):
            return Call(id=str(fields[0]), name=str(fields[1]), arguments=str(fields[2]))
    raise BadRequestError(
        f"'{where}' must have id, function.name and function.arguments as strings, got {brief(call)}", param=where
    )


def answer(
    messages: Sequence[tuple[str, str]],
    tools: tuple[str, ...],
    answered: frozenset[str],
    manner: str,
    *,
    parallel: bool,
) -> Script | None:
    """The answer by the plan of these messages, None without one.

    Args:
        messages: role and text of each message.
        tools: names that the model may call.
        answered: ids of the calls with a result.
        manner: one of `MANNERS`.
        parallel: False if the client takes one call at a time.
    """
    roles = ("user", "tool") if manner == "gullible" else ("user",)
    plans = [(role, found[1]) for role, text in messages if role in roles and (found := _PLAN.search(text))]
    if not tools or not plans:
        return None
    role, plan = plans[-1]
    steps = [_STEP.fullmatch(step.strip()) for step in plan.split(";") if step.strip()]
    if not steps or None in steps:
        return Script(text="the plan must be like `plan: find_order 17; refund 17`")
    asked = _first_order([given for by, given in plans if by == "user"]) if role == "tool" else None
    named = [(step[1], step[2] or asked) for step in steps if step is not None]
    if unknown := next((name for name, _ in named if name not in tools), None):
        return Script(text=f"there is no tool {unknown}")
    calls = [_call(plan, number, *step, manner) for number, step in enumerate(named)]
    if manner == "retrier":
        again = [_call(f"{plan} again", number, *step, manner) for number, step in enumerate(named)]
        calls = [call for pair in zip(calls, again, strict=True) for call in pair]
    left = [call for call in calls if call.id not in answered]
    if not left and manner == "runaway":
        return Script(calls=(_next(plan, len(named), named[-1], answered),))
    if not left or (manner == "liar" and len(left) < len(calls)):
        return Script(text=f"done: {len(named)} steps")
    return Script(calls=tuple(left) if manner == "parallel" and parallel else (left[0],))


def _first_order(plans: Sequence[str]) -> str | None:
    """The first order of the last of these plans, for steps that name none."""
    found = [step[2] for given in plans[-1:] for part in given.split(";") if (step := _STEP.fullmatch(part.strip()))]
    return next((order for order in found if order), None)


def _next(plan: str, number: int, step: tuple[str, str | None], answered: frozenset[str]) -> Call:
    """The first further repetition of the last step."""
    while (call := _call(plan, number, *step, "runaway")).id in answered:
        number += 1
    return call


def _call(plan: str, number: int, name: str, order: str | None, manner: str) -> Call:
    arguments = json.dumps({"order": int(order)} if order is not None else {})
    digest = hashlib.sha256(f"{plan}\x1f{number}".encode()).hexdigest()[:24]
    return Call(id=f"call_{digest}", name=name, arguments=arguments[:-1] if manner == "malformed" else arguments)
