"""A short queue with a deadline keeps answers in time when the replicas become slow.

It does not create capacity: clients who are refused must come back later.

Needs the simulated engine.
"""

from pytest_llmchaos import arm, experiment, faults, loads

pytestmark = experiment(
    load=loads.open_loop(
        rate_rps=24, prompts="short-chat", max_tokens=16, latency_targets=loads.LatencyTargets(ttft_s=4, e2e_s=5)
    ),
    fault=faults.late_first_token(["model-1", "model-2"], delay_s=2),
    steady_s=4,
    fault_s=8,
    settle_within_s=20,
    stable_s=2,
    remediator=False,
    simulated_engine=True,
    arms={
        "on": arm(environment={"api": {"LAB_QUEUE_MAX": "8", "LAB_QUEUE_TIMEOUT_S": "0.5"}}),
        "off": arm(environment={"api": {"LAB_QUEUE": "off"}}),
    },
)


def test_those_who_get_an_answer_get_it_in_time(arms):
    assert arms.during_fault.goodput_ratio.low >= 0.05


def test_a_healthy_system_pays_nothing(arms):
    assert arms.before_fault.ttft_s.p50.high <= 0.005
