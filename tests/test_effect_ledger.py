"""Reading the effect ledger of a tool server, and a trial's tasks from it."""

from __future__ import annotations

import functools
import json
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from support.api_server import Asked, Reply, api
from support.clock import Clock

from pytest_llmchaos import faults
from pytest_llmchaos.errors import EvidenceLost, Inconclusive, NoData
from pytest_llmchaos.evidence import task_records, tool_calls
from pytest_llmchaos.evidence.journal import Journal
from pytest_llmchaos.evidence.task_records import TaskRecord
from pytest_llmchaos.evidence.trial_record import Record
from pytest_llmchaos.evidence.trial_result import CountsNote, UndoResult
from pytest_llmchaos.lab import effect_ledger
from pytest_llmchaos.lab.effect_ledger import last_row, rows_since
from pytest_llmchaos.lab.injector import Injected
from pytest_llmchaos.loads.agent_tasks import Orders
from pytest_llmchaos.model import Injection
from pytest_llmchaos.subject.lab import Endpoint
from pytest_llmchaos.trial.seen_tasks import LedgerBegin, ledger_before_fault, ledger_begin, tasks_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

T0 = 1_790_000_000.0
ORDERS = Orders(own=frozenset({17, 18}))
FOREIGN = 300_017  # of another range


def row(n: int, *, order: int = 17, tool: str = "refund", **more: Any) -> dict[str, Any]:
    times = {"received_unix_s": T0 + n, "applied_unix_s": T0 + n + 0.1, "answered_unix_s": T0 + n + 0.2}
    return {"id": n, "tool": tool, "order": order, "key": None, "effect": n, **times, **more}


class Server:
    """A ledger of which a test changes the rows and the answers."""

    def __init__(self, *rows: dict[str, Any], page_rows: int = 3) -> None:
        self.rows, self.page_rows = list(rows), page_rows
        self.odd: Reply | None = None
        self.looks = 0

    def answer(self, asked: Asked) -> Reply:
        self.looks += 1
        if self.odd is not None:
            return self.odd
        after = int(asked.path.rpartition("after=")[2])
        found = [one for one in self.rows if one["id"] > after][: self.page_rows]
        return Reply(json.dumps({"calls": found, "next": after}).encode(), kind="application/json")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effect_ledger, "QUIET_S", 0.0)


def test_rows_of_the_orders_are_read_over_pages_from_a_moment_on() -> None:
    server = Server(*(row(n) for n in range(1, 8)))
    with api(server.answer) as (url, _):
        begin = last_row(url)
        server.rows += [row(n, order=17 + n % 3) for n in range(8, 20)]

        found = rows_since(url, begin, replace(ORDERS, taken=frozenset({0})))

    assert begin is not None
    assert begin.id == 7
    assert [one.id for one in found.rows] == [n for n in range(8, 20) if n % 3 < 2]
    assert found.is_quiet


def test_an_empty_ledger_has_no_last_row_and_all_rows_are_later() -> None:
    server = Server()
    with api(server.answer) as (url, _):
        assert last_row(url) is None
        server.rows = [row(1)]

        assert [one.id for one in rows_since(url, None, ORDERS).rows] == [1]


def test_a_call_is_read_again_if_it_had_no_answer_at_first() -> None:
    open_call = row(2, answered_unix_s=None, applied_unix_s=None, effect=None)
    server = Server(row(1), open_call, row(3, order=99))

    def answer(asked: Asked) -> Reply:
        reply = server.answer(asked)
        if server.looks == 2:
            server.rows[1] = row(2)
        return reply

    with api(answer) as (url, _):
        found = rows_since(url, None, ORDERS)

    assert [(one.id, one.effect) for one in found.rows] == [(1, 1), (2, 2), (3, 3)]


def test_it_waits_until_no_more_rows_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(row(1))

    def answer(asked: Asked) -> Reply:
        if server.looks < 6:
            server.rows.append(row(len(server.rows) + 1))
        return server.answer(asked)

    with api(answer) as (url, _):
        found = rows_since(url, None, ORDERS)
        assert (len(found.rows), found.is_quiet) == (7, True)


