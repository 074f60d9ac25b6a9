"""Tasks of the load generator, on a scripted agent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from support.task_agent import TaskAgent
from support.waiting import until

from pytest_llmchaos.evidence import samples_file, task_records
from pytest_llmchaos.loadgen.load_plan import LoadPlan
from pytest_llmchaos.loadgen.process import LoadProcess
from pytest_llmchaos.loads.agent_tasks import AgentTasks
from pytest_llmchaos.loads.arrivals import Arrival

if TYPE_CHECKING:
    from pathlib import Path

TASK_S = 1.5
AWAY_S = 0.3  # when the agent stops for the first time
GONE_S = 1.9  # when it stops for ever
LONG = 40  # steps, which take 0.8 s
# Due time, tool, steps, status, outcome and HTTP status. Every third task is cancelled.
TASKS = [
    (0.0, "work", 1, "completed", "ok", 200),
    (0.0, "fail", 1, "failed", "inband_error", 200),
    (0.0, "hang", 1, "cancelled", "left", 200),
    (0.1, "lose", 1, "lost", "http_4xx", 404),
    (0.1, "hang", 1, "stuck", "timeout", 0),
    (0.1, "ignore", LONG, "completed", "ok", 200),
    (0.1, "work", LONG, "completed", "ok", 200),
    (0.1, "reject", 1, "refused", "http_4xx", 400),
    (0.1, "forget", 1, "lost", "http_4xx", 410),
    (0.1, "drop", 1, "failed", "inband_error", 200),
    (0.1, "babble", 1, "stuck", "timeout", 0),
    (0.4, "hang", 1, "cancelled", "left", 200),
    (0.4, "work", 1, "completed", "ok", 200),  # while the agent is away
    (0.7, "drain", 1, "completed", "ok", 200),
    (0.7, "hang", 1, "cancelled", "left", 200),
    (0.7, "stumble", 1, "completed", "ok", 200),
    (2.0, "work", 1, "refused", "refused", 0),
]


def perform(agent: TaskAgent, folder: Path) -> LoadProcess:
    """Perform the load, with the agent away for a while, and from GONE_S on."""
    arrivals = tuple(
        Arrival(due_s, "plan: " + "; ".join([f"{tool} {place}"] * steps), 16)
        for place, (due_s, tool, steps, *_) in enumerate(TASKS)
    )
    with LoadProcess(plan_of(agent, arrivals, processes=2), folder) as process:
        until(lambda: process.now_s() > AWAY_S, "the load runs")
        with agent.away():
            until(lambda: process.now_s() > AWAY_S + 0.3, "the agent was away")
        until(lambda: process.now_s() > GONE_S, "the agent is needed no longer")
        with agent.away():
            until(lambda: not process.alive, "the load has ended", 20)
    return process


def plan_of(agent: TaskAgent, arrivals: tuple[Arrival, ...], processes: int = 1) -> LoadPlan:
    return LoadPlan(
        url=agent.url,
        model="m",
        arrivals=arrivals,
        tasks=AgentTasks(tools=("work",), task_s=TASK_S, cancel_share=1 / 3, cancel_after_s=0.5),
        timeout_s=TASK_S,
        good_e2e_s=TASK_S,
        processes=processes,
    )


def place_of(name: str) -> int:
    return int(name.rpartition("-")[2])


def test_every_task_has_a_record_and_a_sample_of_its_end(tmp_path: Path) -> None:
    with TaskAgent() as agent:
        summary = perform(agent, tmp_path).stop()

    records = {place_of(one.id): one for one in task_records.load(tmp_path)}
    samples = {place_of(one.request_id): one for one in samples_file.load(tmp_path / "samples.jsonl")}
    wrong = [
        (place, expected, records[place], samples[place])
        for place, (_, tool, steps, *expected) in enumerate(TASKS)
        if [records[place].status, samples[place].outcome, samples[place].status] != expected
        or records[place].plan != (f"{tool} {place}",) * steps
        or samples[place].first_s is not None
        or (records[place].ended_s is None) != (expected[0] in ("stuck", "refused"))
        or (records[place].accepted_s is None) != (expected[0] == "refused")
    ]
    assert wrong == []
    assert (summary.offered, summary.sent, summary.done) == (len(TASKS),) * 3
    # The agent is away when places 4 and 10 are cancelled. Place 16 was due then: it
    # left only if a connection seemed open.
    assert summary.uncancelled in {2, 3}
    assert summary.lateness_p99_s < 0.5  # of so few tasks it is the largest, and a shared machine pauses
    assert {place for place, one in records.items() if one.cancelled_s is not None} == {2, 5, 11, 14}
    done = records[6]
    assert (done.steps, done.tokens, done.model_calls, done.tool_calls, done.error) == (LONG, 40, LONG + 1, LONG, None)
    # Errors are kept without secrets, and short.
    assert records[1].error == f"a tool failed: token=*** ? {'x' * 900}"[:500]
    assert (records[3].error, records[8].error, records[9].error) == ("HTTP 404", "HTTP 410", "cancelled by the agent")
    assert (records[10].error or "").startswith("not a task's state: ")
    # The agent was reached again with the same id, as soon as it wanted.
    assert {place_of(name) for name, count in agent.posts.items() if count > 1} >= {13}
    assert 1.0 <= samples[13].e2e_s < TASK_S
    assert 1.0 <= samples[15].e2e_s < TASK_S
    assert {len(set(agent.inputs)), len(agent.inputs)} == {15}
    assert all(one.left_s == one.ended_s for one in records.values() if one.ended_s is not None)
    assert TASK_S <= records[4].left_s - records[4].due_s < TASK_S + 0.5


def test_tasks_without_an_end_have_records_and_are_cancelled_when_the_load_ends(tmp_path: Path) -> None:
    arrivals = (
        Arrival(0.0, "plan: hang 1", 16),
        Arrival(TASK_S, "plan: hang 2", 16),
        Arrival(60.0, "plan: work 3", 16),
    )
    with TaskAgent() as agent:
        with LoadProcess(plan_of(agent, arrivals), tmp_path) as process:
            until(lambda: process.status().done == 1 and agent.holds, "one task is stuck, and one is polled")
            assert agent.statuses() == ["running", "running"]
            assert process.stop(drain=False).uncancelled == 0
        assert agent.statuses() == ["cancelled", "cancelled"]

    stuck, record = task_records.load(tmp_path)
    assert (stuck.status, record.status, record.ended_s, record.accepted_s is None) == (
        "stuck",
        "unfinished",
        None,
        False,
    )
    assert [one.outcome for one in samples_file.load(tmp_path / "samples.jsonl")] == ["timeout", "cancelled"]
    assert json.loads((tmp_path / "plan.json").read_text())["tasks"]["tools"] == ["work"]
