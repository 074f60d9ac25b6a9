"""The three agents as processes."""

import sqlite3
import time
from contextlib import closing

import pytest
from support.agents_world import PLAN, STEPS, AgentProcess, World
from support.waiting import until

LIMITS = {"LAB_MAX_STEPS": "6", "LAB_MAX_TOKENS": "500"}


@pytest.fixture(scope="module")
def world():
    with World() as world:
        yield world


def steps_and_keys(task_id, *indices):
    return [(STEPS[index], f"{task_id}/{index}") for index in indices]


def compare(failures, case, seen, expected):
    failures += [
        f"{case}: expected {name} {value!r}, got {seen[name]!r}"
        for name, value in expected.items()
        if not (value in str(seen[name]) if name == "error" and value else seen[name] == value)
    ]


# What happens to the next calls of tools, how the model behaves, the task's end, and
# the index of the step of each call.
CASES = {
    "healthy": ({}, "disciplined", {"status": "completed", "steps": 3, "tool_calls": 3, "error": None}, (0, 1, 2)),
    "lost": ({"refund": ["lost"]}, "disciplined", {"status": "completed", "tool_calls": 4}, (0, 1, 1, 2)),
    "limited": ({"refund": ["rate_limited"]}, "disciplined", {"status": "completed"}, (0, 1, 1, 2)),
    "refused": (
        {"refund": ["is_error"]},
        "disciplined",
        {"status": "failed", "error": "tool refund answered with an error: no such order"},
        (0, 1, 2),
    ),
    "hanging": ({"refund": ["hang"]}, "disciplined", {"status": "completed", "tool_calls": 4}, (0, 1, 1, 2)),
    "gone": ({"refund": ["gone"]}, "disciplined", {"status": "completed"}, (0, 1, 2)),
    "dead": (
        {"refund": ["lost"] * 3},
        "disciplined",
        {"status": "failed", "error": "tool refund: ", "steps": 1, "tool_calls": 4},
        (0, 1, 1, 1),
    ),
    "parallel": ({}, "parallel", {"status": "completed", "model_calls": 2}, (0, 1, 2)),
    "nameless": ({}, "nameless", {"status": "completed", "model_calls": 2}, (0, 1, 2)),
    "malformed": ({}, "malformed", {"status": "failed", "error": "tool find_order"}, ()),
    "liar": ({}, "liar", {"status": "completed", "steps": 1}, (0,)),
    "unlisted": ({"list": ["lost"]}, "disciplined", {"status": "completed"}, (0, 1, 2)),
    "cut": ({}, "cut", {"status": "failed", "error": "finish_reason length", "steps": 0}, ()),
}


@pytest.mark.parametrize("name", ["naive", "checkpointed", "durable"])
def test_an_agent_ends_every_task_as_its_calls_went(world, tmp_path, name):
    failures = []
    with AgentProcess(world, tmp_path, name, LAB_TOOL_RETRIES="2", LAB_DRAIN_S="0", **LIMITS) as agent:
        for case, (faults, manner, expected, indices) in CASES.items():
            world.reset(**faults)
            world.manner = manner
            seen = agent.perform(case)
            compare(failures, case, seen, expected)
            if world.calls != steps_and_keys(case, *indices):
                failures.append(f"{case}: expected calls of the steps {indices}, got {world.calls}")
            counts = {"model_calls": world.asked, "tokens": 10 * world.asked}
            compare(failures, case, seen, counts)
            if case == "limited" and not 0.95 < world.at[2] - world.at[1] < 3:
                failures.append(f"{case}: expected a retry after 1 s, got {world.at[2] - world.at[1]:.2f} s")
            if seen["status"] == "completed" and case != "liar" and sorted(world.effects) != sorted(STEPS[1:]):
                failures.append(f"{case}: expected each effect once, got {world.effects}")
        failures += over_budget(world, agent)
        failures += cancelled(world, agent)
        again = agent.begin("healthy")
        compare(failures, "again", {"code": again.status_code, **again.json()}, {"code": 200, "status": "completed"})
        failures += killed(world, agent, name)
        failures += ended_by_sigterm(world, agent, name)

    assert failures == []


def over_budget(world, agent):
    failures = []
    world.reset()
    world.manner = "runaway"
    compare(failures, "runaway", agent.perform("runaway"), {"status": "failed", "error": "budget steps", "steps": 6})
    if len(world.calls) != 6:
        failures.append(f"runaway: expected 6 calls, got {len(world.calls)}")
    world.reset()
    world.tokens = 300
    compare(
        failures,
        "tokens",
        agent.perform("tokens"),
        {"status": "failed", "error": "budget tokens", "tokens": 600, "model_calls": 2},
    )
    world.tokens = 10
    if agent.metric("llmlab_agent_budget_exceeded_total") != 2:
        failures.append("budgets: expected two tasks counted as ended by one")
    return failures


