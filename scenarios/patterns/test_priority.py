"""The high class of requests is answered in time while normal ones are an overload.

It does not help the lower classes, or a high class that alone is more than the service
can serve.

Needs the simulated engine.
"""

from pytest_llmchaos import arm, experiment, faults, loads

pytestmark = experiment(
    load=loads.open_loop(
        rate_rps=24,
        prompts="short-chat",
        max_tokens=16,
        latency_targets=loads.LatencyTargets(ttft_s=0.75, e2e_s=10),
        headers={"x-llmlab-priority": "high"},
    ),
    fault=faults.overload(times=1.05, max_tokens=128),
    steady_s=4,
    fault_s=6,
    settle_within_s=20,
    stable_s=2,
    remediator=False,
    simulated_engine=True,
    arms={
        "on": arm(environment={"api": {"LAB_CONCURRENCY": "8"}}),
        "off": arm(environment={"api": {"LAB_CONCURRENCY": "8", "LAB_PRIORITY": "off"}}),
    },
)


def test_the_high_class_is_answered_in_time(arms):
    assert arms.during_fault.goodput_ratio.low >= 0.5
    assert arms["on"].during_fault.goodput_ratio >= 0.95


def test_a_healthy_system_pays_nothing(arms):
    assert arms.before_fault.ttft_s.p50.high <= 0.005
