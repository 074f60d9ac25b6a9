"""Judgement of an agent's tasks from its callers, the effect ledger and counters."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar, Self

from pytest_llmchaos.errors import Inconclusive, NoData, TruthsDisagree
from pytest_llmchaos.stats.bounded import BoundedCount, BoundedFloat, NoClaim, Scale
from pytest_llmchaos.stats.quantiles import Quantiles

if TYPE_CHECKING:
    from pytest_llmchaos.evidence.task_records import TaskRecord, TaskStatus
    from pytest_llmchaos.evidence.tool_calls import ToolCall

SHOWN = 5  # tasks or events that a count names
# A call that has left the agent cannot be taken back, and a busy server reads it late.
IN_FLIGHT_S = 0.5
HINT = "raise rate_rps or fault_s"
TASK_ENDS = ("every task had been done at once", "no task had been completed")
USE_ENDS = ("every task had used none", "a task had used them without end")
# Order of the report: the most harmful trouble first.
TROUBLES = (
    "duplicate",
    "after its cancellation",
    "false success",
    "after its budget",
    "false failure",
    "lost",
    "stuck",
)


class NamedCount(BoundedCount):
    """A whole number that shows the tasks or events behind it.

    Attributes:
        named: These, each with its trouble.
    """

    named: tuple[str, ...]

    def __new__(
        cls,
        value: float,
        scale: Scale,
        *,
        low: float | None = None,
        high: float | None = None,
        named: Sequence[str] = (),
    ) -> Self:
        made = super().__new__(cls, value, scale, low=low, high=high)
        made.named = tuple(named)
        return made

    def __repr__(self) -> str:
        if not self.named:
            return super().__repr__()
        more = f"; {len(self.named) - SHOWN} more" if len(self.named) > SHOWN else ""
        return f"{int(self)} ({'; '.join(self.named[:SHOWN])}{more})"


@dataclass(frozen=True, kw_only=True)
class Kill:
    """A kill of a service.

    Attributes:
        service: The service.
        at_s: Seconds from the load's start.
    """

    service: str
    at_s: float


@dataclass(frozen=True, kw_only=True)
class Retries:
    """Answers of the fault agent that named a time to come back.

    Attributes:
        limited: Calls that got such an answer.
        early: Calls that came again before that time.
    """

    limited: int
    early: int


@dataclass(frozen=True, kw_only=True)
class SeenTask:
    """One task by its caller and by the ledger.

    Attributes:
        record: The task as its caller saw it.
        calls: Its calls in the ledger, by time.
        surplus: Effects beyond the plan, by step.
        missing: Steps of the plan whose effect is missing.
        effects: Number of its plan's steps with an effect.
    """

    record: TaskRecord
    calls: tuple[ToolCall, ...] = ()
    surplus: Mapping[str, int]
    missing: tuple[str, ...]
    effects: int

    @property
    def is_false_success(self) -> bool:
        """True if it was reported completed and an effect of its plan is missing."""
        return self.record.status == "completed" and bool(self.missing)

    @property
    def is_false_failure(self) -> bool:
        """True if it was not reported completed and all effects of its plan exist."""
        return self.ended_badly and bool(self.effects) and not self.missing

    @property
    def ended_badly(self) -> bool:
        """True if it was accepted and not reported completed until its deadline."""
        return self.record.status in {"failed", "lost", "stuck"}

    @property
    def is_over_budget(self) -> bool:
        """True if it was reported failed for its budget."""
        return self.record.status == "failed" and "budget" in (self.record.error or "").lower()

    @property
    def late_effects(self) -> tuple[ToolCall, ...]:
        """Effects of calls that began after the confirmed cancellation."""
        after_s = math.inf if self.record.cancelled_s is None else self.record.cancelled_s + IN_FLIGHT_S
        return tuple(call for call in self.calls if call.effect is not None and call.received_s > after_s)

    @property
    def late_calls(self) -> tuple[ToolCall, ...]:
        """Calls after it was reported failed for its budget."""
        return tuple(call for call in self.calls if call.received_s > self.late_s)

    @property
    def late_s(self) -> float:
        """Second after which calls are late for its budget, infinity if none are."""
        ended_s = self.record.ended_s
        return math.inf if not self.is_over_budget or ended_s is None else ended_s + IN_FLIGHT_S

    @property
    def was_open_at_cancel(self) -> bool:
        """True if an effect could still happen when its cancellation was confirmed."""
        at_s = self.record.cancelled_s
        if at_s is None:
            return False
        return bool(self.missing) or any(call.effect is not None and call.received_s > at_s for call in self.calls)

    @property
    def planned_calls(self) -> int:
        """Number of calls that its plan has and that it made."""
        return (Counter(self.record.plan) & Counter(call.step for call in self.calls)).total()

    @property
    def surplus_model_calls(self) -> int:
        """Model calls beyond one for each step and one for the last answer."""
        return max(0, self.record.model_calls - planned_model_calls(self.record))

    @property
    def troubles(self) -> tuple[str, ...]:
        """Troubles in words, the most harmful first."""
        found = [f"duplicate: {step} {_times(n)} too often" for step, n in self.surplus.items()]
        found += [f"{call.step} after its cancellation" for call in self.late_effects]
        if self.is_false_success:
            found.append(f"false success: {', '.join(self.missing)} missing")
        if self.late_calls:
            found.append(f"{len(self.late_calls)} calls after its budget")
        if self.is_false_failure:
            found.append("false failure: all its effects exist")
        if self.record.status in {"lost", "stuck"}:
            found.append(self.record.status)
        return tuple(found)

    def progress_s(self, after_s: float) -> float:
        """Return the second of its first progress after one, infinity without any."""
        ended_s = self.record.ended_s
        moments = [call.received_s for call in self.calls]
        if ended_s is not None and self.record.status != "lost":
            moments.append(ended_s)
        return min((at_s for at_s in moments if at_s > after_s), default=math.inf)

    def was_open(self, at_s: float) -> bool:
        """True if the agent had accepted it, and its caller waited for its end then."""
        accepted_s, cancelled_s = self.record.accepted_s, self.record.cancelled_s
        if accepted_s is None or accepted_s > at_s or (cancelled_s is not None and cancelled_s <= at_s):
            return False
        return self.record.left_s > at_s

    @property
    def was_ended_by_caller(self) -> bool:
        """True if its caller ended it, so that its further progress is unknown."""
        return self.record.cancelled_s is not None or self.record.status == "unfinished"

    @property
    def may_use_more(self) -> bool:
        """True if it was accepted, and the newest answer about it is not its last."""
        return self.record.accepted_s is not None and self.record.status in {"unfinished", "lost", "stuck"}

    @property
    def reports_model_calls(self) -> bool:
        """True if its last answer has its model calls, or if it was not accepted."""
        return self.record.accepted_s is None or (bool(self.record.model_calls) and not self.may_use_more)

    @property
    def certain_model_calls(self) -> int:
        """Model calls of its plan that it has surely made."""
        planned, reported = planned_model_calls(self.record), self.record.model_calls
        return planned if self.record.status == "completed" and not reported else min(planned, reported)


@dataclass(frozen=True, kw_only=True)
class Tasks(NoClaim):
    """An agent's tasks of one trial.

    A count that rests on the ledger raises the reason if the ledger is unknown. The
    printed value of a count has the first tasks behind it.

    Attributes:
        seen: Each task by due time.
        kills: Kills of services, by time.
        no_ledger: Reason why the effects are unknown, or None.
        model_calls: Requests that the model's service counted, or the reason why they
            are unknown, or None without such a counter.
        counter_began_anew: True if the model's service may have counted calls that its
            counter lost when it began anew.
        retries: Answers that named a time to come back. None if nothing counted them.
        still_called: True if calls of these tasks still arrived when the ledger was
            read.
        strays: Calls on orders of no task, by time.
        doubtful: Such calls that perhaps another client made, by time.
    """

    how_to_claim: ClassVar[str] = "such as trial.tasks.lost == 0"

    seen: tuple[SeenTask, ...]
    kills: tuple[Kill, ...] = ()
    no_ledger: Inconclusive | None = None
    model_calls: float | Inconclusive | None = None
    counter_began_anew: bool = False
    retries: Retries | None = None
    still_called: bool = False
    strays: tuple[ToolCall, ...] = ()
    doubtful: tuple[ToolCall, ...] = ()

    def __repr__(self) -> str:
        counts = Counter(task.record.status for task in self.seen)
        shown = ", ".join(f"{n} {status}" for status, n in counts.most_common())
        return f"<{len(self.seen)} tasks: {shown or 'none'}>"

    @property
    def offered(self) -> int:
        """Tasks that were due."""
        return len(self.seen)

    @property
    def unfinished(self) -> int:
        """Tasks of unknown end: open before their deadline when the load ended."""
        return sum(task.record.status == "unfinished" for task in self.seen)

    @property
    def completed(self) -> float:
        """Tasks that the agent reported completed."""
        return self._with_status("completed")

    @property
    def failed(self) -> float:
        """Tasks that the agent reported failed, or cancelled by itself."""
        return self._with_status("failed")

    @property
    def cancelled(self) -> float:
        """Tasks that the agent reported cancelled, as their callers wanted."""
        return self._with_status("cancelled")

    @property
    def lost(self) -> float:
        """Tasks that the agent accepted and answered 404 for later."""
        return self._with_status("lost")

    @property
    def stuck(self) -> float:
        """Tasks without a final state until their deadline."""
        return self._with_status("stuck")

    @property
    def refused(self) -> float:
        """Tasks that the agent never accepted."""
        return self._with_status("refused")

    @property
    def duplicate_effects(self) -> float:
        """Effects beyond those of the plans.

        Effects on orders of no task are among them. They may be those of other clients
        if the tool server has some.

        Raises:
            NoData: The ledger is unknown, or no task had an effect.
        """
        strays = Counter(step for step, _ in _effects(self.strays))
        further = self._further + len(_effects(self.doubtful))
        tasks = self._judged() if strays else self._with_effects("duplicate_effects")
        named = [f"{_id(task)}: {step} {_times(n)} too often" for task in tasks for step, n in task.surplus.items()]
        named += [f"no task: {step} {_times(n)}" for step, n in sorted(strays.items())]
        count = sum(n for task in tasks for n in task.surplus.values()) + strays.total()
        return self._count(
            "duplicate_effects",
            count,
            named,
            "a call had been repeated",
            further=further,
            undecided=self._undecided_by_strays,
        )

    @property
    def missing_effects(self) -> float:
        """Effects of completed tasks that the ledger lacks.

        Raises:
            NoData: The ledger is unknown, or no task was completed.
        """
        tasks = self._completed("missing_effects")
        named = [f"{_id(task)}: {', '.join(task.missing)}" for task in tasks if task.missing]
        further = sum(task.effects for task in self.seen if task.record.status == "unfinished")
        return self._count(
            "missing_effects",
            sum(len(task.missing) for task in tasks),
            named,
            "no step had been done",
            further=further,
            most=sum(task.effects for task in tasks) + further,
        )

    @property
    def false_success(self) -> float:
        """Tasks reported completed with an effect of their plan missing.

        Raises:
            NoData: The ledger is unknown, or no task was completed.
        """
        tasks = self._completed("false_success")
        named = [f"{_id(task)}: {', '.join(task.missing)} missing" for task in tasks if task.is_false_success]
        return self._count(
            "false_success",
            len(named),
            named,
            "no completed task had its effects",
            further=self.unfinished,
            most=len(tasks) + self.unfinished,
        )

    @property
    def false_failure(self) -> float:
        """Tasks reported failed, lost or stuck with all effects of their plan.

        Raises:
            NoData: The ledger is unknown, or no task had an effect.
        """
        tasks = self._with_effects("false_failure")
        named = [f"{_id(task)}: {task.record.status}" for task in tasks if task.is_false_failure]
        late = sum(task.ended_badly and bool(task.missing) for task in tasks) if self.still_called else 0
        return self._count(
            "false_failure",
            len(named),
            named,
            "every done task had been reported failed",
            further=self.unfinished + late,
            most=self.offered,
        )

    @property
    def effects_after_cancel(self) -> float:
        """Effects of calls that came 0.5 s after a confirmed cancellation, or later.

        Earlier ones may have been on their way.

        Raises:
            NoData: The ledger is unknown, or no task was cancelled before its last
                effect.
        """
        tasks = [task for task in self._judged() if task.was_open_at_cancel]
        if not tasks:
            raise NoData(
                "effects_after_cancel: no task was cancelled before its last effect, so none could come after; use "
                "loads.tasks(cancel_share=..., cancel_after_s=...) and cancel earlier"
            )
        late = [(task, call) for task in tasks for call in task.late_effects]
        named = [f"{_id(task)}: {call.step}" for task, call in late]
        return self._count(
            "effects_after_cancel", len(late), named, "a cancelled task had gone on", further=self._further
        )

    @property
    def calls_after_budget(self) -> float:
        """Tool calls of tasks 0.5 s after they were reported failed for their budget.

        Such a task's error has the word "budget". Earlier calls may have been on their
        way. Later calls on orders of no task may be its calls, or those of another.

        Raises:
            NoData: The ledger is unknown, or no task failed for its budget.
        """
        tasks = [task for task in self._judged() if task.is_over_budget]
        if not tasks:
            raise NoData(
                "calls_after_budget: no task was reported failed with an error about its budget, so no call could come "
                "after; make tasks exceed a budget, or bound tool_amplification"
            )
        named = [f"{_id(task)}: {len(task.late_calls)}" for task in tasks if task.late_calls]
        after_s = min(task.late_s for task in tasks)
        strays = sum(call.received_s > after_s for call in (*self.strays, *self.doubtful))
        return self._count(
            "calls_after_budget",
            sum(len(task.late_calls) for task in tasks),
            named,
            "such a task had gone on",
            further=self._further + strays,
            undecided=self._undecided_by_late_strays(strays),
        )

    @property
    def model_calls_repeated(self) -> float:
        """Model calls beyond those of the plans: steps + 1 for each task.

        The larger of two numbers: what the agent reported for each task, and what the
        model's service counted beyond the plans of all tasks. A task that was not
        completed may have made fewer calls, which would hide repeated ones. So there
        may be as many as the service counted beyond the calls that were surely made. A
        counter that began anew, or has fewer than those, missed calls. Then all tasks
        must report theirs to bound the number.

        Raises:
            NoData: No task reports a model call, and the service has no counter.
        """
        tasks = self._some()
        reported = sum(task.surplus_model_calls for task in tasks)
        planned = sum(planned_model_calls(task.record) for task in tasks)
        counted = self.model_calls if isinstance(self.model_calls, float) else None
        if counted is None and not any(task.record.model_calls for task in tasks):
            raise self._unknown("model_calls_repeated: no task reports its model calls, and no counter has them")
        surplus = max(reported, 0 if counted is None else round(counted) - planned)
        further, undecided = (math.inf if self.unfinished else 0.0), ""
        if counted is None and self._undecided_by_reports:
            further, undecided = math.inf, self._undecided_by_reports
        if counted is not None:
            certain = sum(task.certain_model_calls for task in tasks)
            further = max(0, round(counted) - certain - surplus)
            undecided = (
                f"the model's service counted {counted:g}, and tasks that were not completed may have made fewer than planned: "
                "let the agent report `model_calls`, and cancel no tasks"
            )
            if missed := self._missed_by_counter(counted, certain):
                further, undecided = math.inf, missed
        named = [f"{_id(task)}: {task.surplus_model_calls}" for task in tasks if task.surplus_model_calls]
        if counted is not None and surplus > reported:
            named.append(f"the model's service counted {counted:g}, the plans have {planned}")
        return self._count(
            "model_calls_repeated",
            surplus,
            named,
            "every call had been repeated",
            further=further,
            undecided=undecided,
        )

    @property
    def tokens(self) -> Quantiles:
        """Tokens of each task as the agent reported them: `trial.tasks.tokens.max`.

        A task that was lost or had no end has used as many as its newest answer had, or
        more.

        Raises:
            NoData: No task reports tokens.
        """
        tasks = [task for task in self._some() if task.record.accepted_s is not None]
        if not any(task.record.tokens for task in tasks):
            raise NoData(
                "tokens: no task reports its tokens, so a budget proves nothing: the agent must answer `tokens`"
            )
        return Quantiles(
            "tokens",
            [float(task.record.tokens) for task in tasks if not task.may_use_more],
            where="of the trial",
            hint=HINT,
            of="tasks",
            ends=USE_ENDS,
            growing=[float(task.record.tokens) for task in tasks if task.may_use_more],
            undecided=self._undecided_by_reports,
        )

    @property
    def latency_s(self) -> Quantiles:
        """Seconds from the due time to the completion, as quantiles.

        A task that failed, was lost, stuck or refused is slower than every completed
        one. Those that their callers cancelled are left out.

        Raises:
            NoData: There are no tasks.
        """
        tasks = [task.record for task in self._some() if task.record.status not in {"cancelled", "unfinished"}]
        took_s = [one.ended_s - one.due_s for one in tasks if one.status == "completed" and one.ended_s is not None]
        return Quantiles(
            "latency_s",
            took_s,
            len(tasks) - len(took_s),
            unknown=self.unfinished,
            where="of the trial",
            hint=HINT,
            of="tasks",
            ends=TASK_ENDS,
        )

    @property
    def resume_s(self) -> Quantiles:
        """Seconds from a kill to the first progress of each task that was open then.

        Progress is a tool call or the final state. A task without any is slower than
        all others. If its caller cancelled it after the kill, that is unknown.

        Raises:
            NoData: The ledger is unknown, nothing was killed, or no task was open.
        """
        tasks = self._judged()
        if not self.kills:
            raise NoData("resume_s: no service was killed in this trial; use it with faults.kill or faults.crash")
        waits = [
            (task, task.progress_s(kill.at_s) - kill.at_s)
            for kill in self.kills
            for task in tasks
            if task.was_open(kill.at_s)
        ]
        if not waits:
            raise NoData(
                "resume_s: no task was open at a kill, so none had to go on; raise rate_rps or the steps of its plan"
            )
        without = [task for task, wait_s in waits if math.isinf(wait_s)]
        unknown = sum(task.was_ended_by_caller for task in without)
        return Quantiles(
            "resume_s",
            [wait_s for _, wait_s in waits if math.isfinite(wait_s)],
            len(without) - unknown,
            unknown=unknown,
            where="of the kills",
            hint=HINT,
            of="tasks",
            ends=("every task had gone on at once", "no task had gone on"),
        )

    @property
    def tool_amplification(self) -> float:
        """Calls that the tool server received per planned call.

        Tasks that were refused or cancelled are left out. Calls of no task count. They
        may be those of other clients if the tool server has some. Planned calls that
        were never made do not make up for repeated ones. So the value may be as large
        as if only those were planned that were made.

        Raises:
            NoData: The ledger is unknown, or all tasks were refused or cancelled.
        """
        tasks = [task for task in self._judged() if task.record.status != "refused" and task.record.cancelled_s is None]
        planned, received = sum(len(task.record.plan) for task in tasks), sum(len(task.calls) for task in tasks)
        if not received:
            raise NoData("tool_amplification: the tool server received no call of the trial's tasks")
        made = sum(task.planned_calls for task in tasks)
        received += len(self.strays)
        most = received + len(self.doubtful)
        undecided = self._undecided_by_strays
        if made < planned:
            why = f"{planned - made} of {planned} planned calls were not made: claim that tasks are completed, or bound it by more"
            undecided = _joined(undecided, why)
        scale = Scale(
            what="tool_amplification",
            least=0.0,
            most=math.inf,
            at_least="no call had been made",
            at_most="calls had been repeated without end",
            advice="bound it above 0: 1 means one call for each step",
            undecided=undecided,
        )
        return BoundedFloat(received / planned, scale, high=most / made + self._further if made else math.inf)

    @property
    def retry_after_honoured(self) -> bool:
        """True if no call came again before the time that an answer named.

        Raises:
            NoData: No answer named a time, or nothing counted the calls.
        """
        if self.retries is None or not self.retries.limited:
            raise NoData(
                "retry_after_honoured: no tool call was answered with a time to come back; inject "
                'faults.tool("desk.refund", how="rate_limited")'
            )
        return not self.retries.early

    def _some(self) -> tuple[SeenTask, ...]:
        if not self.seen:
            raise NoData(
                "the trial's load sent no task, so its tasks prove nothing: raise rate_rps or the trial's phases"
            )
        return self.seen

    def _judged(self) -> tuple[SeenTask, ...]:
        """Return the tasks, whose effects are known."""
        if self.no_ledger is not None:
            raise self.no_ledger
        return self._some()

    def _with_effects(self, what: str) -> tuple[SeenTask, ...]:
        tasks = self._judged()
        if not any(call.effect is not None for task in tasks for call in task.calls):
            raise NoData(f"{what}: the ledger has no effect of the trial's {len(tasks)} tasks, so it proves nothing")
        return tasks

    def _completed(self, what: str) -> tuple[SeenTask, ...]:
        tasks = tuple(task for task in self._judged() if task.record.status == "completed" and task.effects)
        if not tasks:
            raise NoData(f"{what}: no task with effects was reported completed, so none could be wrong")
        return tasks

    def _unknown(self, otherwise: str) -> Inconclusive:
        return self.model_calls if isinstance(self.model_calls, Inconclusive) else NoData(otherwise)

    def _with_status(self, status: TaskStatus) -> NamedCount:
        found = [task for task in self._some() if task.record.status == status]
        named = [_id(task) for task in found] if status not in {"completed", "cancelled"} else []
        worst = f"every task had been {status}"
        return self._count(status, len(found), named, worst, further=self.unfinished, most=self.offered)

    @property
    def _further(self) -> float:
        """Calls and effects that may still come: infinitely many, or none."""
        return math.inf if self.unfinished or self.still_called else 0.0

    @property
    def _undecided(self) -> str:
        """Why a value may still grow, and what to do. Empty if it cannot."""
        why = []
        if self.still_called:
            why.append(
                "the tool server still got calls of the trial's tasks when its ledger was read: end what makes them, such as by "
                "a budget, or claim a lower bound"
            )
        if self.unfinished:
            why.append(
                f"{self.unfinished} tasks were open before their deadline when the load ended: let it end in time"
            )
        return "; ".join(why)

    def _missed_by_counter(self, counted: float, certain: int) -> str:
        """Why calls are in no count and no report. Empty if none are."""
        if all(task.reports_model_calls for task in self.seen):
            return ""
        if not self.counter_began_anew and round(counted) >= certain:
            return ""
        why = "its counter began anew" if self.counter_began_anew else f"tasks surely made {certain}"
        return (
            f"the model's service counted {counted:g} and missed calls, as {why}: let the agent report `model_calls` of each "
            "task, or spare that service"
        )

    @property
    def _undecided_by_reports(self) -> str:
        """Why tasks may have used more than they reported. Empty if none may."""
        growing = sum(task.may_use_more for task in self.seen)
        if not growing:
            return ""
        return f"{growing} tasks had no end that the agent reported, and may have used more: give them more time, or a budget"

    @property
    def _undecided_by_strays(self) -> str:
        """Why a value that strays may raise is open, too."""
        if not self.doubtful:
            return self._undecided
        return _joined(
            self._undecided,
            f"the tool server got {len(self.doubtful)} calls on orders of no task, perhaps of other clients or of tasks that an "
            "earlier trial left: let the agent alone use it, and give tasks time to end",
        )

    def _undecided_by_late_strays(self, late: int) -> str:
        """Why calls of no task that came after a budget may be of its task."""
        if not late:
            return self._undecided
        return _joined(
            self._undecided,
            f"the tool server got {late} later calls on orders of no task, which may be theirs: let no other client call it, "
            "and no text name other orders",
        )

    def _count(
        self,
        what: str,
        value: int,
        named: Sequence[str],
        worst: str,
        *,
        further: float,
        most: float = math.inf,
        undecided: str = "",
    ) -> NamedCount:
        """Return a count, to which further ones may still come."""
        scale = Scale(
            what=f"{what} of the trial's tasks",
            least=0.0,
            most=most,
            at_least="there had been none",
            at_most=worst,
            advice="bound it inside the number of tasks",
            of=self.offered if most == self.offered else None,
            undecided=undecided or self._undecided,
        )
        return NamedCount(value, scale, high=min(most, value + further), named=named)


def planned_model_calls(record: TaskRecord) -> int:
    """Return the model calls that a plan needs: one a step, and the last answer."""
    return len(record.plan) + 1


def judge_tasks(
    records: Sequence[TaskRecord],
    calls: Sequence[ToolCall] | Inconclusive,
    *,
    reads: Iterable[str] = (),
    still_called: bool = False,
    doubtful: frozenset[int] = frozenset(),
    kills: Iterable[Kill] = (),
    model_calls: float | Inconclusive | None = None,
    counter_began_anew: bool = False,
    retries: Retries | None = None,
) -> Tasks:
    """Return the tasks of a trial.

    Args:
        records: The tasks as their callers saw them.
        calls: The calls in the ledger, also of orders of no task, or the reason why
            they are unknown.
        reads: Tools without effects, unless the ledger has one of them.
        still_called: True if calls still arrived when the ledger was read.
        doubtful: Orders of no task for which others may have called.
        kills: Kills of services.
        model_calls: Requests that the model's service counted, or the reason why they
            are unknown. None without such a counter.
        counter_began_anew: True if that counter may have lost calls by beginning anew.
        retries: Answers that named a time to come back. None if nothing counted them.

    Raises:
        TruthsDisagree: Two tasks have one order number, so effects have no owner.
    """
    known = () if isinstance(calls, Inconclusive) else calls
    by_order = _calls_by_order(records, known)
    strays = [call for call in _by_time(known) if str(call.order) not in by_order]
    reading = set(reads) - {call.tool for its in by_order.values() for call in its if call.effect is not None}
    return Tasks(
        seen=tuple(_seen(record, by_order[_order(record)], reading) for record in records),
        kills=tuple(sorted(kills, key=lambda kill: kill.at_s)),
        no_ledger=calls if isinstance(calls, Inconclusive) else None,
        model_calls=model_calls,
        counter_began_anew=counter_began_anew,
        retries=retries,
        still_called=still_called,
        strays=tuple(call for call in strays if call.order not in doubtful),
        doubtful=tuple(call for call in strays if call.order in doubtful),
    )


def orders_of(records: Iterable[TaskRecord]) -> frozenset[int]:
    """Return the order numbers of the tasks' plans."""
    return frozenset(int(_order(record)) for record in records)


