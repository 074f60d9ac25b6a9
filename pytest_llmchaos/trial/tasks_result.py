"""Conversion of an agent's tasks to their value in the journal and `run.json`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from pytest_llmchaos.errors import ProvesNothing
from pytest_llmchaos.evidence.trial_result import KillNote, TaskNote, TasksResult
from pytest_llmchaos.trial.tasks import worst

if TYPE_CHECKING:
    from pytest_llmchaos.trial.tasks import SeenTask, Tasks

T = TypeVar("T")
SHOWN_TASKS = 20
SHOWN_CALLS = 50  # of one task
LONGEST_ERROR = 500


def tasks_note(tasks: Tasks) -> TasksResult:
    """Return the tasks with each value that the evidence has."""
    return TasksResult(
        offered=tasks.offered,
        statuses=dict(sorted(Counter(task.record.status for task in tasks.seen).items())),
        duplicate_effects=whole(lambda: tasks.duplicate_effects),
        missing_effects=whole(lambda: tasks.missing_effects),
        effects_after_cancel=whole(lambda: tasks.effects_after_cancel),
        false_success=whole(lambda: tasks.false_success),
        false_failure=whole(lambda: tasks.false_failure),
        calls_after_budget=whole(lambda: tasks.calls_after_budget),
        model_calls_repeated=whole(lambda: tasks.model_calls_repeated),
        tool_amplification=_finite(lambda: tasks.tool_amplification),
        retry_after_honoured=_known(lambda: tasks.retry_after_honoured),
        latency_p50_s=_finite(lambda: tasks.latency_s.p50),
        latency_p95_s=_finite(lambda: tasks.latency_s.p95),
        resume_max_s=_finite(lambda: tasks.resume_s.max),
        tokens_max=_finite(lambda: tasks.tokens.max),
        no_ledger=None if tasks.no_ledger is None else str(tasks.no_ledger),
        kills=tuple(KillNote(service=kill.service, at_s=round(kill.at_s, 3)) for kill in tasks.kills),
        worst=tuple(map(_task, worst(tasks.seen, SHOWN_TASKS))),
    )


def _known(value: Callable[[], T]) -> T | None:
    try:
        return value()
    except ProvesNothing:
        return None


def whole(value: Callable[[], float]) -> int | None:
    """Return a count, None if the evidence lacks it."""
    found = _known(value)
    return None if found is None else int(found)


def _finite(value: Callable[[], float]) -> float | None:
    found = _known(value)
    return None if found is None or not math.isfinite(found) else round(float(found), 6)


def _task(task: SeenTask) -> TaskNote:
    record = task.record
    return TaskNote(
        id=record.id,
        status=record.status,
        plan=record.plan,
        due_s=record.due_s,
        accepted_s=record.accepted_s,
        ended_s=record.ended_s,
        cancelled_s=record.cancelled_s,
        error=None if record.error is None else record.error[:LONGEST_ERROR],
        troubles=task.troubles,
        calls=task.calls[:SHOWN_CALLS],
        more_calls=max(0, len(task.calls) - SHOWN_CALLS),
    )
