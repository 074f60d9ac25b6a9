"""Messages of Pydantic AI as chat messages, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic_ai.messages import (
    ModelResponse,
    RetryPromptPart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.usage import RequestUsage

from lab_agents.chat import CUT, ERROR, asked, is_cut, message_of, tokens_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic_ai.messages import ModelMessage
    from pydantic_ai.tools import ToolDefinition

    from lab_agents.chat import Asked, Message


def chat_messages(messages: Sequence[ModelMessage]) -> list[Message]:
    """The messages as a chat request has them."""
    written: list[Message] = []
    for message in messages:
        if isinstance(message, ModelResponse):
            written.append(_answer(message))
        else:
            written += [_part(part) for part in message.parts]
    return written


def _part(part: object) -> Message:
    match part:
        case ToolReturnPart():
            return {
                "role": "tool",
                "tool_call_id": part.tool_call_id,
                "content": part.model_response_str(wrap_if_error=False),
            }
        case RetryPromptPart(tool_name=str()):
            return {"role": "tool", "tool_call_id": part.tool_call_id, "content": f"{ERROR}{part.model_response()}"}
        case UserPromptPart(content=str(text)):
            return {"role": "user", "content": text}
    raise TypeError(f"expected a prompt or a result of a tool, got {part!r:.200}")


def _answer(response: ModelResponse) -> Message:
    calls = [
        {
            "id": call.tool_call_id,
            "type": "function",
            "function": {"name": call.tool_name, "arguments": call.args_as_json_str()},
        }
        for call in _calls(response)
    ]
    text = "".join(part.content for part in response.parts if isinstance(part, TextPart))
    return {"role": "assistant", "content": text or None} | ({"tool_calls": calls} if calls else {})


def chat_tools(tools: Sequence[ToolDefinition]) -> list[Message]:
    """The tools as a chat request has them."""
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description or "",
                "parameters": tool.parameters_json_schema,
            },
        }
        for tool in tools
    ]


def response(found: Mapping[str, object]) -> ModelResponse:
    """An answer of the model as Pydantic AI has it.

    Raises:
        TaskFailed: it is no chat completion.
    """
    message = message_of(found)
    text = message.get("content")
    parts: list[TextPart | ToolCallPart] = [TextPart(text)] if isinstance(text, str) and text else []
    calls = asked(message)
    parts += [ToolCallPart(call.tool, call.text, call_id) for call, call_id in zip(calls, _ids(calls), strict=True)]
    return ModelResponse(
        parts=parts,
        usage=RequestUsage(input_tokens=tokens_of(found)),
        finish_reason="length" if is_cut(found) else "stop",
    )


def _ids(calls: Sequence[Asked]) -> list[str]:
    """A different id for each call, because its place is found by its id."""
    given = [call.id for call in calls]
    return given if len({*given} - {""}) == len(given) else [f"call-{at}" for at in range(len(given))]


def results(messages: Sequence[ModelMessage]) -> list[ToolReturnPart | RetryPromptPart]:
    """The results of tool calls so far."""
    parts = [part for message in messages for part in message.parts]
    return [
        part
        for part in parts
        if isinstance(part, ToolReturnPart) or (isinstance(part, RetryPromptPart) and part.tool_name is not None)
    ]


def place(messages: Sequence[ModelMessage], call_id: str | None) -> int:
    """The place of a call in the last answer of the model.

    Raises:
        ValueError: the answer lacks the call.
    """
    ids: list[str | None] = [call.tool_call_id for call in _calls(messages[-1])]
    return ids.index(call_id)


def failure(messages: Sequence[ModelMessage]) -> str | None:
    """Why a run that has ended did not succeed, or None.

    An answer was cut, or the last result of a call is an error.
    """
    calls: dict[str, str] = {}
    last: dict[str, ToolReturnPart | RetryPromptPart] = {}
    for message in messages:
        if isinstance(message, ModelResponse) and message.finish_reason == "length":
            return CUT
        calls |= {call.tool_call_id: f"{call.tool_name} {call.args_as_json_str()}" for call in _calls(message)}
        for part in results([message]):
            last[calls.get(part.tool_call_id, part.tool_call_id)] = part
    for part in last.values():
        if isinstance(part, RetryPromptPart) or part.outcome != "success":
            return f"tool {part.tool_name} answered with an error: {str(part.content).removeprefix(ERROR)[:300]}"
    return None


def _calls(message: ModelMessage) -> list[ToolCallPart]:
    return [part for part in message.parts if isinstance(part, ToolCallPart)]