def increase_of(points: Sequence[tuple[float, float]], baseline_until_s: float) -> float:
    """Return how much one counter grew over its samples, across restarts at 0.

    Calls between a process's last sample and its end are not in it.

    Args:
        points: Unix seconds and value of each sample, by time.
        baseline_until_s: A first sample up to then had counted before. A later one
            belongs to a counter that began at 0.
    """
    before = points[0][1] if points and points[0][0] <= baseline_until_s else 0.0
    grown = 0.0
    for _, value in points:
        grown += value - before if value >= before else value
        before = value
    return grown


def began_anew(points: Sequence[tuple[float, float]], baseline_until_s: float) -> bool:
    """True if a counter's samples fell, so that its increase may lack calls.

    Args:
        points: Unix seconds and value of each sample, by time.
        baseline_until_s: A fall up to then was before the calls that count.
    """
    return any(later < earlier and at_s > baseline_until_s for (_, earlier), (at_s, later) in pairwise(points))


def worst(tasks: Sequence[SeenTask], most: int) -> tuple[SeenTask, ...]:
    """Return the tasks with the most harmful troubles first, then the slowest.

    Args:
        tasks: The tasks.
        most: Number of tasks to return.
    """

    def rank(task: SeenTask) -> tuple[float, ...]:
        found = task.troubles
        place = min((i for i, trouble in enumerate(TROUBLES) for one in found if trouble in one), default=len(TROUBLES))
        ended_s = task.record.ended_s
        return (place, -len(found), -(math.inf if ended_s is None else ended_s - task.record.due_s), task.record.due_s)

    return tuple(sorted(tasks, key=rank)[:most])


