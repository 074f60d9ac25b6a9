"""Two workers perform each task at the same time, and with keys each effect is single.

A queue that delivers a task twice does this, and a worker that was frozen, replaced and
goes on. Both workers derive the same key from the task and the step. The desk answers
the later call from the earlier one.

Needs the simulated engine.
"""

from pytest_llmchaos import arm, experiment, faults, loads

pytestmark = experiment(
    load=loads.tasks(rate_rps=2, plan="find_order; refund; mail", task_s=15),
    fault=faults.none(),
    steady_s=4,
    stable_s=4,
    simulated_engine=True,
    arms={
        "keys": arm(environment={"agent": {"LAB_AGENT": "naive", "LAB_WORKERS": "2"}}),
        "no_keys": arm(environment={"agent": {"LAB_AGENT": "naive", "LAB_WORKERS": "2", "LAB_IDEMPOTENCY": "off"}}),
    },
)


def test_the_key_makes_each_effect_single(arms):
    assert arms["keys"].tasks.duplicate_effects == 0
    assert arms["keys"].tasks.missing_effects == 0
    assert arms["no_keys"].tasks.duplicate_effects >= 8


def test_both_workers_call_the_tools(arms):
    assert arms["keys"].tasks.tool_amplification >= 1.8
    assert arms["no_keys"].tasks.tool_amplification >= 1.8


def test_every_task_is_completed(arms):
    assert arms["keys"].tasks.failed == 0
    assert arms["keys"].tasks.stuck == 0
    assert arms["keys"].tasks.refused == 0
