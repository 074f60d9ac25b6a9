"""A replica of the model that dies in the middle of tasks costs none of them.

The gateway or the agent sends the lost call again, to the other replica, and the task
goes on where it was.

Needs the simulated engine.
"""

from pytest_llmchaos import arm, experiment, faults, loads

pytestmark = experiment(
    load=loads.tasks(rate_rps=1, plan="find_order; refund; mail", task_s=20),
    fault=faults.timed(faults.kill("model-1"), at="after:chat#2.received"),
    steady_s=4,
    repair_within_s=40,
    stable_s=2,
    simulated_engine=True,
    arms={
        "durable": arm(environment={"agent": {"LAB_AGENT": "durable"}}),
        "checkpointed": arm(environment={"agent": {"LAB_AGENT": "checkpointed"}}),
        "repeats": arm(environment={"agent": {"LAB_AGENT": "naive", "LAB_FLAWS": "repeats_model_calls"}}),
    },
)


def test_every_task_is_completed(arms):
    assert arms["durable"].tasks.failed == 0
    assert arms["durable"].tasks.stuck == 0
    assert arms["durable"].tasks.refused == 0
    assert arms["checkpointed"].tasks.failed == 0
    assert arms["checkpointed"].tasks.stuck == 0
    assert arms["checkpointed"].tasks.refused == 0


def test_tasks_stay_fast(arms):
    assert arms["durable"].tasks.latency_s.max <= 5
    assert arms["checkpointed"].tasks.latency_s.max <= 5


def test_every_task_is_done_once(arms):
    assert arms["durable"].tasks.duplicate_effects == 0
    assert arms["durable"].tasks.missing_effects == 0
    assert arms["checkpointed"].tasks.duplicate_effects == 0
    assert arms["checkpointed"].tasks.missing_effects == 0


def test_only_the_lost_calls_are_repeated(arms):
    assert arms["durable"].tasks.model_calls_repeated <= 4
    assert arms["checkpointed"].tasks.model_calls_repeated <= 4
    assert arms["repeats"].tasks.model_calls_repeated >= 10


def test_the_replica_is_repaired(trial):
    assert trial.rule("replica-exited", "model-1").after_s <= 5
    assert trial.repaired_by == "remediator"
