"""An agent of Pydantic AI as a workflow of DBOS: each call is a recorded step."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx2
from dbos import DBOS, SetWorkflowID
from mcp.shared.exceptions import MCPError
from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.durable_exec.dbos import DBOSDurability
from pydantic_ai.exceptions import ToolFailed, UsageLimitExceeded
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.messages import ModelMessage, ModelResponse, RetryPromptPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.usage import RunUsage, UsageLimits

from lab_agents.chat import ERROR
from lab_agents.tasks import BudgetExceeded, TaskFailed
from lab_agents.tools import NoAnswer, ToolAnswer, ToolCall, Tools

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from typing import Self

    from dbos import WorkflowHandleAsync
    from pydantic_ai import RunContext
    from pydantic_ai.mcp import CallToolFunc, ToolResult
    from pydantic_ai.models import ModelRequestParameters
    from pydantic_ai.settings import ModelSettings

    from lab_agents.desk import Desk
    from lab_agents.metrics import Metrics
    from lab_agents.settings import Settings
    from lab_agents.tasks import Task

_NAME = "durable"
_MODEL_RETRIES = 10
_POLL_S = 0.05  # of the end of a workflow that DBOS itself has resumed


@dataclass(frozen=True, kw_only=True)
class _Result:
    """DBOS's record of a workflow that has ended."""

    tokens: int
    model_calls: int
    steps: int = 0
    over_tokens: str | None = None
    failure: str | None = None


class _Counted(WrapperModel):
    """The model, counting its answers. A replayed step does not come here."""

    def __init__(self, wrapped: OpenAIChatModel, metrics: Metrics) -> None:
        super().__init__(wrapped)
        self._metrics = metrics

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        response = await super().request(messages, model_settings, model_request_parameters)
        self._metrics.model_calls.inc()
        return response


class _Toolset(MCPToolset[str]):
    """The tool server's list of tools, with deadlines and retries."""

    tries: Tools

    async def __aenter__(self) -> Self:
        async def enter() -> Self:
            try:
                return await super(_Toolset, self).__aenter__()
            except (httpx2.HTTPError, MCPError, RuntimeError, ValueError, ExceptionGroup) as error:
                raise NoAnswer(f"{error!r:.300}") from error

        return await self.tries.listed(enter)


