"""Replicas that start slowly must be there before the peak.

A new replica loads its model for 15 s. With headroom a third one is ready in time. An
autoscaler that waits for full replicas starts it at the peak, and clients wait too.
The headroom has its price.

Needs the simulated engine.
"""

from pytest_llmchaos import arm, experiment, faults, loads

PACE = "minimum=2, scale_up_period_s=2, scale_down_window_s=20, scale_down_period_s=2"
SLOW = {"LAB_LOAD_S": "15"}
SMALL = {
    "api": {"LAB_CONCURRENCY": "2"},
    "autoscaler": {"LAB_SLOTS": "2", "LAB_SYNC_S": "1", "LAB_WINDOW_S": "5"},
    "model-3": SLOW,
    "model-4": SLOW,
}

pytestmark = experiment(
    load=loads.burst(base_rps=2.4, burst_rps=5.5, after_s=28, burst_s=24, prompts="short-chat", max_tokens=192),
    fault=faults.none(),
    steady_s=4,
    fault_s=52,
    stable_s=2,
    simulated_engine=True,
    arms={
        "headroom": arm(autoscaler=f"hpa(target=0.4, {PACE})", environment=SMALL),
        "no_headroom": arm(autoscaler=f"hpa(target=0.85, {PACE})", environment=SMALL),
    },
)


def test_the_peak_is_served_with_headroom_alone(arms):
    assert arms["headroom"].during_fault.goodput_ratio >= 0.9
    assert arms["no_headroom"].during_fault.goodput_ratio <= 0.75


def test_headroom_costs_replica_hours(arms):
    assert arms["headroom"].replica_hours > arms["no_headroom"].replica_hours
