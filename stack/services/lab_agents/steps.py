"""The two kinds of steps: an answer of the model, a tool call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab_agents.chat import ERROR, Asked, Chat, Message, is_listed, tool_message
from lab_agents.tools import ToolAnswer, ToolCall, Tools

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lab_agents.desk import Desk
    from lab_agents.metrics import Metrics
    from lab_agents.settings import Settings
    from lab_agents.tasks import Task


class Steps:
    """Model and tools of the agents that have no client of their own framework."""

    def __init__(self, settings: Settings, metrics: Metrics, desk: Desk) -> None:
        self._chat = Chat(settings, metrics)
        self._desk = desk
        self._tools = Tools(settings, metrics)

    async def ask(self, task: Task, messages: Sequence[Message], tools: Sequence[Message]) -> Message:
        """The next message of the model. Raises TaskFailed."""
        return await self._chat.answer(task, messages, tools)

    async def tools(self) -> list[Message]:
        """The tools for the model. Raises TaskFailed after all tries."""
        return await self._tools.listed(self._desk.tools)

    async def call(self, task: Task, index: int, call: Asked, tools: Sequence[Message]) -> Message:
        """The tool message with a call's result. Raises TaskFailed after all tries."""
        if call.arguments is None:
            self._tools.require_step(index)
            task.steps += 1
            return tool_message(call, f"{ERROR}the arguments are not a JSON object")
        arguments = call.arguments

        async def send(meta: Mapping[str, str]) -> ToolAnswer:
            return await self._desk.call(call.tool, arguments, meta)

        step = ToolCall(index=index, tool=call.tool, listed=is_listed(call, tools))
        answer = await self._tools.call(task, step, send)
        return tool_message(call, answer.text)

    async def close(self) -> None:
        await self._chat.close()
        await self._desk.close()