def cancelled(world, agent):
    failures = []
    world.reset(refund=["hang"] * 9)
    agent.begin("cancelled")
    until(lambda: len(world.calls) == 2, "the second call")
    answer = agent.client.delete("/tasks/cancelled")
    compare(failures, "cancel", {"code": answer.status_code, **answer.json()}, {"code": 202, "status": "cancelled"})
    compare(failures, "cancel", agent.end("cancelled").json(), {"status": "cancelled", "steps": 1, "error": None})
    world.reset()
    compare(failures, "after a cancel", agent.perform("next"), {"status": "completed"})
    if any(key and key.startswith("cancelled") for _, key in world.calls):
        failures.append(f"cancel: expected no further call, got {world.calls}")
    return failures


def killed(world, agent, name):
    """Kill it between an effect and its answer."""
    world.reset(refund=["kill"])
    agent.begin("killed")
    agent.process.wait(20)
    world.hanging = "refund 17"
    agent.start()
    if name == "naive":
        return []
    until(lambda: world.asked == 3, "the resumed task calls the model")
    resumed = agent.metric("llmlab_agent_resumed_total")
    return [] if resumed == 1 else [f"killed: expected one resumed task, got {resumed}"]


def ended_by_sigterm(world, agent, name):
    """End it while a resumed task calls the model, and another a tool."""
    failures = []
    before = len(world.calls)
    world.faults = {"refund": ["hang"]}
    agent.begin("ended", PLAN.replace("17", "18"))
    until(lambda: len(world.calls) == before + 2, "the second call")
    compare(failures, "SIGTERM", {"code": agent.terminate()}, {"code": 0})
    world.hanging = "refund 18"
    agent.start()
    if name == "naive":
        lost = [agent.end(task).status_code for task in ("killed", "ended")]
        return failures + ([] if lost == [404, 404] else [f"SIGTERM: expected lost tasks, got {lost}"])
    return failures + resumed(world, agent)


def resumed(world, agent):
    """Steps in flight are repeated, and a DELETE cuts the model's answer."""
    failures = []
    compare(failures, "killed", agent.end("killed").json(), {"status": "completed", "steps": 3, "model_calls": 4})
    until(lambda: world.asked == 8, "the task `ended` calls the model")
    left = world.cut
    answer = agent.client.delete("/tasks/ended")
    compare(failures, "ended", {"code": answer.status_code, **answer.json()}, {"code": 202, "status": "cancelled"})
    until(lambda: world.cut > left, "the model's client leaves")
    expected = {*steps_and_keys("killed", 0, 1, 2), ("find_order 18", "ended/0"), ("refund 18", "ended/1")}
    if set(world.calls) != expected or len(world.calls) != 7:
        failures.append(f"resumed: expected the refunds in flight to be repeated, got {world.calls}")
    if sorted(world.effects) != ["mail 17", "refund 17", "refund 18"]:
        failures.append(f"resumed: expected each effect once, got {world.effects}")
    return failures


def test_a_second_process_on_the_same_folder_does_not_start(world, tmp_path):
    flaws = {"LAB_FLAWS": "checkpoint_before_effect"}  # keeps its tasks on disk
    with AgentProcess(world, tmp_path, "naive", **flaws) as first:
        world.reset(refund=["hang"])
        first.begin("t")
        until(lambda: len(world.calls) == 2, "the second call")
        second = AgentProcess(world, tmp_path, "naive", **flaws)
        ended = second.ended()
        first.kill()
        first.start()

    assert ended == 2, (tmp_path / "log").read_text()[-3000:]
    assert f"another agent works on LAB_STATE_DIR {tmp_path}; end it" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("name", "file", "flaws"),
    [
        ("naive", "tasks.sqlite", "checkpoint_before_effect"),
        ("checkpointed", "checkpoints.sqlite", ""),
        ("durable", "dbos.sqlite", ""),
    ],
)
def test_a_file_that_is_no_database_ends_the_process(world, tmp_path, name, file, flaws):
    (tmp_path / file).write_text("no database" * 100)
    ended = AgentProcess(world, tmp_path, name, LAB_FLAWS=flaws).ended()

    log = (tmp_path / "log").read_text()
    assert ended == 2, log[-3000:]
    assert f"cannot use the files in LAB_STATE_DIR {tmp_path}: file is not a database" in log


