"""A rolling restart hardly affects clients, and a full restart ends within 20 s.

No signal is expected: a service is back before a second look finds it gone. On a real
model the load is light, and a cold replica is never under pressure.
"""

from pytest_llmchaos import experiment, faults, loads

LOAD = loads.open_loop(rate_rps=12, prompts="short-chat", max_tokens=64)
LIGHT = loads.open_loop(rate_rps=2, prompts="short-chat", max_tokens=8)

rolling = experiment(
    load=LOAD,
    light_load=LIGHT,
    fault=faults.sequence(faults.restart("model-1"), then=faults.restart("model-2"), after_s=8),
    steady_s=6,
    stable_s=6,
    repair_within_s=40,
)
all_at_once = experiment(
    load=LOAD,
    light_load=LIGHT,
    fault=faults.together(faults.restart("api"), faults.restart("model-1"), faults.restart("model-2")),
    steady_s=6,
    stable_s=6,
    repair_within_s=60,
)
control = experiment(load=LOAD, light_load=LIGHT, fault=faults.none(), steady_s=4)


@rolling
def test_a_rolling_restart_hardly_shows_to_clients(trial):
    assert trial.whole.availability >= 0.9
    assert trial.silently_truncated == 0
    assert trial.whole.count_of("corrupted") == 0
    assert trial.attempts_per_request <= 1.2


@rolling
def test_a_rolling_restart_is_over_in_time(trial):
    assert trial.time_to_recover_s <= 25
    assert trial.replicas.all_serve


@all_at_once
def test_restarting_everything_is_over_in_time(trial):
    assert trial.time_to_recover_s <= 20
    assert trial.repaired_by == "itself"
    assert trial.replicas.all_serve


@all_at_once
def test_restarting_everything_costs_little(trial):
    assert trial.slo("availability").bad_s <= 10
    assert trial.silently_truncated == 0


@control
def test_without_a_fault_nothing_happens(trial):
    assert trial.failed == 0
    assert trial.alerts == ()
    assert trial.actions == ()
    assert trial.whole.ttft_s.p95 <= 2
    assert trial.attempts_per_request <= 1.05
