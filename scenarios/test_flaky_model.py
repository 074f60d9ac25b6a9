"""Clients do not see a replica that answers 30 % of its requests with 503.

The gateway sends each of them to the other replica, within its budget of retries. A
replica that fails most of its requests is ejected. Needs the simulated engine.
"""

from pytest_llmchaos import experiment, faults, loads

LOAD = loads.open_loop(rate_rps=16, prompts="short-chat", max_tokens=64)
pytestmark = experiment(
    load=LOAD,
    fault=faults.flaky("model-1", status=503, share=0.3),
    steady_s=4,
    fault_s=14,
    settle_within_s=30,
    simulated_engine=True,
)
mostly = experiment(
    load=LOAD,
    fault=faults.flaky("model-1", status=503, share=0.8),
    steady_s=4,
    fault_s=14,
    settle_within_s=30,
    simulated_engine=True,
)
control = experiment(load=LOAD, fault=faults.none(), steady_s=4, simulated_engine=True)


def test_clients_see_no_failure(trial):
    assert trial.whole.availability >= 0.99
    assert trial.during_fault.ttft_s.p95 <= 1


def test_failures_that_retries_hide_are_detected(trial):
    assert trial.alert("UpstreamErrorsHigh", "model-1").after_s <= 12


def test_each_failure_costs_one_retry(trial):
    assert trial.attempts_per_request >= 1.04  # or the fault did not reach the gateway
    assert trial.attempts_per_request <= 1.2


def test_a_flaky_replica_is_left_alone(trial):
    assert trial.actions == ()
    assert trial.restarts == {}
    assert trial.replicas.all_serve


@mostly
def test_a_replica_that_mostly_fails_is_ejected(trial):
    assert trial.alert("ReplicaEjected", "model-1").after_s <= 12


@mostly
def test_a_replica_that_mostly_fails_costs_little(trial):
    """Until it is ejected, its failures are more than the budget of retries."""
    assert trial.slo("availability").bad_s <= 4
    assert trial.attempts_per_request <= 1.2
    assert trial.silently_truncated == 0


@mostly
def test_an_ejected_replica_comes_back(trial):
    assert trial.actions == ()
    assert trial.time_to_settle_s <= 15
    assert trial.replicas.all_serve


@control
def test_without_a_fault_nothing_happens(trial):
    assert trial.failed == 0
    assert trial.alerts == ()
    assert trial.actions == ()
    assert trial.whole.ttft_s.p50 <= 0.2
    assert trial.whole.ttft_s.p95 <= 1
    assert trial.attempts_per_request <= 1.05
