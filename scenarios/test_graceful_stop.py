"""SIGTERM to the API or a replica lets open streams end, and both return within 20 s.

A deploy or a drained node does this. Answers are long enough to be under way and short
enough for the lab's grace periods: 0.6 s in the gateway, 0.2 s in the engine. Needs the
simulated engine.
"""

from pytest_llmchaos import experiment, faults, loads

LOAD = loads.open_loop(rate_rps=24, prompts="short-chat", max_tokens=24)

stop_api = experiment(load=LOAD, fault=faults.stop("api"), steady_s=4, repair_within_s=40, simulated_engine=True)
stop_replica = experiment(
    load=LOAD, fault=faults.stop("model-1"), steady_s=4, repair_within_s=40, simulated_engine=True
)
control = experiment(load=LOAD, fault=faults.none(), steady_s=4, simulated_engine=True)

BROKEN = ("truncated", "cut", "stalled", "inband_error", "corrupted")


@stop_api
def test_a_stopped_api_is_detected_and_repaired(trial):
    assert trial.rule("api-exited").after_s <= 5
    assert trial.time_to_recover_s <= 20
    assert trial.repaired_by == "remediator"


@stop_api
def test_a_stopped_api_lets_its_streams_end(trial):
    assert sum(trial.whole.count_of(name) for name in BROKEN) == 0
    assert trial.slo("availability").bad_s <= 10


@stop_replica
def test_a_stopped_replica_is_detected_and_repaired(trial):
    assert trial.rule("replica-exited", "model-1").after_s <= 5
    assert trial.time_to_recover_s <= 20
    assert trial.repaired_by == "remediator"
    assert trial.replicas.all_serve


@stop_replica
def test_a_stopped_replica_lets_its_streams_end_and_new_ones_go_elsewhere(trial):
    assert sum(trial.whole.count_of(name) for name in BROKEN) == 0
    assert trial.whole.availability >= 0.99
    assert trial.attempts_per_request <= 1.2


@control
def test_without_a_fault_nothing_happens(trial):
    assert trial.failed == 0
    assert trial.alerts == ()
    assert trial.actions == ()
    assert trial.whole.ttft_s.p50 <= 0.2
    assert trial.whole.ttft_s.p95 <= 1
    assert trial.attempts_per_request <= 1.05
