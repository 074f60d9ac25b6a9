"""An agent of LangGraph: a checkpoint on disk after each node."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import aiosqlite
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from lab_agents.chat import require_success, results, waiting
from lab_agents.steps import Steps
from lab_agents.tasks import Task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langgraph.graph.state import CompiledStateGraph

    from lab_agents.desk import Desk
    from lab_agents.metrics import Metrics
    from lab_agents.settings import Settings

_COUNTS = ("steps", "tokens", "model_calls", "tool_calls")
_NO_LIMIT = 1_000_000_000  # of nodes: the budgets are ours


class _State(TypedDict):
    messages: Annotated[list[Any], operator.add]  # LangGraph evaluates these annotations
    tools: list[Any]
    counts: dict[str, int]


class Checkpointed:
    """The graph `tools -> model -> call -> call -> model`, one tool call a node."""

    def __init__(self, settings: Settings, metrics: Metrics, desk: Desk) -> None:
        self._steps = Steps(settings, metrics, desk)
        self._path = settings.state_dir / "checkpoints.sqlite"
        self._saver: AsyncSqliteSaver | None = None
        self._graph: CompiledStateGraph[_State, Task, _State, _State] | None = None

    async def start(self, unfinished: Sequence[Task]) -> None:  # noqa: ARG002 -- `run` reads `resumed`
        connection = await aiosqlite.connect(self._path)
        self._saver = AsyncSqliteSaver(connection)  # from now on `close` ends the connection's thread
        await connection.execute("PRAGMA synchronous=NORMAL")  # as the store of tasks
        await self._saver.setup()
        graph = StateGraph(_State, context_schema=Task)
        graph.add_node("list", self._list)
        graph.add_node("model", self._ask)
        graph.add_node("call", self._call)
        graph.add_edge(START, "list")
        graph.add_edge("list", "model")
        for node in ("model", "call"):
            graph.add_conditional_edges(node, _next, ["call", "model", END])
        self._graph = graph.compile(checkpointer=self._saver)

    async def run(self, task: Task) -> None:
        if self._graph is None:
            raise RuntimeError("the agent is not started")
        config = {"configurable": {"thread_id": task.id}, "recursion_limit": _NO_LIMIT}
        begun = (await self._graph.aget_state(config)).values if task.resumed else {}
        for name, count in begun.get("counts", {}).items():
            setattr(task, name, count)
        start = {"messages": [{"role": "user", "content": task.input}], "counts": _counts(task)}
        # "sync": the next node starts after the checkpoint is written.
        state = await self._graph.ainvoke(None if begun else start, config, context=task, durability="sync")
        require_success(state["messages"])

    async def _list(self, _: _State) -> dict[str, object]:
        return {"tools": await self._steps.tools()}

    async def _ask(self, state: _State, runtime: Runtime[Task]) -> dict[str, object]:
        message = await self._steps.ask(runtime.context, state["messages"], state["tools"])
        return {"messages": [message], "counts": _counts(runtime.context)}

    async def _call(self, state: _State, runtime: Runtime[Task]) -> dict[str, object]:
        messages = state["messages"]
        message = await self._steps.call(runtime.context, results(messages), waiting(messages)[0], state["tools"])
        return {"messages": [message], "counts": _counts(runtime.context)}

    async def forget(self, task_id: str) -> None:
        if self._saver is not None:
            await self._saver.adelete_thread(task_id)

    async def close(self) -> None:
        await self._steps.close()
        if self._saver is not None:
            await self._saver.conn.close()


def _counts(task: Task) -> dict[str, int]:
    return {name: getattr(task, name) for name in _COUNTS}


def _next(state: _State) -> str:
    if waiting(state["messages"]):
        return "call"
    return "model" if state["messages"][-1].get("role") == "tool" else END
