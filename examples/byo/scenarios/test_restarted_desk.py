"""A desk that is restarted by force is back within 10 s, and its clients lose less than half of that time's answers."""

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
