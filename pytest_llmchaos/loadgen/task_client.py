"""One task of an agent, from its due time to its record and sample."""

from __future__ import annotations

import json
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path

import gevent
from gevent.pool import Pool

from pytest_llmchaos.evidence.redaction import redact
from pytest_llmchaos.evidence.task_records import TaskRecord, TaskStatus, line
from pytest_llmchaos.loadgen import classify
from pytest_llmchaos.loadgen.load_plan import LoadPlan
from pytest_llmchaos.loadgen.recorder import Lines
from pytest_llmchaos.loadgen.task_state import TaskState, read_state
from pytest_llmchaos.loadgen.wire import Answer, Wire
from pytest_llmchaos.loads.agent_tasks import AgentTasks, steps_of
from pytest_llmchaos.loads.arrivals import Arrival
from pytest_llmchaos.model import Outcome, Sample
from pytest_llmchaos.subject.requests import TASKS_PATH, head_of

# The agent holds a poll for at most this long.
POLL_S = 5
# An agent that does not answer in this time is tried again.
TRY_S = 5.0
# Between two tries, and between polls of an agent that does not hold them.
RETRY_S = 0.25
# An agent confirms a cancellation in this time after the final state.
CONFIRM_S = 1.0
# At the end of the load, for all tasks that are cancelled then.
LEAVE_S = 2.0
MOST_LEAVING = 100  # at once
LONGEST_ERROR = 500
_ACCEPTED = (200, 201, 202)
# Refusals of an agent that may accept the task later. Others end the task.
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
_GONE = (404, 410)
_OVER = (*_GONE, 409)  # of a DELETE. 409: the task has ended
# The agent, or a proxy before it, failed after it may have taken the task.
_BROKEN = (408, 500, 502, 504)
_FINAL: dict[str, TaskStatus] = {"completed": "completed", "failed": "failed", "cancelled": "cancelled"}


class _Task:
    """An open task."""

    def __init__(self, name: str, arrival: Arrival, sent_s: float, deadline_s: float) -> None:
        self.name, self.arrival, self.sent_s, self.deadline_s = name, arrival, sent_s, deadline_s
        self.accepted_s: float | None = None
        self.cancelled_s: float | None = None
        self.is_cancelled = False
        self.may_run = False  # without having been accepted
        self.is_over = False
        self.state = TaskState(status="running")
        self.answer: Answer | None = None
        self.problem: str | None = None

    def runs(self) -> bool:
        return self.state.status == "running"


