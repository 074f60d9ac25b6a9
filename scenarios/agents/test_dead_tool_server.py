"""A dead or frozen tool server hangs no task, and what it did is done once.

Each task ends in its time. A dead server refuses connections until the remediator has
started it. A frozen one accepts them and never answers, so only a deadline of the agent
ends a call. A call whose answer was lost before the death is repeated after it: the
server that comes back must have the keys of the one that died.

Needs the simulated engine.
"""

from pytest_llmchaos import arm, experiment, faults, loads

LOAD = loads.tasks(rate_rps=1, plan="find_order; refund; mail", task_s=12)
# The first repetition comes after the death, the last one after the return.
REPEATS = {"LAB_TOOL_S": "4", "LAB_TOOL_RETRIES": "12"}

dead = experiment(
    load=LOAD,
    fault=faults.kill("desk"),
    steady_s=4,
    repair_within_s=40,
    stable_s=2,
    simulated_engine=True,
    arms={
        "durable": arm(environment={"agent": {"LAB_AGENT": "durable"}}),
        "checkpointed": arm(environment={"agent": {"LAB_AGENT": "checkpointed"}}),
    },
)
frozen = experiment(
    load=LOAD,
    fault=faults.pause("desk"),
    steady_s=4,
    fault_s=15,
    settle_within_s=40,
    stable_s=2,
    simulated_engine=True,
    arms={
        "durable": arm(environment={"agent": {"LAB_AGENT": "durable", "LAB_TOOL_S": "1"}}),
        "no_deadline": arm(environment={"agent": {"LAB_AGENT": "durable", "LAB_FLAWS": "hangs_on_dead_server"}}),
    },
)
unanswered = experiment(
    load=loads.tasks(rate_rps=1, plan="find_order; refund; mail", task_s=40),
    fault=faults.sequence(
        faults.tool("desk.refund", how="lost_answer", then="hang"), then=faults.kill("desk"), after_s=3
    ),
    steady_s=4,
    fault_s=6,
    settle_within_s=40,
    stable_s=2,
    simulated_engine=True,
    arms={
        "durable": arm(environment={"agent": {"LAB_AGENT": "durable", **REPEATS}}),
        "no_keys": arm(environment={"agent": {"LAB_AGENT": "durable", "LAB_IDEMPOTENCY": "off", **REPEATS}}),
    },
)


@dead
def test_every_task_ends_while_the_server_is_dead(arms):
    assert arms["durable"].tasks.stuck == 0
    assert arms["durable"].tasks.refused == 0
    assert arms["durable"].tasks.lost == 0
    assert arms["checkpointed"].tasks.stuck == 0
    assert arms["checkpointed"].tasks.refused == 0
    assert arms["checkpointed"].tasks.lost == 0


@dead
def test_what_was_done_before_the_death_is_done_once(arms):
    assert arms["durable"].tasks.duplicate_effects == 0
    assert arms["durable"].tasks.false_success == 0
    assert arms["checkpointed"].tasks.duplicate_effects == 0
    assert arms["checkpointed"].tasks.false_success == 0


@dead
def test_a_dead_server_is_repaired(trial):
    assert trial.rule("desk-exited").after_s <= 5
    assert trial.time_to_recover_s <= 30
    assert trial.repaired_by == "remediator"


@frozen
def test_only_deadlines_end_the_calls_of_a_frozen_server(arms):
    assert arms["durable"].tasks.stuck == 0
    assert arms["durable"].tasks.refused == 0
    assert arms["durable"].tasks.false_success == 0
    assert arms["no_deadline"].tasks.stuck >= 1


@frozen
def test_a_call_that_a_frozen_server_took_has_one_effect(arms):
    assert arms["durable"].tasks.duplicate_effects == 0


@unanswered
def test_a_refund_whose_answer_died_with_the_server_is_done_once(arms):
    assert arms["durable"].tasks.duplicate_effects == 0
    assert arms["durable"].tasks.missing_effects == 0
    assert arms["no_keys"].tasks.duplicate_effects >= 1


@unanswered
def test_its_task_goes_on_when_the_server_is_back(arms):
    assert arms["durable"].tasks.completed >= 8
    assert arms["durable"].tasks.failed == 0
    assert arms["durable"].tasks.stuck == 0
    assert arms["durable"].tasks.refused == 0
