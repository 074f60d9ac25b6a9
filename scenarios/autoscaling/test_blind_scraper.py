"""An autoscaler that sees nothing holds its replicas.

Its queries to Prometheus fail for a while, and the load stays the same. What takes
missing values for zero stops replicas that are needed.

Needs the simulated engine.
"""

from pytest_llmchaos import arm, experiment, faults, loads

PACE = "scale_up_period_s=2, scale_down_window_s=3, scale_down_period_s=2"
SMALL = {
    "api": {"LAB_CONCURRENCY": "2"},
    "autoscaler": {"LAB_SLOTS": "2", "LAB_SYNC_S": "1", "LAB_WINDOW_S": "5"},
}

pytestmark = experiment(
    load=loads.open_loop(rate_rps=2.6, prompts="short-chat", max_tokens=192),
    fault=faults.scrape_gap(of="autoscaler"),
    steady_s=6,
    fault_s=25,
    settle_within_s=40,
    stable_s=2,
    simulated_engine=True,
    arms={
        "holds": arm(autoscaler=f"hpa(target=0.7, {PACE})", environment=SMALL),
        "no_data_is_zero": arm(autoscaler=f"hpa(target=0.7, no_data_is_zero=True, {PACE})", environment=SMALL),
    },
)


def test_clients_are_served_while_it_is_blind(arms):
    assert arms["holds"].during_fault.goodput_ratio >= 0.95
    assert arms["holds"].during_fault.failed == 0
    assert arms["no_data_is_zero"].during_fault.goodput_ratio <= 0.7