class Durable:
    """Workflows with the ids of the tasks, in a SQLite file of DBOS."""

    def __init__(self, settings: Settings, metrics: Metrics, desk: Desk) -> None:
        self._settings = settings
        self._tools = Tools(settings, metrics)
        self._desk = desk
        self._metrics = metrics
        self._tasks: dict[str, Task] = {}
        self._in_call: dict[str, set[asyncio.Task[Any]]] = {}
        self._perform: Callable[[str, str], Awaitable[_Result]] | None = None

    async def start(self) -> None:
        """Launch DBOS in this event loop. It resumes its pending workflows itself."""
        settings = self._settings
        url = f"sqlite:///{(settings.state_dir / 'dbos.sqlite').absolute()}"
        # The version is fixed, or workflows of an earlier release would stay pending.
        DBOS(
            config={
                "name": "lab-agents",
                "system_database_url": url,
                "application_version": "1",
                "log_level": "ERROR",
            }
        )
        client = AsyncOpenAI(
            base_url=settings.model_url,
            api_key="none",
            max_retries=_MODEL_RETRIES,
            timeout=settings.calls.model_s,
        )
        model = OpenAIChatModel(settings.model, provider=OpenAIProvider(openai_client=client))
        # A new client for each session would read the CA certificates: 80 ms of CPU.
        client_of_desk = httpx2.AsyncClient(timeout=settings.calls.tool_s)
        desk = _Toolset(settings.desk_url, id="desk", process_tool_call=self._call, http_client=client_of_desk)
        desk.tries = self._tools
        agent = Agent(
            _Counted(model, self._metrics),
            name=_NAME,
            deps_type=str,
            toolsets=[desk],
            capabilities=[DBOSDurability(parallel_execution_mode="sequential")],
        )
        limits = UsageLimits(request_limit=None, total_tokens_limit=settings.budgets.max_tokens)

        @DBOS.workflow(name="task")
        async def perform(task_id: str, text: str) -> _Result:
            used = RunUsage()
            try:
                run = await agent.run(text, deps=task_id, usage=used, usage_limits=limits)
            except UsageLimitExceeded as error:
                return _Result(tokens=used.total_tokens, model_calls=used.requests, over_tokens=str(error))
            messages = run.all_messages()
            return _Result(
                steps=len(_results(messages)),
                tokens=used.total_tokens,
                model_calls=used.requests,
                failure=_failure(messages),
            )

        self._perform = perform
        DBOS.launch()

    async def run(self, task: Task) -> None:
        self._tasks[task.id] = task
        try:
            result = await self._result(task)
        except asyncio.CancelledError:
            for call in self._in_call.get(task.id, ()):
                call.cancel()
            raise
        finally:
            del self._tasks[task.id]
        task.model_calls, task.tokens = result.model_calls, result.tokens
        task.steps = max(task.steps, result.steps)
        task.tool_calls = max(task.tool_calls, task.steps)
        if result.over_tokens is not None:
            raise BudgetExceeded("tokens", result.over_tokens.partition(". ")[0])
        if result.failure is not None:
            raise TaskFailed(result.failure)

    async def _result(self, task: Task) -> _Result:
        if self._perform is None:
            raise RuntimeError("the agent is not started")
        if task.resumed and await DBOS.get_workflow_status_async(task.id) is not None:
            handle: WorkflowHandleAsync[_Result] = await DBOS.retrieve_workflow_async(task.id)
            return await handle.get_result(polling_interval_sec=_POLL_S)
        with SetWorkflowID(task.id):
            return await self._perform(task.id, task.input)

    async def _call(self, run: RunContext[str], _: CallToolFunc, name: str, arguments: dict[str, object]) -> ToolResult:
        """One tool call inside its step: Pydantic AI's hook for calls of tools.

        The call takes a session of `Desk`. That of the toolset is shared by all runs,
        and stays broken after a lost connection until the last of them has ended.
        """
        index = len(_results(run.messages)) + _place(run.messages, run.tool_call_id)
        task = self._tasks.get(run.deps)
        if task is None:  # cancelled, and killed before DBOS had recorded that
            raise TaskFailed("the task is over")
        task.model_calls, task.tokens = run.usage.requests, run.usage.total_tokens
        task.steps, task.tool_calls = max(task.steps, index), max(task.tool_calls, index)

        async def send(meta: Mapping[str, str]) -> ToolAnswer:
            return await self._desk.call(name, arguments, meta)

        call = asyncio.current_task()
        if call is None:
            raise RuntimeError("a step runs in a task")
        calls = self._in_call.setdefault(task.id, set())
        calls.add(call)
        try:
            answer = await self._tools.call(task, ToolCall(index=index, tool=name), send)
        finally:
            calls.discard(call)
            if not calls:
                self._in_call.pop(task.id, None)
        if answer.is_error:
            raise ToolFailed(answer.text)
        return answer.text

    async def forget(self, task_id: str) -> None:
        await DBOS.cancel_workflow_async(task_id)
        await DBOS.delete_workflow_async(task_id)

    async def close(self) -> None:
        await self._desk.close()
        DBOS.destroy()


def _results(messages: Sequence[ModelMessage]) -> list[ToolReturnPart | RetryPromptPart]:
    """The results of tool calls so far."""
    parts = [part for message in messages for part in message.parts]
    return [
        part
        for part in parts
        if isinstance(part, ToolReturnPart) or (isinstance(part, RetryPromptPart) and part.tool_name is not None)
    ]


def _place(messages: Sequence[ModelMessage], call_id: str | None) -> int:
    """The place of a call in the last answer of the model."""
    calls = _calls(messages[-1]) if messages else []
    return next((at for at, call in enumerate(calls) if call.tool_call_id == call_id), 0)


def _calls(message: ModelMessage) -> list[ToolCallPart]:
    return [part for part in message.parts if isinstance(part, ToolCallPart)]


def _failure(messages: Sequence[ModelMessage]) -> str | None:
    """The first call whose last result is an error, or None."""
    calls: dict[str, str] = {}
    last: dict[str, ToolReturnPart | RetryPromptPart] = {}
    for message in messages:
        calls |= {call.tool_call_id: f"{call.tool_name} {call.args_as_json_str()}" for call in _calls(message)}
        for part in _results([message]):
            last[calls.get(part.tool_call_id, part.tool_call_id)] = part
    for part in last.values():
        if isinstance(part, RetryPromptPart) or part.outcome != "success":
            return f"tool {part.tool_name} answered with an error: {str(part.content).removeprefix(ERROR)[:300]}"
    return None