def test_calls_that_still_arrive_at_the_deadline_are_read_and_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effect_ledger, "QUIET_DEADLINE_S", 0.0)
    quiet = []
    shared = replace(ORDERS, is_shared=True)
    for order, orders in (
        (17, ORDERS),
        (17, shared),
        (99, shared),
        (FOREIGN, ORDERS),
        (FOREIGN, shared),
    ):
        server = Server(row(1, order=order))
        with api(server.answer) as (url, _):
            found = rows_since(url, None, orders)
        quiet.append((len(found.rows), found.is_quiet))

    assert quiet == [(1, False)] * 4 + [(1, True)], "other clients may call for ever"


def _repeated(clock: Clock, began_s: float, gap_s: float, most: int) -> int:
    """Rows of one call that is repeated after each gap, up to the most."""
    return 1 + min(most, int((clock.passed_s - began_s) / gap_s))


def retried(server: Server, due: Callable[[], int], asked: Asked) -> Reply:
    """Answer with the rows that are due now."""
    server.rows += [row(n) for n in range(len(server.rows) + 1, due() + 1)]
    return server.answer(asked)


def test_a_call_that_is_repeated_after_a_pause_is_awaited_if_a_task_may_do_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row arrives every 2 or 4 s, once or again and again."""
    clock = Clock()
    monkeypatch.setattr(effect_ledger, "time", clock)
    monkeypatch.setattr(effect_ledger, "QUIET_S", 0.5)
    found = []
    for may_retry, gap_s, most in ((False, 2.0, 1), (True, 2.0, 1), (True, 2.0, 99), (True, 4.0, 99)):
        server, began_s = Server(row(1)), clock.passed_s
        due = functools.partial(_repeated, clock, began_s, gap_s, most)
        calls = functools.partial(retried, server, due)
        with api(calls) as (url, _):
            read = rows_since(url, None, ORDERS, may_retry=may_retry)
        found.append((len(read.rows), read.is_quiet, clock.passed_s - began_s))

    assert found == [(1, True, 0.5), (2, True, 5.0), (4, False, 6.5), (1, True, 3.0)]


def test_a_ledger_that_grows_faster_than_it_is_read_ends_at_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effect_ledger, "READ_S", 0.05)
    server = Server(row(1))

    def runaway(asked: Asked) -> Reply:
        server.rows.append(row(len(server.rows) + 1))
        return server.answer(asked)

    with (
        api(runaway) as (url, _),
        pytest.raises(Inconclusive, match=r"rows after row \d+ which were not read within 0.05 s"),
    ):
        rows_since(url, None, ORDERS)


def test_calls_without_an_answer_are_read_again_up_to_the_last_known_row() -> None:
    server = Server(row(1, answered_unix_s=None))

    def answer(asked: Asked) -> Reply:
        reply = server.answer(asked)
        if server.looks == 3:  # from now on a runaway of other orders calls
            server.rows += [row(n, order=99) for n in range(2, 10)]
        return reply

    with api(answer) as (url, asked):
        assert len(rows_since(url, None, ORDERS).rows) == 1

    assert [one.path for one in asked] == [f"/?after={n}" for n in (0, 1, 1, 0)]


def test_both_rows_of_before_must_still_be_there() -> None:
    """A ledger that began anew before its second row was noted has that one."""
    first, second = (effect_ledger.Row(id=n, tool="mail", order=1, received_unix_s=T0 + n) for n in (1, 2))
    for lost in (1, 2):
        server = Server(*(row(n, received_unix_s=T0 + n + (n == lost) * 0.5) for n in (1, 2)))
        with api(server.answer) as (url, _), pytest.raises(Inconclusive, match=f"its row {lost} is gone"):
            rows_since(url, first, ORDERS, kept=second)


def test_a_bad_ledger_is_an_error_that_explains_it() -> None:
    good = {n: row(n) for n in range(1, 10)}
    begin_at = 4

    def renewed(server: Server) -> None:
        server.rows = [row(n, received_unix_s=T0 + 100 + n) for n in range(1, 10)]

    def emptied(server: Server) -> None:
        server.rows = []

    def gap(server: Server) -> None:
        server.rows = [row(n) for n in range(1, 10) if n != 6]

    def odd(reply: Reply) -> Any:
        return lambda server: setattr(server, "odd", reply)

    def page(*rows: Any) -> Any:
        return odd(Reply(json.dumps({"calls": rows}).encode()))

    cases = (
        (renewed, Inconclusive, "began anew during the trial: its row 4"),
        (emptied, Inconclusive, "began anew during the trial"),
        (gap, Inconclusive, "lacks row 6, and has row 7 in its place"),
        (odd(Reply(b"gone", status=503)), NoData, "answered 503, expected 200"),
        (odd(Reply(b"<html>")), Inconclusive, "must answer"),
        (odd(Reply(b"[]")), Inconclusive, "must answer"),
        (odd(Reply(b'{"rows": []}')), Inconclusive, "must answer"),
        (page(row(4, id="4")), Inconclusive, "must answer"),
        (page(row(4, tool="<script>alert(1)</script>")), Inconclusive, "must have the name of a tool"),
        (page(row(4, tool="x" * 65)), Inconclusive, "must have the name of a tool"),
        (page(row(4, key="k" * 2000)), Inconclusive, "a key of at most 1024"),
        (page(row(4, applied_unix_s=-1.0)), Inconclusive, "Unix times in seconds"),
        (page(row(4, received_unix_s=1e300)), Inconclusive, "Unix times in seconds"),
        (page(row(4), row(4)), Inconclusive, "lacks row 5"),
        (odd(Reply(b"[" * 100_000)), Inconclusive, "must answer"),
        (odd(Reply(b'{"calls": ' + b"[" * 100_000)), Inconclusive, "must answer"),
        (odd(Reply(b'{"x": "\\ud800", "calls": ' + b"[" * 100_000)), Inconclusive, "must answer"),
        (page(row(4, tool="\ud800")), Inconclusive, "must have the name of a tool"),
        (page(row(4, key="\ud800")), Inconclusive, "a key of at most 1024 printable characters"),
        (page(row(10**30)), Inconclusive, "must answer"),
        (page(row(4, effect=1.5)), Inconclusive, "must answer"),
        (page(row(4, effect=10**30)), Inconclusive, "must answer"),
    )
    failures = []
    for place, (change, kind, message) in enumerate(cases):
        server = Server(*(good[n] for n in range(1, begin_at + 1)), page_rows=100)
        with api(server.answer) as (url, _):
            begin = last_row(url)
            change(server)
            try:
                rows_since(url, begin, ORDERS)
            except Inconclusive as error:
                if (
                    type(error) is not kind
                    or message not in str(error)
                    or url not in str(error)
                    or len(str(error)) > 700
                ):
                    failures.append(f"{place}: {type(error).__name__}: {error}")
            else:
                failures.append(f"{place}: passed")

    assert failures == []


def test_two_effects_with_one_id_are_unknown() -> None:
    """The last row is of a call that was answered from an earlier one's result."""
    first = row(1, effect=7)
    cases = (
        (row(2, effect=7, order=18), True),
        (row(2, effect=7, tool="mail"), True),
        (row(2, effect=7), True),
        (row(2, effect=7, order=999), True),
        (row(2, effect=7, applied_unix_s=first["applied_unix_s"]), False),
        (row(2, effect=7, applied_unix_s=None), False),
        (row(2, effect=None, applied_unix_s=None), False),
        (row(2, effect=8), False),
    )
    failures = []
    for place, (second, is_wrong) in enumerate(cases):
        with api(Server(first, second).answer) as (url, _):
            try:
                rows_since(url, None, ORDERS)
            except Inconclusive as error:
                if not is_wrong or "has effect 7 in rows 1 and 2 with different steps or times" not in str(error):
                    failures.append(f"{place}: {error}")
            else:
                if is_wrong:
                    failures.append(f"{place}: passed")

    assert failures == []


