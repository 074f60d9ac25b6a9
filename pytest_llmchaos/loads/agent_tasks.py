"""Tasks of an agent: their plan, deadline and cancellations."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cached_property
from random import Random

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.loads.prompts import below

MAX_STEPS = 100
# Tools of the lab's tool server that have no effect.
READS = ("find_order",)
# A tool call of one step, or the last answer.
TOKENS_PER_MODEL_CALL = 16
# Each load has a range of so many order numbers, so they have at most 12 digits.
MAX_TASKS = 100_000
_RANGES = 10**7 - 1
_TOOL = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class AgentTasks:
    """The tasks of a load.

    Attributes:
        tools: The tool of each step.
        task_s: Seconds from a task's due time until its caller gives it up.
        cancel_share: Share of the tasks that their callers cancel, 0 to 1.
        cancel_after_s: Seconds from the due time to the cancellation.
        reads: Tools without an effect.
    """

    tools: tuple[str, ...]
    task_s: float
    cancel_share: float = 0.0
    cancel_after_s: float = 0.0
    reads: tuple[str, ...] = ()

    def __str__(self) -> str:
        cancelled = (
            f", {self.cancel_share:g} of them cancelled after {self.cancel_after_s:g} s" if self.cancel_share else ""
        )
        return f"tasks {'; '.join(self.tools)} within {self.task_s:g} s{cancelled}"

    def steps(self, order: int) -> tuple[str, ...]:
        """Return the steps of one task, such as `refund 17`."""
        return tuple(f"{tool} {order}" for tool in self.tools)

    def text(self, order: int) -> str:
        """Return the input of one task."""
        return f"plan: {'; '.join(self.steps(order))}"

    def cancels(self, index: int) -> bool:
        """True if the caller cancels the task at this place of the schedule."""
        return math.floor((index + 1) * self.cancel_share) > math.floor(index * self.cancel_share)

    @property
    def tokens(self) -> int:
        """Tokens of a task's answers: a tool call for each step, and the last one."""
        return (len(self.tools) + 1) * TOKENS_PER_MODEL_CALL


def first_order(rng: Random, taken: set[int]) -> int:
    """Draw the first order number of a load.

    Args:
        rng: Source of the number.
        taken: First numbers of earlier loads. The new one is added.
    """
    while (first := (1 + below(rng, _RANGES)) * MAX_TASKS) in taken:
        pass
    taken.add(first)
    return first


def range_of(order: int) -> int:
    """Return the first order number of the load whose range has an order number."""
    return order - order % MAX_TASKS


@dataclass(frozen=True, kw_only=True)
class Orders:
    """Order numbers of a load's tasks, and of those that others may call for.

    Attributes:
        own: Order numbers of its tasks.
        taken: First order numbers of earlier loads.
        is_shared: True if other clients, or tasks of an earlier load, may use the tool
            server.
    """

    own: frozenset[int]
    taken: frozenset[int] = frozenset()
    is_shared: bool = False

    def is_of_earlier(self, order: int) -> bool:
        """Return whether a call for an order is that of an earlier load's task.

        Args:
            order: The order's number.
        """
        return order not in self.own and range_of(order) in self.taken

    def is_doubtful(self, order: int) -> bool:
        """Return whether another client may have made a call for an order.

        Other clients do not use a load's own range of orders.

        Args:
            order: The order's number.
        """
        return self.is_shared and range_of(order) not in self._ranges

    @cached_property
    def _ranges(self) -> frozenset[int]:
        return frozenset(range_of(one) for one in self.own)


def steps_of(text: str) -> tuple[str, ...]:
    """Return the steps of a task's input."""
    return tuple(step.strip() for step in text.removeprefix("plan:").split(";"))


def parse_reads(who: str, reads: object, tools: tuple[str, ...]) -> tuple[str, ...]:
    """Return the tools of a plan that have no effect.

    Raises:
        BadScenario: It is no list of tools of the plan.
    """
    if reads is None:
        return tuple(tool for tool in READS if tool in tools)
    if not isinstance(reads, list | tuple) or not all(isinstance(one, str) and one in tools for one in reads):
        raise BadScenario(
            f"{who}: reads must be a list of those tools of the plan {'; '.join(tools)!r} that have no effect, such as "
            f"[{tools[0]!r}], got {reads!r}"
        )
    return tuple(dict.fromkeys(reads))


def parse_plan(who: str, plan: object) -> tuple[str, ...]:
    """Return the tools of a plan such as `find_order; refund; mail`.

    Raises:
        BadScenario: It is not such a text.
    """
    tools = [tool.strip() for tool in plan.split(";")] if isinstance(plan, str) else []
    if not tools or not all(map(_TOOL.fullmatch, tools)) or len(tools) > MAX_STEPS:
        raise BadScenario(
            f'{who}: plan must be 1 to {MAX_STEPS} names of tools such as "find_order; refund; mail", whose argument is the '
            f"task's own order number, got {plan!r}"
        )
    return tuple(tools)
