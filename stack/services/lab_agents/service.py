"""Tasks from acceptance to end: resume, cancel, drain."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING

from lab_agents.store import NotSavedError
from lab_agents.tasks import CANCELLED, COMPLETED, FAILED, RUNNING, BudgetExceeded, Task, TaskFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from lab_agents.agent import Agent
    from lab_agents.metrics import Metrics
    from lab_agents.settings import Settings
    from lab_agents.store import Store
    from lab_common.log import Log

KEPT = 10_000  # tasks that have ended


class Service:
    """All tasks of this process, and those that an earlier one left on disk."""

    def __init__(
        self,
        *,
        settings: Settings,
        agent: Agent,
        store: Store,
        metrics: Metrics,
        log: Log,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._budgets = settings.budgets
        self._flaws = settings.flaws
        self._agent = agent
        self._store = store
        self._metrics = metrics
        self._log = log
        self._clock = clock
        self._running: dict[str, tuple[Task, asyncio.Task[None]]] = {}
        self._unsaved: dict[str, Task] = {}  # ended, and running according to the disk
        self._ended: deque[str] = deque()  # ids, the oldest first
        self._cut = False  # what still runs is left to the next process
        self.draining = False

    async def start(self) -> None:
        unfinished = self._store.unfinished()
        for task in unfinished:
            task.resumed = True
        await self._agent.start(unfinished)
        self._ended.extend(self._store.ended())
        for task in unfinished:
            self._metrics.resumed.inc()
            self._log("resumed", task=task.id)
            self._begin(task)

    def accept(self, task_id: str, text: str) -> tuple[Task, bool]:
        """The task, and True if it is new. A new one is saved when this returns.

        Raises:
            NotSavedError: it cannot be saved, so it is not accepted.
        """
        if (known := self.find(task_id)) is not None:
            return known, False
        task = Task(id=task_id, input=text, accepted_unix_s=self._clock())
        self._store.save(task)
        self._begin(task)
        self._save_late()
        return task, True

    def find(self, task_id: str) -> Task | None:
        running = self._running.get(task_id)
        return running[0] if running else self._unsaved.get(task_id) or self._store.find(task_id)

    async def cancel(self, task: Task) -> None:
        """End a running task as cancelled. Its call in flight is cut."""
        if task.id not in self._running or "ignores_cancel" in self._flaws:
            return
        _, work = self._running[task.id]
        if task.status != RUNNING:  # another request cancels it
            await asyncio.wait({work})
            return
        self._end(task, CANCELLED)
        work.cancel()
        await asyncio.wait({work})
        if task.id not in self._unsaved:
            await self._forget(task)

    async def drain(self, within_s: float) -> None:
        """Accept nothing, and wait for the running tasks.

        What still runs then stays on disk, if tasks are kept there.
        """
        self.draining = True
        works = [work for _, work in self._running.values()]
        if "loses_on_sigterm" in self._flaws:
            for task, _ in self._running.values():
                if task.status == RUNNING:
                    self._store.forget(task.id)
        elif works:
            await asyncio.wait(works, timeout=within_s)
        left = [work for work in works if not work.done()]
        self._log("drained", left=len(left))
        self._cut = True
        for work in left:
            work.cancel()
        if left:
            await asyncio.wait(left)
        self._save_late()
        if self._running:
            await asyncio.wait([work for _, work in self._running.values()])

    async def close(self) -> None:
        await self._agent.close()

    def _begin(self, task: Task) -> None:
        self._metrics.running.inc()
        # No `finally` in the work, which a cancel before its first step never enters.
        self._hold(task, self._work(task)).add_done_callback(lambda _: self._metrics.running.dec())

    def _hold(self, task: Task, coroutine: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """Keep a task in memory until this coroutine is over."""
        work = asyncio.create_task(coroutine)
        self._running[task.id] = (task, work)
        work.add_done_callback(lambda _: self._running.pop(task.id))
        return work

    async def _work(self, task: Task) -> None:
        error = await self._outcome(task)
        # A library may answer the cut with an error of its own.
        if task.status == RUNNING and not (self._cut and error is not None):
            bad = error is not None and "claims_success" not in self._flaws
            self._end(task, FAILED if bad else COMPLETED, error if bad else None)
        if task.status != RUNNING and task.id not in self._unsaved:
            await self._forget(task)

    async def _forget(self, task: Task) -> None:
        try:
            await self._agent.forget(task.id)
        except Exception as error:  # noqa: BLE001 -- the task has ended, and a full disk can keep its remains
            self._log("not forgotten", task=task.id, error=repr(error)[:1000])

    async def _outcome(self, task: Task) -> str | None:
        """None after success, else the error."""
        left_s = task.accepted_unix_s + self._budgets.task_s - self._clock()
        try:
            async with asyncio.timeout(None if "hangs_on_dead_server" in self._flaws else left_s) as deadline:
                await self._agent.run(task)
        except TimeoutError as error:
            if not deadline.expired():
                return f"TimeoutError: {error}"
            self._metrics.exceeded.labels("seconds").inc()
            return str(BudgetExceeded("seconds", f"LAB_TASK_S allows {self._budgets.task_s:g} s from acceptance"))
        except BudgetExceeded as error:
            self._metrics.exceeded.labels(error.budget).inc()
            return str(error)
        except TaskFailed as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 -- a task always ends, and its client reads why
            self._log("task failed", task=task.id, error=repr(error)[:1000])
            return f"{type(error).__name__}: {str(error)[:300]}"
        return None

    def _end(self, task: Task, status: str, error: str | None = None) -> None:
        task.status = status
        # SQLite takes no half of a character, which a model or a tool can send.
        task.error = None if error is None else error.encode(errors="backslashreplace").decode()
        task.input = ""  # so that the ended tasks, which are many, take little memory
        self._ended.append(task.id)
        if self._saved(task):
            self._save_late()
            self._drop_oldest()
        self._metrics.tasks.labels(status).inc()
        self._metrics.seconds.observe(max(0.0, self._clock() - task.accepted_unix_s))
        task.ended.set()

    def _saved(self, task: Task) -> bool:
        try:
            self._store.save(task)
        except NotSavedError as problem:
            self._unsaved[task.id] = task
            self._log("not saved", task=task.id, error=str(problem))
            return False
        self._unsaved.pop(task.id, None)
        return True

    def _save_late(self) -> None:
        """Save the ends that could not be saved when they came."""
        for task in [one for one in self._unsaved.values() if one.id not in self._running]:
            if not self._saved(task):
                break
            self._hold(task, self._forget(task))

    def _drop_oldest(self) -> None:
        try:
            while len(self._ended) > KEPT:
                self._store.forget(self._ended[0])
                self._unsaved.pop(self._ended.popleft(), None)
        except NotSavedError as problem:
            self._log("not dropped", task=self._ended[0], error=str(problem))
