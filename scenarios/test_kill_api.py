"""Losing the API is noticed within 5 s, repaired without a human within 20 s, and costs callers less than 10 s of answers."""

from pytest_llmchaos import experiment, faults, loads

pytestmark = experiment(
    load=loads.open_loop(rate_rps=2, prompts="short-chat", max_tokens=8),
    fault=faults.kill("api"),
    steady_s=8,
    repair_within_s=40,
)


def test_kill_api_is_detected(trial):
    assert trial.time_to_detect_s <= 5


def test_kill_api_is_repaired_by_the_remediator(trial):
    assert trial.time_to_recover_s <= 20
    assert trial.repaired_by == "remediator"


def test_kill_api_costs_little(trial):
    assert trial.slo("availability").bad_s <= 10  # judged by Prometheus
    assert trial.silently_truncated == 0  # judged by the callers
