"""A desk restarted by force is back in 10 s and loses under half of that time."""

from pytest_llmchaos import experiment, faults, loads

pytestmark = experiment(
    load=loads.open_loop(rate_rps=5, max_tokens=8),
    fault=faults.restart("faq"),
    steady_s=3,
    repair_within_s=30,
)


def test_a_restarted_desk_comes_back_by_itself(trial):
    assert trial.time_to_recover_s <= 10
    assert trial.repaired_by == "itself"


def test_a_restarted_desk_keeps_most_clients(trial):
    assert trial.whole.availability >= 0.5
