"""An agent of Pydantic AI as a workflow of DBOS: each call is a recorded step."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dbos import DBOS, SetWorkflowID
from pydantic_ai import Agent
from pydantic_ai.durable_exec.dbos import DBOSDurability
from pydantic_ai.exceptions import ToolFailed, UsageLimitExceeded
from pydantic_ai.models import Model
from pydantic_ai.tools import RunContext, Tool
from pydantic_ai.toolsets import FunctionToolset
from pydantic_ai.usage import RunUsage, UsageLimits
from sqlalchemy.exc import DBAPIError

from lab_agents.chat import Chat
from lab_agents.dialogue import chat_messages, chat_tools, failure, place, response, results
from lab_agents.tasks import BudgetExceeded, TaskFailed
from lab_agents.tools import ToolAnswer, ToolCall, Tools

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from dbos import WorkflowHandleAsync
    from pydantic_ai.messages import ModelMessage, ModelResponse
    from pydantic_ai.models import ModelRequestParameters
    from pydantic_ai.settings import ModelSettings

    from lab_agents.chat import Message
    from lab_agents.desk import Desk
    from lab_agents.metrics import Metrics
    from lab_agents.settings import Settings
    from lab_agents.tasks import Task

_NAME = "durable"
_POLL_S = 0.05  # of the end of a workflow that DBOS itself has resumed
_LISTENER_S = 0.1  # DBOS's listener sleeps so long, and its end waits for that


@dataclass(frozen=True, kw_only=True)
class _Result:
    """DBOS's record of a workflow that has ended.

    Args:
        budget: the budget that the task has exceeded.
        failure: why the task has failed, or the budget's limit.
    """

    steps: int = 0
    tokens: int = 0
    model_calls: int = 0
    tool_calls: int = 0
    budget: str | None = None
    failure: str | None = None


class _Model(Model):
    """The lab's model, by the client that the other agents have, too.

    The `openai` client takes 0.8 s of CPU for its import, and 13 ms for each call.
    """

    def __init__(self, name: str, chat: Chat) -> None:
        super().__init__()
        self._name = name
        self._chat = chat

    @property
    def model_name(self) -> str:
        return self._name

    @property
    def system(self) -> str:
        return "lab"

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,  # noqa: ARG002 -- the lab sends none
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        tools = chat_tools(model_request_parameters.function_tools)
        return response(await self._chat.completion(chat_messages(messages), tools))


class _Connection(sqlite3.Connection):
    """A connection of DBOS, as that of the store of tasks.

    DBOS's own settings wait for the disk three times for each step.
    """

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self.execute("PRAGMA journal_mode=WAL")
        self.execute("PRAGMA synchronous=NORMAL")


class Durable:
    """Workflows with the ids of the tasks, in a SQLite file of DBOS.

    The tools are functions with a step each. Pydantic AI's own client of MCP would open
    a session for each task, and its import takes 0.9 s of CPU.
    """

    def __init__(self, settings: Settings, metrics: Metrics, desk: Desk) -> None:
        self._settings = settings
        self._chat = Chat(settings, metrics)
        self._tools = Tools(settings, metrics)
        self._desk = desk
        self._tasks: dict[str, Task] = {}
        self._flows: dict[str, asyncio.Task[Any]] = {}  # what performs each workflow
        self._cut: set[str] = set()  # tasks whose workflows stay pending
        self._perform: Callable[[str, str], Awaitable[_Result]] | None = None

    async def start(self, unfinished: Sequence[Task]) -> None:
        """Launch DBOS in this event loop. It resumes its pending workflows itself.

        Raises:
            sqlite3.Error: its file cannot be used.
        """
        settings = self._settings
        # DBOS may go on with them before `run` has them.
        self._tasks.update((task.id, task) for task in unfinished)
        url = f"sqlite:///{(settings.state_dir / 'dbos.sqlite').absolute()}"
        # The version is fixed, or workflows of an earlier release would stay pending.
        DBOS(
            config={
                "name": "lab-agents",
                "system_database_url": url,
                "sys_db_engine_kwargs": {"connect_args": {"factory": _Connection}},
                "application_version": "1",
                "notification_listener_polling_interval_sec": _LISTENER_S,
                "log_level": "ERROR",
            }
        )
        agent = self._agent()
        limits = UsageLimits(request_limit=None, total_tokens_limit=settings.budgets.max_tokens)

        @DBOS.step(name="tools")
        async def listed() -> list[Message]:
            return await self._tools.listed(self._desk.tools)

        @DBOS.step(name="call")
        async def called(task_id: str, call: ToolCall, arguments: dict[str, object]) -> ToolAnswer:
            async def send(meta: Mapping[str, str]) -> ToolAnswer:
                return await self._desk.call(call.tool, arguments, meta)

            return await self._tools.call(self._tasks[task_id], call, send)

        async def use(run: RunContext[str], /, **arguments: object) -> str:
            answer = await called(run.deps, self._step(run), arguments)
            if answer.is_error:
                raise ToolFailed(answer.text)
            return answer.text

        @DBOS.workflow(name="task")
        async def perform(task_id: str, text: str) -> _Result:
            self._enter(task_id)
            used = RunUsage()
            budget = why = None
            try:
                desk = FunctionToolset([_tool(use, one) for one in await listed()], id="desk")
                run = await agent.run(text, deps=task_id, toolsets=[desk], usage=used, usage_limits=limits)
                why = failure(run.all_messages())
            except UsageLimitExceeded as error:
                budget, why = "tokens", str(error).partition(". ")[0]
            except BudgetExceeded as error:
                budget, why = error.budget, error.limit
            except TaskFailed as error:
                why = str(error)
            except Exception as error:  # noqa: BLE001 -- recorded with the counts
                why = f"{type(error).__name__}: {str(error)[:300]}"
            finally:
                del self._flows[task_id]
            task = self._tasks[task_id]
            return _Result(
                steps=task.steps,
                tokens=used.total_tokens,
                model_calls=used.requests,
                tool_calls=task.tool_calls,
                budget=budget,
                failure=why,
            )

        self._perform = perform
        try:
            DBOS.launch()
            await self._forget_ended()
        except DBAPIError as error:
            raise error.orig or error from None

    async def _forget_ended(self) -> None:
        """Delete the workflows of tasks that ended just before the process did."""
        for flow in await DBOS.list_workflows_async(load_input=False, load_output=False):
            if flow.workflow_id not in self._tasks:
                with contextlib.suppress(DBAPIError):  # a full disk. `_enter` stops it
                    await self.forget(flow.workflow_id)

    def _agent(self) -> Agent[str, str]:
        return Agent(
            _Model(self._settings.model, self._chat),
            name=_NAME,
            deps_type=str,
            capabilities=[DBOSDurability(parallel_execution_mode="sequential")],
        )

    def _enter(self, task_id: str) -> None:
        """Register the workflow that starts in the current asyncio task.

        Raises:
            CancelledError: the process drains, or the task has ended. DBOS leaves the
                workflow pending.
        """
        flow = asyncio.current_task()
        if task_id not in self._tasks or task_id in self._cut or flow is None:
            raise asyncio.CancelledError
        self._flows[task_id] = flow

    def _step(self, run: RunContext[str]) -> ToolCall:
        """The call's place in its task, whose counts it brings up to date."""
        index = len(results(run.messages)) + place(run.messages, run.tool_call_id)
        task = self._tasks[run.deps]
        task.model_calls, task.tokens = run.usage.requests, run.usage.total_tokens
        task.steps, task.tool_calls = max(task.steps, index), max(task.tool_calls, index)
        return ToolCall(index=index, tool=run.tool_name or "")

    async def run(self, task: Task) -> None:
        self._tasks[task.id] = task
        try:
            result = await self._result(task)
        except asyncio.CancelledError:
            await self._leave(task.id)
            raise
        finally:
            del self._tasks[task.id]
        task.steps, task.tool_calls = result.steps, result.tool_calls
        task.model_calls, task.tokens = result.model_calls, result.tokens
        if result.budget is not None:
            raise BudgetExceeded(result.budget, result.failure or "")
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

    async def _leave(self, task_id: str) -> None:
        """Cut a workflow that DBOS has resumed: it runs in a task of DBOS's own."""
        self._cut.add(task_id)
        flow = self._flows.get(task_id)
        if flow is not None and flow is not asyncio.current_task():
            flow.cancel()
            await asyncio.wait({flow})

    async def forget(self, task_id: str) -> None:
        self._tasks.pop(task_id, None)  # of a task that ended before `run` had it
        await DBOS.cancel_workflow_async(task_id)
        await DBOS.delete_workflow_async(task_id)
        self._cut.discard(task_id)

    async def close(self) -> None:
        await self._chat.close()
        await self._desk.close()
        await asyncio.to_thread(DBOS.destroy)  # it joins threads


def _tool(use: Callable[..., Awaitable[str]], listed: Message) -> Tool[str]:
    """A tool of the desk as Pydantic AI has it."""
    match listed:
        case {"function": {"name": str(name), "description": str(text), "parameters": dict(schema)}}:
            return Tool.from_schema(use, name, text, schema, takes_ctx=True)
    raise TaskFailed(f"expected a tool of the desk, got {listed!r:.200}")