def test_what_durable_has_of_an_ended_task_is_deleted_at_the_start(world, tmp_path):
    """A kill between the saved end and the deletion leaves the workflow pending."""

    def sql(file, query):
        with closing(sqlite3.connect(tmp_path / file, isolation_level=None)) as rows:
            return rows.execute(query).fetchall()

    world.reset(refund=["hang"])
    with AgentProcess(world, tmp_path, "durable") as agent:
        agent.begin("ended")
        until(lambda: len(world.calls) == 2, "the second call")
        agent.kill()
        sql("tasks.sqlite", "UPDATE tasks SET status = 'cancelled'")
        world.reset()
        agent.start()
        agent.perform("next")
        until(lambda: sql("dbos.sqlite", "SELECT workflow_uuid FROM workflow_status") == [], "no workflow is left")

    assert (world.asked, [key for _, key in world.calls]) == (4, ["next/0", "next/1", "next/2"])


def test_two_workers_perform_a_task_with_the_same_keys(world, tmp_path):
    world.reset(mail=["is_error", "is_error"])
    with AgentProcess(world, tmp_path, "naive", LAB_WORKERS="2", **LIMITS) as agent:
        seen = agent.perform("t")

    failures = []
    compare(failures, "two workers", seen, {"status": "failed", "error": "tool mail", "model_calls": 8, "steps": 6})
    assert failures == []
    assert sorted(world.calls) == sorted(2 * steps_and_keys("t", 0, 1, 2))
    assert world.effects == ["refund 17"]


def test_flaws_of_one_process_are_visible(world, tmp_path):
    flaws = "no_key,swallows_is_error,ignores_retry_after,ignores_cancel,no_step_limit,repeats_model_calls"
    seen = {}
    with AgentProcess(world, tmp_path, "naive", LAB_FLAWS=flaws, **LIMITS) as agent:
        world.reset(refund=["lost"])
        seen["repeats_model_calls"] = agent.perform("lost")["model_calls"] == 8
        seen["no_key"] = world.effects == ["refund 17", "refund 17", "mail 17"]
        world.reset(refund=["is_error"])
        seen["swallows_is_error"] = agent.perform("refused")["status"] == "completed"
        world.reset(refund=["rate_limited"])
        agent.perform("limited")
        seen["ignores_retry_after"] = world.at[2] - world.at[1] < 0.9
        world.reset()
        world.manner = "runaway"
        seen["no_step_limit"] = agent.perform("runaway")["steps"] > 6
        world.reset(refund=["hang"])
        agent.begin("cancelled")
        until(lambda: len(world.calls) == 2, "the second call")
        agent.client.delete("/tasks/cancelled")
        agent.end("cancelled")
        seen["ignores_cancel"] = world.effects == ["refund 17", "mail 17"]

    assert [flaw for flaw, visible in seen.items() if not visible] == []


def test_an_agent_that_ignores_its_budget_goes_on_after_it_has_reported_it(world, tmp_path):
    world.reset()
    world.manner = "runaway"
    with AgentProcess(world, tmp_path, "naive", LAB_FLAWS="ignores_budget", **LIMITS) as agent:
        seen = agent.perform("t")
        until(lambda: len(world.calls) > 12, "calls after the budget")
        later = agent.client.get("/tasks/t").json()

    failures = []
    compare(failures, "reported", seen, {"status": "failed", "error": "budget steps exceeded", "steps": 6})
    assert failures == []
    assert later == seen


def test_flaws_of_retries_and_ends_are_visible(world, tmp_path):
    seen = {}
    flaws = "retries_writes,claims_success,hangs_on_dead_server,loses_on_sigterm"
    with AgentProcess(world, tmp_path, "checkpointed", LAB_FLAWS=flaws) as agent:
        world.reset(refund=["lost"])
        agent.perform("lost")
        seen["retries_writes"] = world.effects == ["refund 17", "refund 17", "mail 17"]
        world.reset()
        world.manner = "malformed"
        seen["claims_success"] = agent.perform("malformed")["status"] == "completed"
        world.reset(refund=["hang"])
        agent.begin("hanging")
        until(lambda: len(world.calls) == 2, "the second call")
        seen["hangs_on_dead_server"] = agent.end("hanging", 2.5).json()["status"] == "running"
        began = time.monotonic()
        agent.terminate()
        agent.start()
        seen["loses_on_sigterm"] = agent.end("hanging").status_code == 404 and time.monotonic() - began < 20

    assert [flaw for flaw, visible in seen.items() if not visible] == []


@pytest.mark.parametrize(
    ("flaw", "how", "effects"),
    [
        ("checkpoint_before_effect", "kill_before", ["mail 17"]),
        ("checkpoint_after_without_key", "kill", ["refund 17", "refund 17", "mail 17"]),
    ],
)
def test_a_checkpoint_on_the_wrong_side_of_an_effect_is_visible(world, tmp_path, flaw, how, effects):
    with AgentProcess(world, tmp_path, "naive", LAB_FLAWS=flaw) as agent:
        world.reset(refund=[how])
        agent.begin(flaw, PLAN)
        agent.process.wait(20)
        agent.restart()
        status = agent.end(flaw).json()["status"]

    assert (status, world.effects) == ("completed", effects)
