"""A breaker takes out a replica that fails every request.

It does not help if every replica fails, or against failures that are rarer than half of
the requests.

Needs the simulated engine.
"""

from pytest_llmchaos import arm, experiment, faults, loads

pytestmark = experiment(
    load=loads.open_loop(rate_rps=24, prompts="short-chat", max_tokens=16),
    fault=faults.flaky("model-1", status=503, share=1.0),
    steady_s=4,
    fault_s=8,
    settle_within_s=20,
    stable_s=2,
    remediator=False,
    simulated_engine=True,
    arms={
        "on": arm(environment={"api": {"LAB_RETRY": "off"}}),
        "off": arm(environment={"api": {"LAB_RETRY": "off", "LAB_BREAKER": "off"}}),
    },
)


def test_a_failing_replica_is_left_out(arms):
    assert arms.during_fault.availability.low >= 0.2


def test_a_healthy_system_pays_nothing(arms):
    assert arms.before_fault.ttft_s.p50.high <= 0.005
