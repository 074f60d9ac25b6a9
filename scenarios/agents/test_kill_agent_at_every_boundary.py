"""An agent killed at every boundary of a task finishes it, and does nothing twice.

The 16 boundaries of a plan with three steps: the model's answer arrived, the call is
about to leave, its effect is applied, its answer arrived, the next model call is about
to leave. The agent is started at once after each kill, since the lab's remediator
repairs a few in a row and then pages a human. An agent with its tasks in memory loses
those that it works on.

Needs the simulated engine.
"""

from pytest_llmchaos import arm, experiment, faults, loads

PLAN = "find_order; refund; mail"
# A task that is hit at all boundaries lives until the last kill.
TASK_S = 240
LIVES = {"LAB_TASK_S": str(TASK_S)}

pytestmark = experiment(
    load=loads.tasks(rate_rps=0.25, plan=PLAN, task_s=TASK_S),
    fault=faults.every_boundary(faults.restart("agent"), plan=PLAN, model="api", tools="desk", every_s=2),
    steady_s=10,
    repair_within_s=60,
    stable_s=2,
    simulated_engine=True,
    arms={
        "durable": arm(environment={"agent": {"LAB_AGENT": "durable", **LIVES}}),
        "checkpointed": arm(environment={"agent": {"LAB_AGENT": "checkpointed", **LIVES}}),
        "naive": arm(environment={"agent": {"LAB_AGENT": "naive", **LIVES}}),
    },
)


def test_an_agent_with_its_tasks_on_disk_loses_none(arms):
    assert arms["durable"].tasks.lost == 0
    assert arms["checkpointed"].tasks.lost == 0
    assert arms["naive"].tasks.lost >= 1


def test_nothing_is_done_twice(arms):
    assert arms["durable"].tasks.duplicate_effects == 0
    assert arms["checkpointed"].tasks.duplicate_effects == 0


def test_a_completed_task_has_its_effects(arms):
    assert arms["durable"].tasks.false_success == 0
    assert arms["checkpointed"].tasks.false_success == 0


def test_every_task_is_completed(arms):
    assert arms["durable"].tasks.stuck == 0
    assert arms["durable"].tasks.refused == 0
    assert arms["durable"].tasks.failed == 0
    assert arms["checkpointed"].tasks.stuck == 0
    assert arms["checkpointed"].tasks.refused == 0
    assert arms["checkpointed"].tasks.failed == 0
