"""Losing one replica costs callers next to nothing while the other serves; losing both is repaired within 30 s.

The gateway sends requests on to the replica that is left; the remediator starts what is gone.
"""

from pytest_llmchaos import experiment, faults, loads

LOAD = loads.open_loop(rate_rps=2, prompts="short-chat", max_tokens=8)

one_replica = experiment(load=LOAD, fault=faults.kill("model-1"), steady_s=8, repair_within_s=40)
both_replicas = experiment(
    load=LOAD, fault=faults.together(faults.kill("model-1"), faults.kill("model-2")), steady_s=8, repair_within_s=60
)


@one_replica
def test_one_lost_replica_is_detected(trial):
    assert trial.time_to_detect_s <= 5


@one_replica
def test_one_lost_replica_is_repaired_by_the_remediator(trial):
    assert trial.time_to_recover_s <= 20
    assert trial.repaired_by == "remediator"


@one_replica
def test_one_lost_replica_hardly_shows_to_callers(trial):
    assert trial.whole.availability >= 0.95
    assert trial.silently_truncated == 0


@both_replicas
def test_both_lost_replicas_are_detected(trial):
    assert trial.time_to_detect_s <= 5


@both_replicas
def test_both_lost_replicas_are_repaired_by_the_remediator(trial):
    assert trial.time_to_recover_s <= 30
    assert trial.repaired_by == "remediator"


@both_replicas
def test_both_lost_replicas_cost_little(trial):
    assert trial.slo("availability").bad_s <= 20
    assert trial.silently_truncated == 0
