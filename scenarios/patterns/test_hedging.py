"""Hedging of late first tokens halves the slowest answers for a few requests more.

It does not help if the cause is load: a second request then makes it worse, so its
token bucket must stay small.

Needs the simulated engine.
"""

from pytest_llmchaos import arm, experiment, faults, loads

pytestmark = experiment(
    load=loads.open_loop(rate_rps=80, prompts="short-chat", max_tokens=8),
    fault=faults.late_first_token(["model-1", "model-2"], delay_s=1, share=0.04),
    steady_s=4,
    fault_s=16,
    settle_within_s=20,
    stable_s=2,
    remediator=False,
    simulated_engine=True,
    arms={
        "on": arm(environment={"api": {"LAB_HEDGING": "on"}}),
        "off": arm(),
    },
)


def test_stragglers_are_overtaken(arms):
    assert arms.during_fault.ttft_s.at(0.98).ratio.high <= 0.5
    assert arms["on"].attempts_per_request <= 1.07


def test_a_healthy_system_pays_nothing(arms):
    assert arms.before_fault.ttft_s.p50.high <= 0.005
