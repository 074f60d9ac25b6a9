"""An agent of the OpenAI Agents SDK.

Its HTTP contract is in docs/agents.md.

A task is on disk before it is accepted. What a killed process has not finished, the
next one performs again from its start: the key of each call is made of the task and of
the call itself, so the desk applies nothing twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from agents import Agent, OpenAIChatCompletionsModel, RunContextWrapper, RunHooks, Runner, set_tracing_disabled
from agents.exceptions import MaxTurnsExceeded, ModelBehaviorError
from agents.mcp import MCPServerStreamableHttp, MCPToolCustomDataContext, MCPToolMetaContext
from openai import AsyncOpenAI, BadRequestError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

MAX_STEPS = 20
TASK_S = 15.0  # of a task in one process, with all tries
TOOL_S, TOOL_RETRIES = 3.0, 3
RETRY_S = 0.3
LONGEST_WAIT_S = 30.0
# A second try would end in the same way.
FINAL = (MaxTurnsExceeded, ModelBehaviorError, BadRequestError)


@dataclass(kw_only=True)
class Task:
    """One task, also the context of its run in the SDK."""

    id: str
    input: str
    status: str = "running"
    steps: int = 0
    tokens: int = 0
    model_calls: int = 0
    tool_calls: int = 0
    error: str | None = None
    refused: dict[str, str] = field(default_factory=dict)  # errors of tools, by call
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def state(self) -> dict[str, Any]:
        names = ("id", "status", "steps", "tokens", "model_calls", "tool_calls", "error")
        return {name: getattr(self, name) for name in names}


class Counts(RunHooks[Task]):
    """Counts of a task while it runs."""

    async def on_llm_end(self, context: RunContextWrapper[Task], _agent: object, response: Any) -> None:
        context.context.model_calls += 1
        context.context.tokens += response.usage.total_tokens

    async def on_tool_start(self, context: RunContextWrapper[Task], _agent: object, _tool: object) -> None:
        context.context.tool_calls += 1

    async def on_tool_end(
        self, context: RunContextWrapper[Task], _agent: object, _tool: object, _result: object
    ) -> None:
        context.context.steps += 1


def call_of(context: MCPToolMetaContext | MCPToolCustomDataContext) -> str:
    return f"{context.tool_name} {json.dumps(dict(context.arguments or {}), sort_keys=True)}"


def key_of(context: MCPToolMetaContext) -> dict[str, Any]:
    """The `_meta` of a tool call: the same key for each try and each process."""
    return {"idempotency-key": f"{context.run_context.context.id}/{call_of(context)}"}


def note_error(context: MCPToolCustomDataContext) -> None:
    """Keep a tool's error, which the model may ignore."""
    refused = context.run_context.context.refused
    if context.is_error:
        refused[call_of(context)] = str(context.tool_output)[:200]
    else:
        refused.pop(call_of(context), None)


