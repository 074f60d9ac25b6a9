"""An autoscaler that follows the load serves a peak that two replicas cannot.

A replica answers two requests at a time, of about 1 s each. The peak needs three. With
two replicas its requests queue until they are late.

Needs the simulated engine.
"""

from pytest_llmchaos import arm, experiment, faults, loads

SMALL = {
    "api": {"LAB_CONCURRENCY": "2"},
    "autoscaler": {"LAB_SLOTS": "2", "LAB_SYNC_S": "1", "LAB_WINDOW_S": "5"},
}

pytestmark = experiment(
    load=loads.burst(base_rps=2, burst_rps=5.5, after_s=12, burst_s=30, prompts="short-chat", max_tokens=192),
    fault=faults.none(),
    steady_s=4,
    fault_s=60,
    stable_s=2,
    simulated_engine=True,
    arms={
        "hpa": arm(
            autoscaler="hpa(target=0.7, scale_up_period_s=2, scale_down_window_s=8, scale_down_period_s=2)",
            environment=SMALL,
        ),
        "fixed": arm(autoscaler="fixed(2)", environment=SMALL),
    },
)


def test_the_peak_is_served_by_more_replicas(arms):
    assert arms["hpa"].max_replicas >= 3
    assert arms["hpa"].during_fault.goodput_ratio >= 0.8
    assert arms["fixed"].max_replicas == 2
    assert arms["fixed"].during_fault.goodput_ratio <= 0.6


def test_they_are_there_for_the_peak_alone(arms):
    # Without a scale-down this value is an ERROR.
    assert arms["hpa"].cut_by_scale_down == 0
