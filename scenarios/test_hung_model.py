"""A replica that answers /health and makes no progress is noticed within 8 s and restarted by the remediator within 20 s, and
hardly a caller fails.

The process lives, its health path is green, its gauges keep their last values: only the step counter, which stands still while
callers wait, tells this from a busy engine (see test_busy_model.py). Needs the simulated engine.
"""

from pytest_llmchaos import experiment, faults, loads

pytestmark = experiment(
    load=loads.open_loop(rate_rps=5, prompts="short-chat", max_tokens=8),
    fault=faults.hang("model-1"),
    steady_s=5,
    repair_within_s=40,
)


def test_a_hung_replica_is_detected(trial):
    assert trial.time_to_detect_s <= 8


def test_a_hung_replica_is_restarted_by_the_remediator(trial):
    assert trial.time_to_recover_s <= 20
    assert trial.repaired_by == "remediator"
    assert trial.restarts == {"model-1": 1}


def test_a_hung_replica_costs_little(trial):
    assert trial.slo("availability").bad_s <= 10
    assert trial.silently_truncated == 0
