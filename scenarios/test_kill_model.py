"""One lost replica costs clients next to nothing, and two are repaired within 30 s.

The gateway routes requests to the remaining replica, and the remediator starts the lost
one. Without the remediator the replica stays away for 12 s: each request of that time
needs the gateway's breaker, probe or second attempt. On a real model the load is light.
Few requests meet the lost replica there, so the trial shows little of retries and slow
starts.
"""

from pytest_llmchaos import experiment, faults, loads

LOAD = loads.open_loop(rate_rps=12, prompts="short-chat", max_tokens=64)
LIGHT = loads.open_loop(rate_rps=2, prompts="short-chat", max_tokens=8)
BOTH = faults.together(faults.kill("model-1"), faults.kill("model-2"))

one_replica = experiment(
    load=LOAD, light_load=LIGHT, fault=faults.kill("model-1"), steady_s=6, stable_s=6, repair_within_s=40
)
unrepaired = experiment(
    load=LOAD, light_load=LIGHT, fault=faults.kill("model-1"), steady_s=4, repair_within_s=12, remediator=False
)
both_unrepaired = experiment(load=LOAD, light_load=LIGHT, fault=BOTH, steady_s=4, repair_within_s=6, remediator=False)
both_replicas = experiment(load=LOAD, light_load=LIGHT, fault=BOTH, steady_s=6, stable_s=6, repair_within_s=60)
control = experiment(load=LOAD, light_load=LIGHT, fault=faults.none(), steady_s=4)


@one_replica
def test_one_lost_replica_is_detected(trial):
    assert trial.rule("replica-exited", "model-1").after_s <= 5


@one_replica
def test_one_lost_replica_is_repaired_by_the_remediator(trial):
    assert trial.time_to_recover_s <= 20
    assert trial.repaired_by == "remediator"
    assert trial.restarts == {"model-1": 1}
    assert trial.replicas.all_serve


@one_replica
def test_one_lost_replica_is_an_incident_that_ends(trial):
    assert {incident.ended for incident in trial.incidents if incident.service == "model-1"} == {True}


@one_replica
def test_one_lost_replica_hardly_shows_to_clients(trial):
    assert trial.whole.availability >= 0.95
    assert trial.silently_truncated == 0
    assert trial.whole.count_of("corrupted") == 0
    assert trial.attempts_per_request <= 1.2


@unrepaired
def test_a_lost_replica_that_nothing_repairs_pages(trial):
    assert trial.alert("ServiceDown", "model-1").after_s <= 5


@unrepaired
def test_the_other_replica_serves_while_nothing_repairs_the_lost_one(trial):
    assert trial.during_fault.availability >= 0.95
    assert trial.during_fault.ttft_s.p95 <= 2
    assert trial.silently_truncated == 0
    assert trial.whole.count_of("corrupted") == 0
    assert trial.attempts_per_request <= 1.2


@both_replicas
def test_both_lost_replicas_are_detected(trial):
    assert trial.rule("replica-exited", "model-1").after_s <= 5
    assert trial.rule("replica-exited", "model-2").after_s <= 5


@both_replicas
def test_both_lost_replicas_are_repaired_by_the_remediator(trial):
    assert trial.time_to_recover_s <= 30
    assert trial.repaired_by == "remediator"
    assert trial.replicas.all_serve


@both_replicas
def test_both_lost_replicas_are_incidents_that_end(trial):
    assert {incident.ended for incident in trial.incidents if incident.service == "model-1"} == {True}
    assert {incident.ended for incident in trial.incidents if incident.service == "model-2"} == {True}


@both_replicas
def test_both_lost_replicas_cost_little(trial):
    assert trial.slo("availability").bad_s <= 10
    assert trial.silently_truncated == 0
    assert trial.attempts_per_request <= 1.5


@both_unrepaired
def test_a_service_without_replicas_reports_it(trial):
    assert trial.alert("ServiceDown", "model-1").after_s <= 5
    assert trial.silently_truncated == 0
    assert trial.whole.without_retry_after == 0
    assert trial.falsely_ready_s <= 2  # load balancers route to a /readyz of 200


@control
def test_without_a_fault_nothing_happens(trial):
    assert trial.failed == 0
    assert trial.alerts == ()
    assert trial.actions == ()
    assert trial.whole.ttft_s.p95 <= 2
    assert trial.attempts_per_request <= 1.05
    assert trial.replicas.all_serve