def test_an_endless_ledger_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effect_ledger, "MOST_ROWS", 8)
    monkeypatch.setattr(effect_ledger, "PAGE_BYTES", 2_000)
    server = Server(*(row(n) for n in range(1, 20)))
    with api(server.answer) as (url, _):
        with pytest.raises(Inconclusive, match="more than 8 rows"):
            last_row(url)
        server.page_rows = 19
        with pytest.raises(NoData, match="longer than 2000 bytes"):
            last_row(url)


def test_a_tool_server_that_is_down_has_no_ledger() -> None:
    with api(Server().answer) as (url, _):
        pass
    with pytest.raises(NoData, match="does not respond"):
        last_row(url)


def record_of(n: int) -> TaskRecord:
    return TaskRecord(
        id=f"t-{n}",
        plan=(f"find_order {n}", f"refund {n}"),
        due_s=1.0,
        sent_s=1.0,
        accepted_s=1.1,
        ended_s=9.0,
        cancelled_s=None,
        status="completed",
        steps=2,
        tokens=10,
        model_calls=3,
        tool_calls=2,
        error=None,
        left_s=9.0,
    )


class Read:
    """A trial with one load of tasks after its end."""

    def __init__(self, folder: Path, url: str) -> None:
        self.record = Record(Journal(folder / "journal.jsonl"), "001", folder)
        self.record.anchor(T0, time.monotonic())
        (folder / task_records.NAME).write_bytes(b"".join(task_records.line(record_of(n)) for n in (17, 18)))
        self.injected = Injected()
        kill = Injection(after_s=0.0, fault=faults.kill("agent").primitive, victim="agent")
        slow = Injection(after_s=0.0, fault=faults.pause("model-1").primitive, victim="model-1")
        self.injected.proven = [(kill, T0 + 1.5), (slow, T0 + 1.5)]
        self.series = [SimpleNamespace(labels={"service": "api"}, points=((T0 - 1, 100.0), (T0 + 9, 106.0)))]
        self.subject = SimpleNamespace(
            ledger=Endpoint(service="desk", path="/ledger"), model_calls_counter="taken", attach=False
        )
        self.lab: Any = SimpleNamespace(
            subject=self.subject,
            orders={700_000},
            has_left_tasks=False,
            runtime=SimpleNamespace(url=lambda _: url),
            prometheus=SimpleNamespace(raw=lambda *_: self.series),
        )

    def tasks(self, begin: LedgerBegin | None, sent: int = 2) -> Any:
        return tasks_of(self.lab, self.record, self.injected, begin, T0 + 10, sent=sent)


