"""Errors inside a replica's streams are passed on as errors, or retried.

Before the first token the gateway tries the other replica. After it, the client gets
the error. Either way, the replica is ejected. Needs the simulated engine.
"""

from pytest_llmchaos import experiment, faults, loads

LOAD = loads.open_loop(rate_rps=12, prompts="short-chat", max_tokens=64)
pytestmark = experiment(
    load=LOAD,
    fault=faults.inband_error("model-1", after_tokens=3),
    steady_s=4,
    fault_s=14,
    settle_within_s=30,
    simulated_engine=True,
)
at_once = experiment(
    load=LOAD,
    fault=faults.inband_error("model-1", after_tokens=0),
    steady_s=4,
    fault_s=14,
    settle_within_s=30,
    simulated_engine=True,
)
control = experiment(load=LOAD, fault=faults.none(), steady_s=4, simulated_engine=True)


def test_inband_errors_are_detected(trial):
    assert trial.alert("StreamCompletenessFastBurn").after_s <= 6
    assert trial.alert("ReplicaEjected", "model-1").after_s <= 12


def test_clients_get_each_error_as_an_error(trial):
    assert trial.whole.count_of("inband_error") >= 10  # or the fault did not reach clients
    assert trial.silently_truncated == 0
    assert trial.whole.count_of("corrupted") == 0
    assert trial.whole.failed <= 12 * LOAD.mean_rps / 2


def test_the_replica_comes_back(trial):
    assert trial.actions == ()
    assert trial.time_to_settle_s <= 15
    assert trial.replicas.all_serve


@at_once
def test_errors_before_the_first_token_eject_the_replica(trial):
    assert trial.alert("ReplicaEjected", "model-1").after_s <= 12


@at_once
def test_errors_before_the_first_token_are_retried(trial):
    """Until the replica is ejected, they are more than the budget of retries."""
    assert trial.slo("availability").bad_s <= 3
    assert trial.whole.count_of("inband_error") == 0
    assert trial.attempts_per_request >= 1.02  # or the fault did not reach the gateway
    assert trial.attempts_per_request <= 1.2


@control
def test_without_a_fault_nothing_happens(trial):
    assert trial.failed == 0
    assert trial.alerts == ()
    assert trial.actions == ()
    assert trial.whole.ttft_s.p50 <= 0.2
    assert trial.whole.ttft_s.p95 <= 1
    assert trial.attempts_per_request <= 1.05
