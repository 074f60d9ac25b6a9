"""One logical tool call: its key, its deadline, and its retries."""

from __future__ import annotations

import asyncio
import uuid
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from lab_agents.chat import ERROR
from lab_agents.metrics import UNKNOWN
from lab_agents.tasks import BudgetExceeded, TaskFailed

Answer = TypeVar("Answer")

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from lab_agents.metrics import Metrics
    from lab_agents.settings import Settings
    from lab_agents.tasks import Task

KEY = "idempotency-key"  # in `_meta` of a call
_READS = frozenset({"find_order"})
_BACKOFF_S = 0.1  # doubles with each try
_LONGEST_BACKOFF_S = 2.0


@dataclass(frozen=True, kw_only=True)
class ToolCall:
    """One step.

    Attributes:
        index: its place in the task, the same after a resume.
        listed: False for a name that the model has invented.
    """

    index: int
    tool: str
    listed: bool = True


@dataclass(frozen=True, kw_only=True)
class ToolAnswer:
    """The result of a tool. `is_error`: the tool was reached, and has failed."""

    text: str
    is_error: bool = False


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """HTTP status of a refused call, and the seconds of its Retry-After."""

    status: int
    retry_after_s: float | None


class NoAnswer(Exception):
    """A call without a valid answer, which may have had its effect.

    Args:
        why: the cause, for the task's error.
        result: failed, timeout or rate_limited.
        retry_after_s: seconds to wait before the next try, if the server named them.
    """

    def __init__(self, why: str, *, result: str = "failed", retry_after_s: float | None = None) -> None:
        super().__init__(why)
        self.result = result
        self.retry_after_s = retry_after_s


# The last refusal of the running call: `mcp` drops status and headers of a response.
_refusals: ContextVar[list[Refusal]] = ContextVar("refusals")


def note_refusal(refusal: Refusal) -> None:
    """Keep a refused response for the tool call in whose context it arrived."""
    _refusals.get([]).append(refusal)


class Tools:
    """Calls of tools with deadlines, retries and keys."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._calls = settings.calls
        self._max_steps = settings.budgets.max_steps
        self._flaws = settings.flaws
        self._keys = settings.keys
        self._metrics = metrics

    async def call(
        self, task: Task, call: ToolCall, send: Callable[[Mapping[str, str]], Awaitable[ToolAnswer]]
    ) -> ToolAnswer:
        """The answer of `send`, which gets the call's `_meta`.

        Raises:
            BudgetExceeded: all steps of the task are used.
            TaskFailed: no answer after all tries.
        """
        self.require_step(call.index)
        label = call.tool if call.listed else UNKNOWN
        for tried in range(self._calls.tool_retries + 1):
            task.tool_calls += 1
            try:
                answer = await self._tried(send(self._meta(task, call, tried)))
            except NoAnswer as error:
                self._metrics.tool_calls.labels(label, error.result).inc()
                await self._before_retry(call.tool, tried, error)
            else:
                self._metrics.tool_calls.labels(label, "is_error" if answer.is_error else "ok").inc()
                task.steps += 1
                if answer.is_error and "swallows_is_error" in self._flaws:
                    return ToolAnswer(text=answer.text.removeprefix(ERROR))
                return answer
        raise AssertionError  # the last try has raised or returned

    def require_step(self, index: int) -> None:
        """Check the budget of steps. Raises BudgetExceeded."""
        if index >= self._max_steps and "no_step_limit" not in self._flaws:
            raise BudgetExceeded("steps", f"LAB_MAX_STEPS allows {self._max_steps} tool calls, the model wants more")

    async def listed(self, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """The answer of `ask`, a request without effects.

        Raises:
            TaskFailed: no answer after all tries.
        """
        for tried in range(self._calls.tool_retries + 1):
            try:
                return await self._tried(ask())
            except NoAnswer as error:
                await self._before_retry("list", tried, error)
        raise AssertionError  # as above

    async def _tried(self, sent: Awaitable[Answer]) -> Answer:
        refusals: list[Refusal] = []
        token = _refusals.set(refusals)
        limit_s = None if "hangs_on_dead_server" in self._flaws else self._calls.tool_s
        try:
            async with asyncio.timeout(limit_s) as deadline:
                return await sent
        except TimeoutError:
            late = deadline.expired()
            why = f"no answer within {limit_s:g} s" if late else "a time limit of the client"
            raise NoAnswer(why, result="timeout") from None
        except NoAnswer as error:
            if refusals and refusals[-1].status == 429:
                raise NoAnswer("HTTP 429", result="rate_limited", retry_after_s=refusals[-1].retry_after_s) from error
            if refusals:
                raise NoAnswer(f"HTTP {refusals[-1].status}", retry_after_s=refusals[-1].retry_after_s) from error
            raise
        finally:
            _refusals.reset(token)

    def _meta(self, task: Task, call: ToolCall, tried: int) -> Mapping[str, str]:
        if not self._keys:
            return {}
        if tried and "retries_writes" in self._flaws and call.tool not in _READS:
            return {KEY: uuid.uuid4().hex}
        return {KEY: f"{task.id}/{call.index}"}

    async def _before_retry(self, tool: str, tried: int, error: NoAnswer) -> None:
        if tried == self._calls.tool_retries:
            raise TaskFailed(f"tool {tool}: {error}, {tried + 1} tries") from error
        if error.retry_after_s is not None and "ignores_retry_after" not in self._flaws:
            await asyncio.sleep(error.retry_after_s)
        else:
            await asyncio.sleep(min(_BACKOFF_S * 2**tried, _LONGEST_BACKOFF_S))
