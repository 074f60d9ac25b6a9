"""A refusal names a time to come back.

It does not help against clients who ignore it.

Needs the simulated engine.
"""

from pytest_llmchaos import arm, experiment, faults, loads

pytestmark = experiment(
    load=loads.open_loop(rate_rps=24, prompts="short-chat", max_tokens=16),
    fault=faults.flaky(["model-1", "model-2"], status=429, share=1.0),
    steady_s=4,
    fault_s=8,
    settle_within_s=20,
    stable_s=2,
    remediator=False,
    simulated_engine=True,
    arms={
        "on": arm(),
        "off": arm(environment={"api": {"LAB_RETRY_AFTER": "off"}}),
    },
)


def test_a_refusal_names_a_time(arms):
    assert arms["on"].during_fault.without_retry_after == 0
    assert arms["off"].during_fault.without_retry_after >= 20


def test_a_healthy_system_pays_nothing(arms):
    assert arms.before_fault.ttft_s.p50.high <= 0.005
