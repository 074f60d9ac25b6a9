"""A deadline between events ends a stalled stream before its client gives up.

It does not finish the answer: see migration. A deadline below the longest pause of a
tool ends good answers.

Needs the simulated engine.
"""

from pytest_llmchaos import arm, experiment, faults, loads

pytestmark = experiment(
    load=loads.open_loop(rate_rps=24, prompts="short-chat", max_tokens=16, timeout_s=4),
    fault=faults.stall("model-1", after_tokens=3, keep_alive_s=1),
    steady_s=4,
    fault_s=8,
    settle_within_s=20,
    stable_s=2,
    remediator=False,
    simulated_engine=True,
    arms={
        "on": arm(environment={"api": {"LAB_CONCURRENCY": "64", "LAB_GAP_TIMEOUT_S": "1"}}),
        "off": arm(environment={"api": {"LAB_CONCURRENCY": "64", "LAB_GAP_TIMEOUT_S": "1", "LAB_GAP_DEADLINE": "off"}}),
    },
)


def test_no_client_is_left_hanging(arms):
    assert all(arms["on"].whole.count_of(name) == 0 for name in ("stalled", "timeout"))
    assert any(arms["off"].whole.count_of(name) >= 10 for name in ("stalled", "timeout"))


def test_a_healthy_system_pays_nothing(arms):
    assert arms.before_fault.ttft_s.p50.high <= 0.005
