"""Ejection of a replica that is healthy and answers late.

It does not help if all replicas are late, against a replica that is slow between
tokens, or if the others have no places for its load.

Needs the simulated engine.
"""

from pytest_llmchaos import arm, experiment, faults, loads

# First tokens of 20 ms are far below the floor's default, 1 s.
BOUNDS = {"LAB_EJECT_LATENCY_FLOOR_S": "0.1", "LAB_EJECT_LATENCY_MIN_REQUESTS": "3"}

pytestmark = experiment(
    # Answers are so long that the late replica still gets a third of the requests.
    load=loads.open_loop(rate_rps=20, prompts="short-chat", max_tokens=32),
    fault=faults.late_first_token("model-1", delay_s=0.3),
    steady_s=4,
    fault_s=6,
    settle_within_s=20,
    stable_s=2,
    remediator=False,
    simulated_engine=True,
    arms={
        "on": arm(environment={"api": BOUNDS}),
        "off": arm(environment={"api": {**BOUNDS, "LAB_LATENCY_EJECTION": "off"}}),
    },
)


def test_a_late_replica_is_left_out(arms):
    assert arms.during_fault.ttft_s.at(0.8).ratio.high <= 0.5


def test_a_healthy_system_pays_nothing(arms):
    assert arms.before_fault.ttft_s.p50.high <= 0.005
