"""A plain loop over model and tools. Its tasks are in memory and end with it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING

from lab_agents.chat import Message, require_success, results, tool_message, waiting
from lab_agents.settings import Budgets
from lab_agents.steps import Steps
from lab_agents.tasks import BudgetExceeded

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from lab_agents.desk import Desk
    from lab_agents.metrics import Metrics
    from lab_agents.settings import Settings
    from lab_agents.tasks import Task

_NO_BUDGET = Budgets(max_steps=1 << 53, max_tokens=1 << 53)


class Naive:
    """The loop, with the checkpoints that two flaws need."""

    def __init__(self, settings: Settings, metrics: Metrics, desk: Desk) -> None:
        self._steps = Steps(settings, metrics, desk)
        self._unlimited = Steps(replace(settings, budgets=_NO_BUDGET), metrics, desk)
        self._beyond: set[asyncio.Task[None]] = set()  # work on tasks that have failed for their budget
        self._flaws = settings.flaws
        self._workers = settings.workers
        self._saved = _Saved(settings.state_dir) if settings.persistent else None

    async def start(self, unfinished: Sequence[Task]) -> None:
        pass

    async def run(self, task: Task) -> None:
        """Let each worker perform the whole task, all at the same time."""
        ended = await asyncio.gather(*(self._perform(task) for _ in range(self._workers)), return_exceptions=True)
        for error in ended:
            if error is not None:
                raise error

    async def _perform(self, task: Task) -> None:
        messages = (self._saved and self._saved.read(task.id)) or [{"role": "user", "content": task.input}]
        tools = await self._steps.tools()
        try:
            await self._loop(self._steps, task, messages, tools)
        except BudgetExceeded:
            if "ignores_budget" in self._flaws:
                work = asyncio.create_task(self._loop(self._unlimited, replace(task), messages, tools))
                self._beyond.add(work)
                work.add_done_callback(self._beyond.discard)
            raise
        require_success(messages)

    async def _loop(self, steps: Steps, task: Task, messages: list[Message], tools: Sequence[Message]) -> None:
        while True:
            for call in waiting(messages):
                if self._saved and "checkpoint_before_effect" in self._flaws:
                    self._saved.write(task.id, [*messages, tool_message(call, "{}")])
                messages.append(await steps.call(task, results(messages), call, tools))
                if self._saved and "checkpoint_after_without_key" in self._flaws:
                    self._saved.write(task.id, messages)
            if "repeats_model_calls" in self._flaws:
                await steps.ask(task, messages, tools)
            messages.append(await steps.ask(task, messages, tools))
            if not waiting(messages):
                break

    async def forget(self, task_id: str) -> None:
        if self._saved:
            self._saved.delete(task_id)

    async def close(self) -> None:
        for work in self._beyond:
            work.cancel()
        await asyncio.gather(*self._beyond, return_exceptions=True)
        await self._unlimited.close()
        await self._steps.close()


class _Saved:
    """Messages of tasks, one file a task."""

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir / "messages"
        self._folder.mkdir(parents=True, exist_ok=True)

    def read(self, task_id: str) -> list[Message] | None:
        path = self._folder / f"{task_id}.json"
        return json.loads(path.read_text()) if path.exists() else None

    def write(self, task_id: str, messages: list[Message]) -> None:
        path = self._folder / f"{task_id}.json"
        scratch = path.with_suffix(".new")
        scratch.write_text(json.dumps(messages))
        scratch.replace(path)

    def delete(self, task_id: str) -> None:
        (self._folder / f"{task_id}.json").unlink(missing_ok=True)