class TaskClient:
    """All callers of one process.

    Attributes:
        wire: the connections.
        t0_s: second 0 of the load on the monotonic clock.
        uncancelled: tasks that may still run after `close`.
    """

    def __init__(self, plan: LoadPlan, tasks: AgentTasks, records: Path) -> None:
        self._plan, self._tasks = plan, tasks
        sent = plan.requests.resolve(os.environ)
        self.wire = Wire(plan.url, tls=plan.requests.tls, host=sent.host)
        self.t0_s, self.uncancelled = 0.0, 0
        self._hidden = plan.requests.secrets(os.environ)
        self._headers = {**head_of(sent.headers), "Accept": "application/json"}
        self._name = f"llmchaos-{secrets.token_hex(4)}"
        self._open: dict[int, _Task] = {}
        self._left: list[_Task] = []
        self._records = Lines(records)

    def close(self) -> None:
        """Cancel the tasks that may still run, which would disturb the next load."""
        pool = Pool(MOST_LEAVING)
        with gevent.Timeout(LEAVE_S, exception=False):
            # The accepted ones run for sure.
            for task in sorted(self._left, key=lambda task: task.accepted_s is None):
                pool.spawn(self._leave, task)
            pool.join()
        self.uncancelled = sum(not task.is_over for task in self._left)
        pool.kill(block=False)
        self.wire.close()
        self._records.close()

    def call(self, index: int, arrival: Arrival) -> tuple[Sample, int]:
        """Send a task and wait for its end.

        Never raises. A greenlet that is killed gives its task up.

        Args:
            index: the task's place in the schedule.
            arrival: the task.

        Returns:
            The sample, and the size of the last answer in bytes.
        """
        sent_s = self._now_s()
        task = self._open[index] = _Task(self.request_id(index), arrival, sent_s, arrival.due_s + self._tasks.task_s)
        cancel = None
        try:
            if self._tasks.cancels(index):
                after_s = max(0.0, arrival.due_s + self._tasks.cancel_after_s - sent_s)
                cancel = gevent.spawn_later(after_s, self._cancel, task)
            status = self._follow(task)
            if cancel is not None and task.is_cancelled:
                cancel.join(CONFIRM_S)
        except gevent.GreenletExit:
            return self.given_up(index, arrival, sent_s), 0
        finally:
            if cancel is not None:
                cancel.kill(block=False)
            del self._open[index]
        return self._end(task, status), len(task.answer.body) if task.answer is not None else 0

    def request_id(self, index: int) -> str:
        """The id of a task, also the value of the header `X-Request-Id`.

        Unique, and it ends with the task's place in the schedule.
        """
        return f"{self._name}-{index}"

    def has_begun(self, index: int) -> bool:
        """True if an open task was accepted."""
        return index in self._open and self._open[index].accepted_s is not None

    def overdue_s(self, index: int, arrival: Arrival) -> float:
        """Seconds that an open task exceeds its limit by. Below 0 it can be good."""
        del index
        return self._now_s() - arrival.due_s - self._plan.good_e2e_s

    def is_awaited(self, index: int, arrival: Arrival) -> bool:
        """True if the end of the load waits for an open task: until its deadline."""
        del index, arrival
        return True

    def given_up(self, index: int, arrival: Arrival, sent_s: float) -> Sample:
        """The sample of a task that is open at the end of the load."""
        task = self._open.get(index) or _Task(self.request_id(index), arrival, sent_s, arrival.due_s)
        self._left.append(task)
        self._record(task, "unfinished", None)
        outcome: Outcome = "unfinished" if self.overdue_s(index, arrival) > 0 else "cancelled"
        return Sample(arrival.due_s, sent_s, None, self._now_s(), 0.0, 0, outcome, "", task.name)

    def _now_s(self) -> float:
        return time.monotonic() - self.t0_s

    def _follow(self, task: _Task) -> TaskStatus:
        """Send a task until it is accepted, then poll it until its end."""
        body = json.dumps({"id": task.name, "input": task.arrival.prompt}).encode()
        while task.accepted_s is None:
            answer = self._ask(task, "POST", TASKS_PATH, TRY_S, body)
            if answer is None:
                return "refused"
            task.may_run = task.may_run or _may_have_taken(answer)
            if answer.ended == "complete" and answer.status in _ACCEPTED:
                task.accepted_s = answer.end_s - self.t0_s
                self._take(task, answer)
            elif answer.ended == "complete" and answer.status not in _TRANSIENT:
                return "refused"
            else:
                self._pause(task, answer)
        while task.runs():
            asked_s = time.monotonic()
            answer = self._ask(task, "GET", f"{TASKS_PATH}/{task.name}?wait_s={POLL_S}", POLL_S + TRY_S)
            if answer is None:
                return "stuck"
            if answer.ended == "complete" and answer.status in _GONE:
                return "lost"
            if not (answer.ended == "complete" and answer.status == 200 and self._take(task, answer)):
                self._pause(task, answer)
            elif task.runs() and answer.end_s - asked_s < RETRY_S:
                gevent.sleep(RETRY_S)
        if task.state.status == "cancelled" and not task.is_cancelled:
            return "failed"
        return _FINAL[task.state.status]

    def _cancel(self, task: _Task) -> None:
        """Cancel a task as soon as it is accepted, until the agent confirms it."""
        while task.accepted_s is None:
            gevent.sleep(RETRY_S)
        task.is_cancelled = True
        while (left_s := task.deadline_s - self._now_s()) > 0:
            answer = self._exchange(task, "DELETE", f"{TASKS_PATH}/{task.name}", min(TRY_S, left_s))
            if answer.ended == "complete" and 200 <= answer.status < 300:
                task.cancelled_s = answer.end_s - self.t0_s
                return
            if answer.ended == "complete" and answer.status not in _TRANSIENT:
                return
            gevent.sleep(_wanted_s(answer))

    def _leave(self, task: _Task) -> None:
        """Cancel a task at the end of the load, and note if the agent confirms it."""
        answer = self._exchange(task, "DELETE", f"{TASKS_PATH}/{task.name}", LEAVE_S)
        task.is_over = answer.ended == "complete" and (200 <= answer.status < 300 or answer.status in _OVER)

    def _ask(self, task: _Task, method: str, path: str, timeout_s: float, body: bytes = b"") -> Answer | None:
        """Send one request of a task. None after its deadline."""
        left_s = task.deadline_s - self._now_s()
        if left_s <= 0:
            return None
        task.answer = self._exchange(task, method, path, min(timeout_s, left_s), body)
        return task.answer

    def _exchange(self, task: _Task, method: str, path: str, timeout_s: float, body: bytes = b"") -> Answer:
        head = self.wire.head(
            method, path, {**self._headers, "X-Request-Id": task.name, "Content-Length": str(len(body))}
        )
        return self.wire.exchange(head + b"\r\n" + body, timeout_s=timeout_s, stream=False)

    def _pause(self, task: _Task, answer: Answer) -> None:
        """Note a problem and wait before the next try, as long as the agent wants."""
        if answer.ended != "complete":
            task.problem = f"no answer ({answer.ended})"
        elif answer.status != 200:
            task.problem = f"HTTP {answer.status}"
        gevent.sleep(max(0.0, min(_wanted_s(answer), task.deadline_s - self._now_s())))

    def _take(self, task: _Task, answer: Answer) -> bool:
        """Note the state in an answer. False without one."""
        try:
            task.state = read_state(bytes(answer.body))
        except ValueError as error:
            task.problem = f"not a task's state: {error}"
            return False
        return True

    def _end(self, task: _Task, status: TaskStatus) -> Sample:
        if status == "stuck" or (status == "refused" and task.may_run):
            self._left.append(task)
        now_s = self._now_s()
        answer = task.answer
        end_s = answer.end_s - self.t0_s if answer is not None and status not in ("stuck", "refused") else now_s
        self._record(task, status, end_s)
        http = answer.status if answer is not None and status not in ("stuck", "unfinished") else 0
        hint = None
        if answer is not None and http in (429, 503):
            hint = classify.retry_after_s(answer.retry_after, time.time())
        return Sample(
            task.arrival.due_s,
            task.sent_s,
            None,
            end_s,
            0.0,
            task.state.tokens or 0,
            _outcome_of(task, status, http),
            "",
            task.name,
            http,
            hint,
        )

    def _record(self, task: _Task, status: TaskStatus, end_s: float | None) -> None:
        is_seen = status in ("completed", "failed", "cancelled", "lost")
        state = task.state
        error = state.error if is_seen and status != "lost" else task.problem
        if status == "failed" and state.status == "cancelled":
            error = error or "cancelled by the agent"
        if error is None and status in ("refused", "lost") and task.answer is not None:
            error = f"HTTP {task.answer.status}"
        record = TaskRecord(
            id=task.name,
            plan=steps_of(task.arrival.prompt),
            due_s=_rounded(task.arrival.due_s),
            sent_s=_rounded(task.sent_s),
            accepted_s=None if task.accepted_s is None else _rounded(task.accepted_s),
            ended_s=_rounded(end_s) if is_seen and end_s is not None else None,
            cancelled_s=None if task.cancelled_s is None else _rounded(task.cancelled_s),
            status=status,
            steps=state.steps or 0,
            tokens=state.tokens or 0,
            model_calls=state.model_calls or 0,
            tool_calls=state.tool_calls or 0,
            error=None if error is None else _evidence(error, self._hidden),
            left_s=_rounded(self._now_s() if end_s is None else end_s),
        )
        with suppress(OSError):  # a full disk takes the line later
            self._records.write(line(record))