def _calls_by_order(records: Sequence[TaskRecord], calls: Sequence[ToolCall]) -> dict[str, tuple[ToolCall, ...]]:
    found: dict[str, list[ToolCall]] = {}
    for record in records:
        if _order(record) in found:
            raise TruthsDisagree(
                f"task {record.id} has order {_order(record)} of another task, so its effects are unknown"
            )
        found[_order(record)] = []
    for call in _by_time(calls):
        if str(call.order) in found:
            found[str(call.order)].append(call)
    return {order: tuple(its) for order, its in found.items()}


def _by_time(calls: Iterable[ToolCall]) -> list[ToolCall]:
    return sorted(calls, key=lambda call: call.received_s)


def _effects(calls: Iterable[ToolCall]) -> set[tuple[str, int]]:
    """Return the effects of calls, each once. A repeated key may show the first."""
    return {(call.step, call.effect) for call in calls if call.effect is not None}


def _seen(record: TaskRecord, calls: tuple[ToolCall, ...], reading: set[str]) -> SeenTask:
    planned = Counter(step for step in record.plan if step.rpartition(" ")[0] not in reading)
    done = Counter(step for step, _ in _effects(calls))
    return SeenTask(
        record=record,
        calls=calls,
        surplus=dict(sorted((done - planned).items())),
        missing=tuple((planned - done).elements()),
        effects=planned.total(),
    )


def _order(record: TaskRecord) -> str:
    return record.plan[0].rpartition(" ")[2]


def _joined(*reasons: str) -> str:
    return "; ".join(reason for reason in reasons if reason)


def _id(task: SeenTask) -> str:
    return task.record.id


def _times(n: int) -> str:
    return "once" if n == 1 else f"{n} times"
