"""Shedding by prediction keeps answers in time where a fixed queue is too long.

It does not help those it refuses, and it has no prediction before the first answers.

Needs the simulated engine.
"""

from pytest_llmchaos import arm, experiment, faults, loads

pytestmark = experiment(
    load=loads.open_loop(
        rate_rps=24, prompts="short-chat", max_tokens=16, latency_targets=loads.LatencyTargets(ttft_s=0.75, e2e_s=10)
    ),
    fault=faults.overload(times=1.05, max_tokens=128),
    steady_s=4,
    fault_s=6,
    settle_within_s=20,
    stable_s=2,
    remediator=False,
    simulated_engine=True,
    arms={
        "on": arm(environment={"api": {"LAB_CONCURRENCY": "8", "LAB_SHED_TTFT_S": "0.4", "LAB_SHED": "on"}}),
        "off": arm(environment={"api": {"LAB_CONCURRENCY": "8", "LAB_SHED_TTFT_S": "0.4"}}),
    },
)


def test_those_who_wait_are_answered_in_time(arms):
    assert arms.during_fault.goodput_ratio.low >= 0.05


def test_a_healthy_system_pays_nothing(arms):
    assert arms.before_fault.ttft_s.p50.high <= 0.005
