"""Reads what a trial's tasks left: records, effect ledger and counters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import EvidenceLost, Inconclusive, NoData
from pytest_llmchaos.evidence import task_records, tool_calls
from pytest_llmchaos.evidence.tool_calls import ToolCall
from pytest_llmchaos.lab import effect_ledger
from pytest_llmchaos.loads.agent_tasks import Orders
from pytest_llmchaos.prometheus.queries import SCRAPE_S
from pytest_llmchaos.trial.tasks import (
    SHOWN,
    Kill,
    Retries,
    Tasks,
    began_anew,
    increase_of,
    judge_tasks,
    orders_of,
)

if TYPE_CHECKING:
    from pytest_llmchaos.evidence.trial_record import Record
    from pytest_llmchaos.lab.effect_ledger import Row, Rows
    from pytest_llmchaos.lab.injector import Injected
    from pytest_llmchaos.lab.lab import Lab
    from pytest_llmchaos.loads import Load

# Kinds of faults that end a process.
KILLS = frozenset({"kill", "crash", "stop", "restart"})
# Counters of the fault agent, which not every fault has.
HIT, EARLY = "hit", "early"


@dataclass(frozen=True, kw_only=True)
class LedgerBegin:
    """The effect ledger before a load of tasks.

    Attributes:
        url: Its address, None if the stack names no ledger.
        last: Its last row, None if it was empty.
        unknown: Reason why it could not be read, or None.
        kept: Its last row before the fault, None if it was empty until then.
        reads: Tools without effects.
        taken: First order numbers of earlier loads.
        is_shared: True if other clients, or tasks of an earlier load, may call tools.
    """

    url: str | None = None
    last: Row | None = None
    unknown: Inconclusive | None = None
    kept: Row | None = None
    reads: tuple[str, ...] = ()
    taken: frozenset[int] = frozenset()
    is_shared: bool = False


def ledger_begin(lab: Lab, load: Load) -> LedgerBegin | None:
    """Return the ledger before a load. None for a load without tasks."""
    if load.tasks is None:
        return None
    at = lab.subject.ledger
    if at is None:
        why = "this stack names no effect ledger of its tool server, so the effects of tasks are unknown: set llmchaos_ledger"
        return LedgerBegin(unknown=NoData(why), reads=load.tasks.reads)
    url = f"{lab.runtime.url(at.service)}{at.path}"
    try:
        last = effect_ledger.last_row(url)
        return LedgerBegin(
            url=url,
            last=last,
            reads=load.tasks.reads,
            taken=frozenset(lab.orders),
            is_shared=lab.subject.attach or lab.has_left_tasks,
        )
    except Inconclusive as error:
        return LedgerBegin(url=url, unknown=error, reads=load.tasks.reads)


def ledger_before_fault(begin: LedgerBegin | None) -> LedgerBegin | None:
    """Return the ledger with its last row before the fault.

    The row shows later whether a ledger that was empty at first began anew.
    """
    if begin is None or begin.url is None or begin.unknown is not None:
        return begin
    try:
        return replace(begin, kept=effect_ledger.last_row(begin.url, begin.last))
    except Inconclusive as error:
        return replace(begin, unknown=error)


def tasks_of(
    lab: Lab, record: Record, injected: Injected, begin: LedgerBegin | None, counted_unix_s: float, *, sent: int
) -> Tasks | None:
    """Return a trial's tasks, None for a load without tasks.

    Call it after the load has ended and all tasks had their time. The calls are then in
    the trial's folder.

    Args:
        lab: The running stack.
        record: The trial's record.
        injected: The injected faults and their times.
        begin: The ledger before the load.
        counted_unix_s: Unix seconds at which Prometheus had the last counts.
        sent: Tasks that the load sent.

    Raises:
        EvidenceLost: A task has no record.
    """
    if begin is None:
        return None
    records = task_records.load(record.directory)
    if len(records) != sent:
        raise EvidenceLost(
            f"{record.directory / task_records.NAME} has {len(records)} of {sent} tasks, so ends are missing: free the disk, "
            "and repeat the trial"
        )
    orders = Orders(own=orders_of(records), taken=begin.taken, is_shared=begin.is_shared)
    may_retry = any(one.status != "completed" for one in records)
    read = _read(begin, orders, is_hit=bool(injected.proven), may_retry=may_retry)
    calls = read if isinstance(read, Inconclusive) else tuple(_call(record, row) for row in read.rows)
    doubtful: frozenset[int] = frozenset()
    if not isinstance(calls, Inconclusive):
        doubtful = frozenset(call.order for call in calls if orders.is_doubtful(call.order))
        tool_calls.write(record.directory, [call for call in calls if call.order not in doubtful])
    counted, is_anew = _model_calls(lab, record, injected, counted_unix_s)
    found = judge_tasks(
        records,
        calls,
        reads=begin.reads,
        doubtful=doubtful,
        still_called=not isinstance(read, Inconclusive) and not read.is_quiet,
        kills=[
            Kill(service=act.victim, at_s=record.at_s(unix_s))
            for act, unix_s in injected.proven
            if act.fault.kind in KILLS
        ],
        model_calls=counted,
        counter_began_anew=is_anew,
        retries=_retries(record),
    )
    for strays, whose in ((found.strays, ""), (found.doubtful, ", perhaps of other clients")):
        if strays:
            shown = ", ".join(sorted({call.step for call in strays})[:SHOWN])
            record.finding(f"calls on orders of no task{whose}: {len(strays)}, such as {shown}")
    return found


def _read(begin: LedgerBegin, orders: Orders, *, is_hit: bool, may_retry: bool) -> Rows | Inconclusive:
    """Return the rows of a load, or the reason why they are unknown."""
    if begin.unknown is not None or begin.url is None:
        return begin.unknown or NoData("the effect ledger has no address")
    if is_hit and begin.kept is None:
        return Inconclusive(
            f"the effect ledger at {begin.url} was empty until the fault, so rows that the fault removed could not be noticed: "
            "raise steady_s or rate_rps, so that a tool is called before the fault"
        )
    try:
        return effect_ledger.rows_since(begin.url, begin.last, orders, kept=begin.kept, may_retry=may_retry)
    except Inconclusive as error:
        return error


def _call(record: Record, row: Row) -> ToolCall:
    def at_s(unix_s: float) -> float:
        return round(unix_s - record.anchor_unix_s, 6)

    applied, answered = row.applied_unix_s, row.answered_unix_s
    return ToolCall(
        tool=row.tool,
        order=row.order,
        key=row.key,
        effect=row.effect,
        received_s=at_s(row.received_unix_s),
        applied_s=None if applied is None else at_s(applied),
        answered_s=None if answered is None else at_s(answered),
    )


def _model_calls(
    lab: Lab, record: Record, injected: Injected, until_unix_s: float
) -> tuple[float | Inconclusive | None, bool]:
    """Return the requests that the service took, and if its counter began anew.

    None if others may be among them.
    """
    counter = lab.subject.model_calls_counter
    if counter is None or lab.subject.attach:
        return None, False
    begin_unix_s = record.anchor_unix_s
    try:
        series = lab.prometheus.raw(counter, begin_unix_s - 2 * SCRAPE_S, until_unix_s)
    except Inconclusive as error:
        return error, False
    if not series:
        return NoData(f"Prometheus has no sample of {counter} in the trial, so the model's calls are unknown"), False
    # A series that went with its process and did not come back shows no fall.
    killed = {act.victim for act, _ in injected.proven if act.fault.kind in KILLS}
    is_anew = any(one.labels.get("service") in killed or began_anew(one.points, begin_unix_s) for one in series)
    return float(sum(increase_of(one.points, begin_unix_s) for one in series)), is_anew


def _retries(record: Record) -> Retries | None:
    """Return the fault agents' counts of answers that named a time to come back."""
    counted = [act.counts.counters for act in record.undo if act.counts is not None and EARLY in act.counts.counters]
    if not counted:
        return None
    return Retries(
        limited=round(sum(one.get(HIT, 0) for one in counted)), early=round(sum(one[EARLY] for one in counted))
    )
