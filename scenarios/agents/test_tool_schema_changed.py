"""A tool whose results change their form fails its tasks, and the agent reports so.

The tool acts, and its results no longer match the schema that it declares. The agent
tries again with the same key, so nothing is done twice, and gives up.

Needs the simulated engine.
"""

from pytest_llmchaos import arm, experiment, faults, loads

pytestmark = experiment(
    load=loads.tasks(rate_rps=1, plan="find_order; refund; mail", task_s=20),
    fault=faults.tool("desk.refund", how="wrong_schema"),
    steady_s=4,
    fault_s=6,
    settle_within_s=20,
    stable_s=2,
    simulated_engine=True,
    arms={
        "durable": arm(environment={"agent": {"LAB_AGENT": "durable"}}),
        "no_keys": arm(environment={"agent": {"LAB_AGENT": "durable", "LAB_IDEMPOTENCY": "off"}}),
        "claims_success": arm(environment={"agent": {"LAB_AGENT": "durable", "LAB_FLAWS": "claims_success"}}),
    },
)


def test_the_agent_reports_what_it_could_not_do(arms):
    assert arms["durable"].tasks.failed >= 2
    assert arms["durable"].tasks.false_success == 0
    assert arms["claims_success"].tasks.false_success >= 2


def test_nothing_is_done_twice(arms):
    assert arms["durable"].tasks.duplicate_effects == 0
    assert arms["no_keys"].tasks.duplicate_effects >= 2


def test_every_task_ends(arms):
    assert arms["durable"].tasks.lost == 0
    assert arms["durable"].tasks.stuck == 0
    assert arms["durable"].tasks.refused == 0