def _may_have_taken(answer: Answer) -> bool:
    """True if an agent may run a task although this was the answer to its POST."""
    return answer.was_sent if answer.ended != "complete" else answer.status in _BROKEN


def _wanted_s(answer: Answer) -> float:
    """Seconds to the next try: what the agent wants, else a moment."""
    wanted_s = None
    if answer.ended == "complete" and answer.status in _TRANSIENT:
        wanted_s = classify.retry_after_s(answer.retry_after, time.time())
    return wanted_s or RETRY_S


def _evidence(error: str, hidden: frozenset[str]) -> str:
    """An agent's error as evidence keeps it: short, encodable and without secrets."""
    text = error[: 8 * LONGEST_ERROR].encode("utf-8", "replace").decode()
    return redact(text, hidden)[:LONGEST_ERROR]


def _rounded(at_s: float) -> float:
    return round(at_s, 6)


def _outcome_of(task: _Task, status: TaskStatus, http: int) -> Outcome:
    """The outcome of a task's sample (docs/load.md has the table)."""
    if status == "completed":
        return "ok"
    if status == "cancelled":
        return "left"
    if status == "lost":
        return "http_4xx"
    if status == "refused":
        ended = "" if task.answer is None else task.answer.ended
        return (http and classify.of_status(http)) or ("timeout" if ended == "timeout" else "refused")
    return "timeout" if status == "stuck" else "inband_error"
