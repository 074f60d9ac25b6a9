"""Calls whose answers are lost are repeated, and with keys nothing is done twice.

The effect is applied and its answer never reaches the agent. Without a key the
repetition is a second effect, however durable the agent is.

Needs the simulated engine.
"""

from pytest_llmchaos import arm, experiment, faults, loads

RETRIES = {"LAB_TOOL_RETRIES": "8"}  # so that no call loses the answers of all its tries

pytestmark = experiment(
    load=loads.tasks(rate_rps=2, plan="find_order; refund; mail", task_s=15),
    fault=faults.tool("desk.refund", how="lost_answer", share=0.4),
    steady_s=4,
    fault_s=6,
    settle_within_s=20,
    stable_s=2,
    simulated_engine=True,
    arms={
        "durable": arm(environment={"agent": {"LAB_AGENT": "durable", **RETRIES}}),
        "no_keys": arm(environment={"agent": {"LAB_AGENT": "durable", "LAB_IDEMPOTENCY": "off", **RETRIES}}),
        "naive": arm(environment={"agent": {"LAB_AGENT": "naive", "LAB_FLAWS": "no_key", **RETRIES}}),
    },
)


def test_with_keys_nothing_is_done_twice(arms):
    assert arms["durable"].tasks.duplicate_effects == 0
    assert arms["durable"].tasks.missing_effects == 0
    assert arms["durable"].tasks.false_success == 0


def test_without_keys_a_repeated_call_is_a_second_effect(arms):
    assert arms["no_keys"].tasks.duplicate_effects >= 1
    assert arms["naive"].tasks.duplicate_effects >= 1


def test_every_task_is_completed(arms):
    assert arms["durable"].tasks.lost == 0
    assert arms["durable"].tasks.stuck == 0
    assert arms["durable"].tasks.refused == 0
    assert arms["durable"].tasks.failed == 0
