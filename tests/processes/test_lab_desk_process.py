"""The desk as a process: its tools, its ledger, and both across a SIGKILL."""

import asyncio
import json
import signal
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from mcp.client import Client
from support.desk_process import DeskProcess, call

TRUTH = ("tool", "order", "key", "effect")


@pytest.fixture
def start(tmp_path):
    started = []

    def one(**more):
        started.append(DeskProcess(tmp_path / "ledger.sqlite", **more))
        return started[-1]

    yield one
    for process in started:
        if process.popen.poll() is None:
            process.popen.kill()
        process.popen.communicate()


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_each_call_is_a_row_and_a_repeated_key_applies_nothing(start, mode):
    """Both eras of the protocol: one exchange a call, and sessions."""
    desk = start().ready()
    calls = [
        ("find_order", 17, None),
        ("refund", 17, "t-1/2"),
        ("refund", 17, "t-1/2"),  # repeated
        ("refund", 18, "t-1/2"),  # another call's key
        ("mail", 17, None),
        ("mail", 17, None),  # a second message
        ("mail", "seventeen", None),  # invalid
        ("find_order", 17, "t-1/9"),
        ("find_order", 17, "t-1/9"),
    ]

    async def conversation():
        async with Client(desk.url, mode=mode) as client:
            names = [tool.name for tool in (await client.list_tools()).tools]
            answers = [await call(client, *one) for one in calls]
            # Answers that left are marked in the ledger before their caller has them.
            return names, answers, desk.ledger()

    names, answers, rows = asyncio.run(conversation())

    assert names == ["find_order", "refund", "mail"]
    found, refund, again, foreign, *_ = answers
    assert (found.is_error, found.structured_content) == (False, {"order": 17, "status": "found", "effect": None})
    assert refund.structured_content == again.structured_content == {"order": 17, "status": "done", "effect": 1}
    assert foreign.is_error
    assert "send refund of 18 with a new key" in foreign.content[0].text
    assert [one.is_error for one in answers] == [False, False, False, True, False, False, True, False, False]
    assert [tuple(row[name] for name in TRUTH) for row in rows] == [
        ("find_order", 17, None, None),
        ("refund", 17, "t-1/2", 1),
        ("refund", 17, "t-1/2", None),
        ("refund", 18, "t-1/2", None),
        ("mail", 17, None, 2),
        ("mail", 17, None, 3),
        ("find_order", 17, "t-1/9", None),
        ("find_order", 17, "t-1/9", None),
    ]
    assert [row["id"] for row in rows] == list(range(1, 9))
    for row in rows:
        assert (row["applied_unix_s"] is None) == (row["effect"] is None), row
        assert row["received_unix_s"] <= (row["applied_unix_s"] or row["received_unix_s"]) <= row["answered_unix_s"], (
            row
        )
    page = desk.get("/metrics")
    for line in (
        'llmlab_desk_calls_total{result="done",tool="refund"} 1.0',
        'llmlab_desk_calls_total{result="repeated",tool="refund"} 1.0',
        'llmlab_desk_calls_total{result="conflict",tool="refund"} 1.0',
        'llmlab_desk_calls_total{result="invalid",tool="mail"} 1.0',
        'llmlab_desk_effects_total{tool="mail"} 2.0',
        "llmlab_desk_repeated_keys_total 3.0",
        'llmlab_desk_call_seconds_count{tool="find_order"} 3.0',
    ):
        assert line in page, line


