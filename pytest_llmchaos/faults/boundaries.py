"""A fault at every boundary of an agent's task."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.faults.base import check_seconds, check_target
from pytest_llmchaos.faults.compositions import Together
from pytest_llmchaos.faults.timed import timed
from pytest_llmchaos.model import Fault

MOST_STEPS = 50
# An agent is back in about this time. The load must last until the last fault.
RETURN_S = 5.0
_STEP = re.compile(r"([A-Za-z0-9_.-]{1,128})(?: .*)?")
# Of one call: it is about to leave, its effect is applied, its answer has arrived.
_OF_CALL = ("received", "answered", "delivered")


@dataclass(frozen=True, kw_only=True)
class EveryBoundary(Together):
    """One fault again and again, each time at the next boundary.

    Attributes:
        each: The fault.
        steps: Names of the tools.
    """

    each: Fault
    steps: tuple[str, ...]

    def __str__(self) -> str:
        return f"every_boundary({self.each}, {'; '.join(self.steps)})"

    @property
    def blast_radius(self) -> int:
        """Return that of one fault: each waits until the victim is back."""
        return self.each.blast_radius

    @property
    def last_act_s(self) -> float:
        """Return when the last fault is due if the victim is back 5 s after each."""
        return max(super().last_act_s, RETURN_S * (len(self.parts) - 1))


def every_boundary(
    fault: Fault, *, plan: str, model: str, tools: str, every_s: float = 0.5, within_s: float = 30.0
) -> Fault:
    """Begin a fault at every boundary of an agent's task, one after the other.

    For each step of the plan these are: the model's answer arrived, the call is about
    to leave, its effect is applied before its answer, its answer arrived before the
    checkpoint, and the next model call is about to leave, after the checkpoint. The
    last one is the arrival of the model's final answer. A plan of n steps has 5 n + 1.

    The wait for each message begins as soon as the victim of the last fault is back. So
    an agent that resumes its task is hit at each boundary of it in order. The wait for
    fault k, from 0, also begins `every_s` * k seconds after the first or later. That
    delays it only if all faults so far took less time. What the agent does until then
    meets no fault.

    - Ends: as `fault` does.
    - Fidelity: that of `fault`. The moments are those of fault agents.
    - Expected signal: that of `fault`.

    Args:
        fault: `faults.kill`, `crash`, `stop`, `restart` or `pause` of the agent.
        plan: Tools of the task in their order, such as `find_order; refund; mail`.
            Words after the name of a tool are ignored.
        model: Service that answers chats, such as `api`.
        tools: Service of the tools, such as `desk`.
        every_s: Least mean seconds from one wait to the next, above 0, below 86400.
        within_s: Seconds within which each message must come, above 0, at most 3595.

    Returns:
        A fault for `experiment(fault=...)` and `lab.inject`.

    Raises:
        BadScenario: `fault` is one that `faults.timed` refuses, or another argument is
            not as described.
    """
    steps = _steps(plan)
    for name, service in (("model", model), ("tools", tools)):
        if check_target(f"every_boundary({name})", service).endswith("*"):
            raise BadScenario(f"faults.every_boundary({name}=...) must be the name of one service, got {service!r}")
    gap_s = check_seconds("faults.every_boundary(every_s=...)", every_s)
    moments = list(_moments(steps, model, tools))
    parts = tuple(
        (gap_s * place, timed(fault, at=at, on=on, within_s=within_s)) for place, (at, on) in enumerate(moments)
    )
    return EveryBoundary(parts=parts, verb="sequence", each=fault, steps=steps)


def _moments(steps: tuple[str, ...], model: str, tools: str) -> Iterator[tuple[str, str | None]]:
    """Yield the boundaries, each with the service of its message unless named there.

    All are the first of their kind, since each wait counts anew.
    """
    yield "after:chat#1.delivered", model
    for step in steps:
        for event in _OF_CALL:
            yield f"after:{tools}.{step}#1.{event}", None
        yield "after:chat#1.received", model
        yield "after:chat#1.delivered", model


def _steps(plan: object) -> tuple[str, ...]:
    text = plan.strip().removeprefix("plan:") if isinstance(plan, str) else ""
    found = [_STEP.fullmatch(step.strip()) for step in text.split(";")]
    steps = tuple(one[1] for one in found if one is not None)
    if len(steps) < len(found) or len(steps) > MOST_STEPS:
        raise BadScenario(
            f"faults.every_boundary(plan=...) must be the tools of a task, 1 to {MOST_STEPS}, such as "
            f"'find_order; refund; mail', got {plan!r}"
        )
    return steps
