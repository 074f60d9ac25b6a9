"""A pool without replicas wakes by what the gateway counts.

The load pauses for 28 s, and the autoscaler stops every replica. The requests that
follow are refused until one runs again. A trigger that only replicas report never
wakes.

Needs the simulated engine.
"""

from pathlib import Path

from pytest_llmchaos import arm, experiment, faults, loads

PACE = "polling_s=1, cooldown_s=6, scale_down_window_s=4, scale_down_period_s=2"
SMALL = {
    "api": {"LAB_CONCURRENCY": "2"},
    "autoscaler": {"LAB_SLOTS": "2", "LAB_SYNC_S": "1", "LAB_WINDOW_S": "4"},
}

pytestmark = experiment(
    # 2 requests a second, but for a pause from 12 s to 40 s.
    load=loads.trace(
        Path(__file__).parent / "pause.csv",
        columns={"time": "at_s", "prompt": "prompt_tokens", "answer": "answer_tokens"},
        unit="s",
    ),
    fault=faults.none(),
    steady_s=4,
    fault_s=50,
    stable_s=2,
    simulated_engine=True,
    arms={
        "by_requests": arm(autoscaler=f"keda(metric=rate_rps, threshold=1.5, {PACE})", environment=SMALL),
        "by_replicas": arm(
            autoscaler="kpa(concurrency=2, stable_window_s=6, scale_to_zero_grace_s=8)", environment=SMALL
        ),
    },
)


def test_it_wakes_when_requests_come(arms):
    assert arms["by_requests"].during_fault.availability >= 0.6
    assert arms["by_replicas"].during_fault.availability <= 0.4


def test_a_pause_costs_little(arms):
    assert arms["by_requests"].replica_hours <= 0.026
