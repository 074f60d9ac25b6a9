"""SIGTERM during tasks loses none: they end in time, or go on after the next start.

An agent without time to drain leaves its tasks to the next start. One that forgets its
running tasks on SIGTERM loses them.

Needs the simulated engine.
"""

from pytest_llmchaos import arm, experiment, faults, loads

pytestmark = experiment(
    load=loads.tasks(rate_rps=1, plan="find_order; refund; mail", task_s=40),
    fault=faults.timed(faults.stop("agent"), at="after:desk.refund#1.received"),
    steady_s=4,
    repair_within_s=40,
    stable_s=2,
    simulated_engine=True,
    arms={
        "durable": arm(environment={"agent": {"LAB_AGENT": "durable"}}),
        "checkpointed": arm(environment={"agent": {"LAB_AGENT": "checkpointed"}}),
        "at_once": arm(environment={"agent": {"LAB_AGENT": "durable", "LAB_DRAIN_S": "0"}}),
        "forgetful": arm(environment={"agent": {"LAB_AGENT": "durable", "LAB_FLAWS": "loses_on_sigterm"}}),
    },
)


def test_no_task_is_lost(arms):
    assert arms["durable"].tasks.lost == 0
    assert arms["checkpointed"].tasks.lost == 0
    assert arms["at_once"].tasks.lost == 0
    assert arms["forgetful"].tasks.lost >= 1


def test_every_task_is_done_once(arms):
    assert arms["durable"].tasks.duplicate_effects == 0
    assert arms["durable"].tasks.missing_effects == 0
    assert arms["checkpointed"].tasks.duplicate_effects == 0
    assert arms["checkpointed"].tasks.missing_effects == 0
    assert arms["at_once"].tasks.duplicate_effects == 0
    assert arms["at_once"].tasks.missing_effects == 0


def test_every_task_ends(arms):
    assert arms["durable"].tasks.false_failure == 0
    assert arms["durable"].tasks.stuck == 0
    assert arms["durable"].tasks.refused == 0
    assert arms["checkpointed"].tasks.stuck == 0
    assert arms["checkpointed"].tasks.refused == 0
    assert arms["at_once"].tasks.resume_s.max <= 30
    assert arms["at_once"].tasks.stuck == 0
    assert arms["at_once"].tasks.refused == 0