LOAD: Any = SimpleNamespace(tasks=SimpleNamespace(reads=("find_order",)))
CHAT: Any = SimpleNamespace(tasks=None)


def test_a_trial_s_tasks_are_read_from_all_three_truths(tmp_path: Path) -> None:
    server = Server()
    with api(server.answer) as (url, asked):
        read = Read(tmp_path, url)
        begin = ledger_begin(read.lab, LOAD)
        server.rows = [row(1, tool="find_order", effect=None, applied_unix_s=None)]
        begin = ledger_before_fault(begin)
        server.rows += [
            row(2, key="t-17/1 token=hunter2-hunter2"),
            row(3, order=18, effect=6),
            row(4, order=18, effect=7),
            row(5, order=999, effect=8),
            row(6, order=700_017, effect=9),  # of an earlier load
        ]

        tasks = read.tasks(begin)

    assert asked[0].path == "/ledger?after=0"
    assert repr(tasks.duplicate_effects) == "2 (t-18: refund 18 once too often; no task: refund 999 once)"
    assert read.record.findings == ["calls on orders of no task: 1, such as refund 999"]
    assert tasks.false_success == 0
    assert [(kill.service, kill.at_s) for kill in tasks.kills] == [("agent", 1.5)]
    assert float(tasks.resume_s.max) == 1.5
    assert tasks.model_calls_repeated == 0
    lines = (tmp_path / tool_calls.NAME).read_text().splitlines()
    assert [json.loads(line)["received_s"] for line in lines] == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert [json.loads(line)["key"] for line in lines] == [None, "t-17/1 token=***", None, None, None]


