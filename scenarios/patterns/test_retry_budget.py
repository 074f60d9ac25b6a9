"""A budget keeps retries from doubling the load on replicas that fail.

It does not help the failed requests: it protects the replicas from them.

Needs the simulated engine.
"""

from pytest_llmchaos import arm, experiment, faults, loads

pytestmark = experiment(
    load=loads.open_loop(rate_rps=24, prompts="short-chat", max_tokens=16),
    fault=faults.flaky(["model-1", "model-2"], status=503, share=1.0),
    steady_s=4,
    fault_s=8,
    settle_within_s=20,
    stable_s=2,
    remediator=False,
    simulated_engine=True,
    arms={
        "on": arm(environment={"api": {"LAB_BREAKER": "off"}}),
        "off": arm(environment={"api": {"LAB_BREAKER": "off", "LAB_RETRY_BUDGET": "off"}}),
    },
)


def test_retries_are_a_share_of_the_load(arms):
    assert arms["on"].attempts_per_request <= 1.3
    assert arms["off"].attempts_per_request >= 1.4


def test_a_healthy_system_pays_nothing(arms):
    assert arms.before_fault.ttft_s.p50.high <= 0.005
