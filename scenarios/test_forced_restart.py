"""Restarting the replicas one at a time hardly shows to callers; restarting everything at once is over within 20 s."""

from pytest_llmchaos import experiment, faults, loads

LOAD = loads.open_loop(rate_rps=2, prompts="short-chat", max_tokens=8)

rolling = experiment(
    load=LOAD,
    fault=faults.sequence(faults.restart("model-1"), then=faults.restart("model-2"), after_s=8),
    steady_s=8,
    repair_within_s=40,
)
all_at_once = experiment(
    load=LOAD,
    fault=faults.together(faults.restart("api"), faults.restart("model-1"), faults.restart("model-2")),
    steady_s=8,
    repair_within_s=60,
)


@rolling
def test_a_rolling_restart_hardly_shows_to_callers(trial):
    assert trial.whole.availability >= 0.9
    assert trial.silently_truncated == 0


@rolling
def test_a_rolling_restart_is_over_in_time(trial):
    assert trial.time_to_recover_s <= 25


@all_at_once
def test_restarting_everything_is_over_in_time(trial):
    assert trial.time_to_recover_s <= 20
    assert trial.repaired_by == "itself"


@all_at_once
def test_restarting_everything_costs_little(trial):
    assert trial.slo("availability").bad_s <= 15
    assert trial.silently_truncated == 0
