"""A scale-down with a drain cuts no stream.

After a peak the load falls, and two replicas are enough again. The others finish what
they have before they stop. Without time to drain their streams break.

Needs the simulated engine.
"""

from pytest_llmchaos import arm, experiment, faults, loads

POLICY = (
    "hpa(minimum=2, target=0.8, scale_up_period_s=2, scale_down_window_s=4, scale_down_pods=2, scale_down_period_s=2)"
)
QUICK = {"LAB_SLOTS": "4", "LAB_SYNC_S": "1", "LAB_WINDOW_S": "5"}
# An answer of 128 tokens takes 4 s.
SLOW = {"LAB_TOKEN_GAP_S": "0.03"}
SMALL = {
    "api": {"LAB_CONCURRENCY": "4"},
    **dict.fromkeys(("model-1", "model-2", "model-3", "model-4"), SLOW),
}

pytestmark = experiment(
    load=loads.burst(base_rps=1.6, burst_rps=3.2, after_s=8, burst_s=14, prompts="short-chat", max_tokens=128),
    fault=faults.none(),
    steady_s=4,
    fault_s=38,
    stable_s=2,
    simulated_engine=True,
    arms={
        "drain": arm(autoscaler=POLICY, environment={**SMALL, "autoscaler": {**QUICK, "LAB_DRAIN_S": "20"}}),
        "no_drain": arm(autoscaler=POLICY, environment={**SMALL, "autoscaler": {**QUICK, "LAB_DRAIN_S": "0"}}),
    },
)


def test_a_drain_lets_streams_end(arms):
    assert arms["drain"].cut_by_scale_down == 0
    assert arms["no_drain"].cut_by_scale_down >= 1


def test_replicas_are_added_for_the_peak_and_removed_after_it(arms):
    assert arms["drain"].max_replicas >= 3
    assert arms["drain"].failed == 0
    assert arms["no_drain"].max_replicas >= 3
