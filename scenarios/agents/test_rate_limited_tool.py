"""An agent waits as long as a rate-limited tool names, and its task still ends.

An agent that ignores `Retry-After` comes back too early.

Needs the simulated engine.
"""

from pytest_llmchaos import arm, experiment, faults, loads

pytestmark = experiment(
    load=loads.tasks(rate_rps=1, plan="find_order; refund; mail", task_s=20),
    fault=faults.tool("desk.refund", how="rate_limited", retry_after_s=2, share=0.4),
    steady_s=4,
    fault_s=10,
    settle_within_s=30,
    stable_s=2,
    simulated_engine=True,
    arms={
        "durable": arm(environment={"agent": {"LAB_AGENT": "durable", "LAB_TOOL_RETRIES": "8"}}),
        "impatient": arm(
            environment={"agent": {"LAB_AGENT": "durable", "LAB_TOOL_RETRIES": "8", "LAB_FLAWS": "ignores_retry_after"}}
        ),
    },
)


def test_the_time_to_come_back_is_kept(arms):
    assert arms["durable"].tasks.retry_after_honoured
    assert not arms["impatient"].tasks.retry_after_honoured


def test_every_task_is_completed(arms):
    assert arms["durable"].tasks.lost == 0
    assert arms["durable"].tasks.stuck == 0
    assert arms["durable"].tasks.refused == 0
    assert arms["durable"].tasks.failed == 0
    assert arms["durable"].tasks.false_success == 0
    assert arms["durable"].tasks.duplicate_effects == 0