class Store:
    """Tasks in a SQLite file."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("CREATE TABLE IF NOT EXISTS tasks (id TEXT PRIMARY KEY, input TEXT, state TEXT)")

    def save(self, task: Task) -> None:
        self._db.execute("REPLACE INTO tasks VALUES (?, ?, ?)", (task.id, task.input, json.dumps(task.state())))

    def all(self) -> list[Task]:
        return [
            Task(input=text, **json.loads(state)) for text, state in self._db.execute("SELECT input, state FROM tasks")
        ]


class Service:
    """All tasks, and their runs."""

    def __init__(self, *, store: Store, model: OpenAIChatCompletionsModel, desk_url: str) -> None:
        self._store = store
        self._model = model
        self._desk_url = desk_url
        self._runs: dict[str, asyncio.Task[None]] = {}
        self._closing = False
        self.tasks = {task.id: task for task in store.all()}

    def resume(self) -> None:
        for task in self.tasks.values():
            if task.status == "running":
                self._begin(task)
            else:
                task.ended.set()

    def accept(self, task_id: str, text: str) -> tuple[Task, bool]:
        """The task, and True if it is new."""
        if task_id in self.tasks:
            return self.tasks[task_id], False
        task = Task(id=task_id, input=text)
        self._store.save(task)
        self.tasks[task_id] = task
        self._begin(task)
        return task, True

    async def cancel(self, task: Task) -> None:
        run = self._runs.get(task.id)
        if task.status == "running" and run is not None:
            try:
                self._end(task, "cancelled")
            finally:  # also if that cannot be saved
                run.cancel()
                await asyncio.wait({run})

    async def close(self) -> None:
        """Leave the running tasks to the next process."""
        self._closing = True
        if runs := list(self._runs.values()):
            for run in runs:
                run.cancel()
            await asyncio.wait(runs, timeout=2)

    def _begin(self, task: Task) -> None:
        run = self._runs[task.id] = asyncio.create_task(self._perform(task))
        run.add_done_callback(lambda _: self._runs.pop(task.id))

    async def _perform(self, task: Task) -> None:
        """Run a task, again from its start after an error, until it ends."""
        now_s = asyncio.get_running_loop().time
        ends_s = now_s() + TASK_S
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(ends_s):
                while now_s() < ends_s:  # the SDK may replace the one cancel by an error
                    if await self._tried(task):
                        return
                    await asyncio.sleep(RETRY_S)
        self._end(task, "failed", f"budget seconds exceeded: {TASK_S:g} s. {task.error or ''}")

    async def _tried(self, task: Task) -> bool:
        """True if the task has ended, or this process ends."""
        task.steps = 0
        task.refused.clear()
        try:
            async with self._desk() as desk:
                agent = Agent[Task](name="clerk", instructions="Do the plan.", model=self._model, mcp_servers=[desk])
                await Runner.run(agent, task.input, context=task, max_turns=MAX_STEPS + 1, hooks=Counts())
        except FINAL as error:
            budget = "budget steps exceeded: " if isinstance(error, MaxTurnsExceeded) else ""
            self._end(task, "failed", f"{budget}{error}")
        except Exception as error:  # noqa: BLE001 - the SDK has many for a lost model or desk
            if task.status != "running" or self._closing:  # cancelled, and the SDK broke at it
                return True
            task.error = f"{type(error).__name__}: {str(error)[:200]}"
            return False
        else:
            wrong = "; ".join(f"{call}: {text}" for call, text in task.refused.items())
            self._end(task, "failed" if wrong else "completed", wrong or None)
        return True

    def _desk(self) -> MCPServerStreamableHttp:
        """A session with the tool server for one try of a task."""
        return MCPServerStreamableHttp(
            {"url": self._desk_url, "timeout": TOOL_S, "sse_read_timeout": TOOL_S},
            cache_tools_list=True,
            client_session_timeout_seconds=TOOL_S,
            max_retry_attempts=TOOL_RETRIES,
            retry_backoff_seconds_base=0.1,
            failure_error_function=None,  # a call without an answer is no text for the model
            tool_meta_resolver=key_of,
            custom_data_extractor=note_error,
        )

    def _end(self, task: Task, status: str, error: str | None = None) -> None:
        if task.status != "running":  # the first end holds
            return
        task.status, task.error = status, error
        try:
            self._store.save(task)
        finally:
            task.ended.set()


def application(service: Service) -> Starlette:
    """`/tasks`, `/tasks/ID` and `/healthz`."""

    async def accept(request: Request) -> Response:
        match await request.json():
            case {"id": str(task_id), "input": str(text)} if task_id and "/" not in task_id:
                task, is_new = service.accept(task_id, text)
                return JSONResponse(task.state(), 202 if is_new else 200)
        raise ValueError("another body")

    async def one(request: Request) -> Response:
        task = service.tasks.get(request.path_params["id"])
        if task is None:
            return JSONResponse({"error": "unknown task"}, 404)
        if request.method == "DELETE":
            await service.cancel(task)
            return JSONResponse(task.state(), 202)
        wait_s = min(LONGEST_WAIT_S, float(request.query_params.get("wait_s", 0)))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(task.ended.wait(), wait_s)
        return JSONResponse(task.state())

    async def refuse(_: Request, error: Exception) -> Response:
        return JSONResponse({"error": f"expected an id and an input, or seconds in wait_s: {error!r}"}, 400)

    async def not_saved(_: Request, error: Exception) -> Response:
        return JSONResponse({"error": f"the task could not be saved: {error}"}, 503)

    async def health(_: Request) -> Response:
        return JSONResponse({"ok": True})

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        service.resume()
        yield
        await service.close()

    routes = [
        Route("/tasks", accept, methods=["POST"]),
        Route("/tasks/{id}", one, methods=["GET", "DELETE"]),
        Route("/healthz", health),
    ]
    # What reading a request raises, and what SQLite raises for half of a character.
    handlers = {ValueError: refuse, sqlite3.Error: not_saved}
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers)


def main() -> None:
    set_tracing_disabled(True)
    client = AsyncOpenAI(base_url=os.environ["MODEL_URL"], api_key="none", max_retries=5)
    service = Service(
        store=Store(Path(os.environ["STATE_DIR"]) / "tasks.sqlite"),
        model=OpenAIChatCompletionsModel(os.environ["MODEL"], client),
        desk_url=os.environ["DESK_URL"],
    )
    port = int(os.environ.get("PORT", "8200"))
    uvicorn.run(
        application(service),
        host=os.environ.get("HOST", "127.0.0.1"),
        port=port,
        log_level="warning",
        timeout_graceful_shutdown=2,  # the next process performs what is left
    )


if __name__ == "__main__":
    main()
