"""Retries before the first byte hide a replica that fails a third of its requests.

It does not help if every replica fails, after the first byte, or against an answer that
is whole and wrong.

Needs the simulated engine.
"""

from pytest_llmchaos import arm, experiment, faults, loads

pytestmark = experiment(
    load=loads.open_loop(rate_rps=24, prompts="short-chat", max_tokens=16),
    fault=faults.flaky("model-1", status=503, share=0.3),
    steady_s=4,
    fault_s=6,
    settle_within_s=20,
    stable_s=2,
    remediator=False,
    simulated_engine=True,
    arms={
        "on": arm(),
        "off": arm(environment={"api": {"LAB_RETRY": "off"}}),
    },
)


def test_retries_keep_answers(arms):
    assert arms.during_fault.availability.low >= 0.05
    assert arms["on"].during_fault.availability >= 0.99


def test_a_healthy_system_pays_nothing(arms):
    assert arms.before_fault.ttft_s.p50.high <= 0.005
