"""A plain loop over model and tools. Its tasks are in memory and end with it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from lab_agents.chat import Message, require_success, results, tool_message, waiting
from lab_agents.steps import Steps

if TYPE_CHECKING:
    from pathlib import Path

    from lab_agents.desk import Desk
    from lab_agents.metrics import Metrics
    from lab_agents.settings import Settings
    from lab_agents.tasks import Task


class Naive:
    """The loop, with the checkpoints that two flaws need."""

    def __init__(self, settings: Settings, metrics: Metrics, desk: Desk) -> None:
        self._steps = Steps(settings, metrics, desk)
        self._flaws = settings.flaws
        self._workers = settings.workers
        self._saved = _Saved(settings.state_dir) if settings.persistent else None

    async def start(self) -> None:
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
        while True:
            for call in waiting(messages):
                if self._saved and "checkpoint_before_effect" in self._flaws:
                    self._saved.write(task.id, [*messages, tool_message(call, "{}")])
                messages.append(await self._steps.call(task, results(messages), call, tools))
                if self._saved and "checkpoint_after_without_key" in self._flaws:
                    self._saved.write(task.id, messages)
            if "repeats_model_calls" in self._flaws:
                await self._steps.ask(task, messages, tools)
            messages.append(await self._steps.ask(task, messages, tools))
            if not waiting(messages):
                break
        require_success(messages)

    async def forget(self, task_id: str) -> None:
        if self._saved:
            self._saved.delete(task_id)

    async def close(self) -> None:
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
