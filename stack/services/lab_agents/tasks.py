"""Tasks, what they have used, and how they fail."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

RUNNING = "running"
COMPLETED = "completed"
FAILED = "failed"
CANCELLED = "cancelled"
ENDS = (COMPLETED, FAILED, CANCELLED)


class TaskFailed(Exception):
    """The task ends as failed, with this text as its error."""


class BudgetExceeded(TaskFailed):
    """A budget is used up.

    Args:
        budget: steps, seconds or tokens.
        limit: the budget itself, in words.
    """

    def __init__(self, budget: str, limit: str) -> None:
        super().__init__(budget, limit)  # both, so that pickle can restore it
        self.budget = budget
        self.limit = limit

    def __str__(self) -> str:
        return f"budget {self.budget} exceeded: {self.limit}"


@dataclass(kw_only=True)
class Task:
    """One task and its counts, which grow while it runs.

    Args:
        accepted_unix_s: start of its seconds, also after a restart.
        steps: tool calls that have a result, each once however often it was tried.
        tool_calls: requests to tools, every try.
        model_calls: answers of the model.
    """

    id: str
    input: str
    accepted_unix_s: float
    status: str = RUNNING
    steps: int = 0
    tokens: int = 0
    model_calls: int = 0
    tool_calls: int = 0
    error: str | None = None
    resumed: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event, repr=False, compare=False)

    def state(self) -> dict[str, str | int | None]:
        """The answer to `GET /tasks/ID`."""
        return {
            "id": self.id,
            "status": self.status,
            "steps": self.steps,
            "tokens": self.tokens,
            "model_calls": self.model_calls,
            "tool_calls": self.tool_calls,
            "error": self.error,
        }
