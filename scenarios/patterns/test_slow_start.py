"""Slow start gives a replica that has loaded its model its load step by step.

Such a replica is slow at first, here by 0.3 s for each first token.

It does not help against a replica that stays slow, or if the others have no places for
its load.

Needs the simulated engine.
"""

from pytest_llmchaos import arm, experiment, faults, loads

# The default, 5 s, is too short for this one, which is cold for longer.
STEPS = {"LAB_SLOW_START_S": "30"}

pytestmark = experiment(
    load=loads.open_loop(rate_rps=20, prompts="short-chat", max_tokens=64),
    fault=faults.together(faults.slow_load("model-1", load_s=2), faults.late_first_token("model-1", delay_s=0.3)),
    steady_s=4,
    fault_s=10,
    settle_within_s=20,
    stable_s=2,
    remediator=False,
    simulated_engine=True,
    arms={
        "on": arm(environment={"api": STEPS}),
        "off": arm(environment={"api": {**STEPS, "LAB_SLOW_START": "off"}}),
    },
)


def test_a_cold_replica_gets_little_load(arms):
    assert arms.during_fault.ttft_s.at(0.75).ratio.high <= 0.5


def test_a_healthy_system_pays_nothing(arms):
    assert arms.before_fault.ttft_s.p50.high <= 0.005
