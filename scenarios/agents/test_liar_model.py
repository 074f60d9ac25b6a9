"""A model that reports success without doing the work is seen in the ledger.

Agent and model report every task completed. No alert, no status code and no latency
shows the lie.

Needs the simulated engine.
"""

from pytest_llmchaos import arm, experiment, faults, loads

LIAR = {"LAB_TOOL_MANNER": "liar"}

pytestmark = experiment(
    load=loads.tasks(rate_rps=1, plan="find_order; refund; mail", task_s=20),
    fault=faults.none(),
    steady_s=4,
    stable_s=4,
    simulated_engine=True,
    arms={
        "honest": arm(environment={"agent": {"LAB_AGENT": "durable"}}),
        "liar": arm(environment={"agent": {"LAB_AGENT": "durable"}, "model-1": LIAR, "model-2": LIAR}),
    },
)


def test_a_false_success_is_seen(arms):
    assert arms["honest"].tasks.false_success == 0
    assert arms["liar"].tasks.false_success >= 4


def test_an_honest_model_gets_each_order_done_once(arms):
    assert arms["honest"].tasks.duplicate_effects == 0
    assert arms["honest"].tasks.lost == 0


def test_the_agent_reports_every_task_completed(arms):
    assert arms["honest"].tasks.refused == 0
    assert arms["honest"].tasks.failed == 0
    assert arms["liar"].tasks.failed == 0
    assert arms["liar"].tasks.completed >= 4
