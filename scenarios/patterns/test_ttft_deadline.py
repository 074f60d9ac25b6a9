"""A deadline of the first token gives a lost request to the other replica in time.

It does not help without a retry, and it hurts if every first token is late: then it
ends answers that would have come.

Needs the simulated engine.
"""

from pytest_llmchaos import arm, experiment, faults, loads

pytestmark = experiment(
    load=loads.open_loop(rate_rps=48, prompts="short-chat", max_tokens=8, timeout_s=1.5),
    fault=faults.late_first_token(["model-1", "model-2"], delay_s=10, share=0.2),
    steady_s=4,
    fault_s=8,
    settle_within_s=20,
    stable_s=2,
    remediator=False,
    simulated_engine=True,
    arms={
        "on": arm(environment={"api": {"LAB_TTFT_TIMEOUT_S": "0.5"}}),
        "off": arm(environment={"api": {"LAB_TTFT_TIMEOUT_S": "0.5", "LAB_TTFT_DEADLINE": "off"}}),
    },
)


def test_lost_requests_are_answered_elsewhere(arms):
    assert arms.during_fault.availability.low >= 0.03
    assert arms["off"].during_fault.availability <= 0.9


def test_a_healthy_system_pays_nothing(arms):
    assert arms.before_fault.ttft_s.p50.high <= 0.005