def test_calls_of_no_task_may_be_those_of_other_clients_of_an_attached_stack(tmp_path: Path) -> None:
    server = Server()
    with api(server.answer) as (url, _):
        read = Read(tmp_path, url)
        read.subject.attach = True
        begin = ledger_begin(read.lab, LOAD)
        server.rows = [row(1)]
        begin = ledger_before_fault(begin)
        server.rows += [row(2, order=18, effect=6), row(3, order=FOREIGN, effect=7), row(4, order=FOREIGN, effect=7)]

        tasks = read.tasks(begin)

    assert (len(tasks.strays), len(tasks.doubtful)) == (0, 2)
    assert read.record.findings == [
        f"calls on orders of no task, perhaps of other clients: 2, such as refund {FOREIGN}"
    ]
    assert tasks.duplicate_effects <= 1
    with pytest.raises(Inconclusive, match="calls on orders of no task, perhaps of other clients"):
        assert tasks.duplicate_effects == 0
    assert len((tmp_path / tool_calls.NAME).read_text().splitlines()) == 2


def test_an_order_near_those_of_the_load_was_called_for_by_its_tasks(tmp_path: Path) -> None:
    """No other client of an attached stack has numbers of this range."""
    server = Server(row(1))
    with api(server.answer) as (url, _):
        read = Read(tmp_path, url)
        read.subject.attach = True
        begin = ledger_before_fault(ledger_begin(read.lab, LOAD))
        server.rows += [row(2, order=18, effect=6), row(3, order=19, effect=7)]

        tasks = read.tasks(begin)

    assert tasks.duplicate_effects == 1


def test_calls_of_no_task_may_be_those_of_tasks_that_an_earlier_trial_left_running(tmp_path: Path) -> None:
    found = []
    for uncancelled in (0, 1):
        server = Server(row(1))
        with api(server.answer) as (url, _):
            read = Read(tmp_path, url)
            for effect in (7, 8):
                begin = ledger_before_fault(ledger_begin(read.lab, LOAD))
                server.rows += [row(effect, id=len(server.rows) + 1, order=FOREIGN)]
                tasks = read.tasks(begin)
                read.lab.has_left_tasks = bool(uncancelled)
                found.append((len(tasks.strays), len(tasks.doubtful)))

    assert found == [(1, 0), (1, 0), (1, 0), (0, 1)]


def test_a_ledger_that_may_have_begun_anew_proves_nothing_about_effects(tmp_path: Path) -> None:
    """It was empty before the load. A fault hits it before or after its first rows."""
    failures = []
    for before, after, why in (
        ([row(1)], [row(1), row(2)], None),
        ([row(1)], [row(1, received_unix_s=T0 + 5)], "began anew during the trial: its row 1 is gone"),
        ([row(1), row(2)], [row(1)], "began anew during the trial: its row 2 is gone"),
        ([], [row(1)], "was empty until the fault"),
        (Reply(b"", status=500), [row(1)], "answered 500"),
    ):
        server = Server()
        with api(server.answer) as (url, _):
            read = Read(tmp_path, url)
            begin = ledger_begin(read.lab, LOAD)
            if isinstance(before, Reply):
                server.odd = before
            else:
                server.rows = before
            begin = ledger_before_fault(begin)
            server.odd, server.rows = None, after
            found = read.tasks(begin).no_ledger
        if (why is None) != (found is None) or (why or "") not in str(found):
            failures.append((why, found))
    with api(Server().answer) as (url, _):
        read = Read(tmp_path, url)
        read.injected.proven = []
        unharmed = read.tasks(ledger_before_fault(ledger_begin(read.lab, LOAD)))

    assert failures == []
    assert unharmed.no_ledger is None, "without a fault an agent that calls no tool is refuted"
    assert ledger_before_fault(None) is None