@pytest.mark.parametrize(("dies_at", "seen"), [("apply", (False, False)), ("answer", (True, False))])
def test_a_sigkill_leaves_a_true_ledger_and_the_key_is_kept(start, dies_at, seen):
    async def killed(desk):
        async with Client(desk.url) as client:
            # The default client has no deadline for an answer that is lost.
            await asyncio.wait_for(call(client, "refund", 17, "t-1/1"), 2)

    async def retried(desk):
        async with Client(desk.url) as client:
            return [(await call(client, "refund", 17, "t-1/1")).structured_content for _ in range(2)]

    first = start(dies_at=dies_at).ready()
    with pytest.raises((Exception, BaseExceptionGroup)):
        asyncio.run(killed(first))
    assert first.ended()[0] == -signal.SIGKILL

    second = start().ready()
    (row,) = second.ledger()
    assert (row["applied_unix_s"] is not None, row["answered_unix_s"] is not None) == seen
    assert asyncio.run(retried(second)) == [{"order": 17, "status": "done", "effect": 1}] * 2
    assert [row["effect"] for row in second.ledger()] == ([1, None, None] if seen[0] else [None, 1, None])


def test_one_key_in_flight_many_times_has_one_effect(start):
    """Two desks on one ledger: one drains while its successor serves."""
    desks = [start().ready(), start().ready()]

    async def many(desk):
        async with Client(desk.url) as client:
            return await asyncio.gather(*(call(client, "refund", 17, "t-1/1") for _ in range(20)))

    with ThreadPoolExecutor() as pool:
        answers = [
            one.structured_content for found in pool.map(lambda desk: asyncio.run(many(desk)), desks) for one in found
        ]

    assert answers == [{"order": 17, "status": "done", "effect": 1}] * 40
    assert sum(row["effect"] is not None for row in desks[0].ledger()) == 1


def test_the_ledger_comes_in_pages_and_only_programs_may_call(start):
    desk = start().ready()

    async def some():
        async with Client(desk.url) as client:
            for order in (1, 2, 3):
                await call(client, "mail", order)

    asyncio.run(some())

    def refused(path, **headers):
        asked = urllib.request.Request(f"http://127.0.0.1:{desk.port}{path}", headers=headers)
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(asked, timeout=5)
        return error.value.code, error.value.read().decode()

    assert [row["id"] for row in desk.ledger(after=1)] == [2, 3]
    assert json.loads(desk.get("/ledger?after=2"))["next"] == 3
    assert json.loads(desk.get("/ledger?after=3")) == {"calls": [], "next": 3}
    assert refused("/ledger?after=-1") == (400, '{"error":"after: expected the id of a call, got \'-1\'"}')
    assert refused("/mcp", Origin="http://localhost:3000")[0] == 403


def test_sigterm_ends_within_two_seconds_next_to_a_standing_client(start):
    desk = start().ready()

    async def ended():
        async with Client(desk.url, mode="legacy") as client:  # has a standing stream
            await call(client, "mail", 1)
            desk.popen.send_signal(signal.SIGTERM)
            return await asyncio.wait_for(asyncio.to_thread(desk.ended), 2)

    status, out, err = asyncio.run(ended())
    lines = [json.loads(line) for line in out.splitlines()]

    assert (status, err) == (0, "")
    assert [line["event"] for line in lines] == ["listening", "call", "drained"]
    assert (lines[1]["tool"], lines[1]["order"], lines[1]["effect"]) == ("mail", 1, 1)


def test_wrong_settings_are_one_line_each_and_exit_status_2(start, tmp_path):
    taken = start().ready()
    other = tmp_path / "other"
    other.write_text("no ledger " * 1000)
    cases = [
        ({"LAB_LEDGER_FILE": ""}, "LAB_LEDGER_FILE: expected a file in a folder that can be written to, got ''"),
        (
            {"LAB_LEDGER_FILE": str(tmp_path)},
            "LAB_LEDGER_FILE: expected a file in a folder that can be written to, got",
        ),
        (
            {"LAB_LEDGER_FILE": str(other)},
            f"cannot open the ledger {other}: file is not a database; give LAB_LEDGER_FILE",
        ),
        ({"LAB_PORT": str(taken.port)}, f"cannot listen on 127.0.0.1:{taken.port}: Address already in use"),
    ]
    wrong = []
    for variables, expected in cases:
        status, out, err = start(**variables).ended()
        if (status, out, err.count("\n")) != (2, "", 1) or not err.startswith(f"lab_desk: {expected}"):
            wrong.append((variables, status, out, err))

    assert wrong == []
