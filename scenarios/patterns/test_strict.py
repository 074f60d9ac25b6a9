"""Strict ends make half an answer an error for its client.

It does not finish the answer: see migration. It does not help against an answer with a
`stop` that comes too early.

Needs the simulated engine.
"""

from pytest_llmchaos import arm, experiment, faults, loads

pytestmark = experiment(
    load=loads.open_loop(rate_rps=24, prompts="short-chat", max_tokens=16),
    fault=faults.truncate("model-1", after_tokens=3, how="clean"),
    steady_s=4,
    fault_s=8,
    settle_within_s=20,
    stable_s=2,
    remediator=False,
    simulated_engine=True,
    arms={
        "on": arm(),
        "off": arm(environment={"api": {"LAB_STRICT": "off"}}),
    },
)


def test_no_half_answer_looks_whole(arms):
    assert arms["on"].silently_truncated == 0
    assert arms["off"].silently_truncated >= 20


def test_a_healthy_system_pays_nothing(arms):
    assert arms.before_fault.ttft_s.p50.high <= 0.005