def test_a_task_without_a_record_is_lost_evidence(tmp_path: Path) -> None:
    with api(Server().answer) as (url, _):
        read = Read(tmp_path, url)
        with pytest.raises(EvidenceLost, match=r"tasks\.jsonl has 2 of 3 tasks, so ends are missing: free the disk"):
            read.tasks(ledger_begin(read.lab, LOAD), sent=3)


def test_what_cannot_be_read_is_the_reason_of_the_claims_about_it(tmp_path: Path) -> None:
    server = Server()
    with api(server.answer) as (url, _):
        read = Read(tmp_path, url)
        server.rows = [row(1)]
        begin = ledger_before_fault(ledger_begin(read.lab, LOAD))
        server.rows = [row(1), row(3)]
        gap = read.tasks(begin)
        server.odd = Reply(b"", status=500)
        down = read.tasks(ledger_begin(read.lab, LOAD))
    read.subject.ledger = None
    unnamed = read.tasks(ledger_begin(read.lab, LOAD))

    def unscraped(*_: object) -> Any:
        raise NoData("no sample")

    read.lab.prometheus.raw = unscraped
    for tasks, why in ((gap, "lacks row 2"), (down, "answered 500"), (unnamed, "names no effect ledger")):
        with pytest.raises(Inconclusive, match=why):
            assert tasks.duplicate_effects == 0
        assert tasks.lost == 0
    assert isinstance(read.tasks(begin).model_calls, NoData)
    read.subject.attach = True
    assert read.tasks(begin).model_calls is None, "other clients of an attached stack call its model, too"
    assert ledger_begin(read.lab, CHAT) is None
    assert read.tasks(None) is None


def test_a_counter_may_have_lost_calls_with_its_process(tmp_path: Path) -> None:
    found = []
    with api(Server().answer) as (url, _):
        read = Read(tmp_path, url)
        begin = ledger_begin(read.lab, LOAD)
        cases = (("agent", (100.0, 106.0)), ("api", (100.0, 106.0)), ("agent", (100.0, 6.0)), ("agent", ()))
        for victim, values in cases:
            kill = Injection(after_s=0.0, fault=faults.kill(victim).primitive, victim=victim)
            read.injected.proven = [(kill, T0 + 1.5)]
            points = tuple((T0 - 1 + 2 * at_s, value) for at_s, value in enumerate(values))
            read.series = [SimpleNamespace(labels={"service": "api"}, points=points)] if points else []
            tasks = read.tasks(begin)
            found.append((tasks.model_calls, tasks.counter_began_anew))

    assert found[:3] == [(6.0, False), (6.0, True), (6.0, True)]
    assert isinstance(found[3][0], NoData)


def test_counts_of_a_rate_limit_show_if_its_time_was_honoured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    acts = [
        UndoResult(fault="tool", victim="desk", op="wire_end", undone=True, counts=CountsNote(counters=counters))
        for counters in ({"hit": 4.0, "early": 1.0}, {"hit": 2.0, "early": 0.0}, {"hit": 9.0})
    ]
    monkeypatch.setattr(Record, "undo", (*acts, UndoResult(fault="kill", victim="a", op="x", undone=True)))
    with api(Server().answer) as (url, _):
        read = Read(tmp_path, url)
        seen = read.tasks(ledger_begin(read.lab, LOAD))
        monkeypatch.setattr(Record, "undo", ())
        unseen = read.tasks(ledger_begin(read.lab, LOAD))

    assert (seen.retries.limited, seen.retries.early, seen.retry_after_honoured) == (6, 1, False)
    assert unseen.retries is None
