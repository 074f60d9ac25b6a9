"""A stream that a replica ends cleanly and too early never looks whole to its client.

It lacks a finish reason and the last marker. The gateway ends it with an error and
ejects the replica. Needs the simulated engine.
"""

from pytest_llmchaos import experiment, faults, loads

LOAD = loads.open_loop(rate_rps=12, prompts="short-chat", max_tokens=64)
pytestmark = experiment(
    load=LOAD,
    fault=faults.truncate("model-1", after_tokens=3, how="clean"),
    steady_s=4,
    fault_s=14,
    settle_within_s=30,
    simulated_engine=True,
)
control = experiment(load=LOAD, fault=faults.none(), steady_s=4, simulated_engine=True)


def test_truncated_streams_are_detected(trial):
    assert trial.alert("StreamCompletenessFastBurn").after_s <= 6
    assert trial.alert("ReplicaEjected", "model-1").after_s <= 12


def test_no_client_takes_half_an_answer_for_a_whole_one(trial):
    """Each broken stream ends with an error inside it."""
    assert trial.whole.count_of("inband_error") >= 10  # or the fault did not reach clients
    assert trial.silently_truncated == 0
    assert trial.whole.count_of("stalled") == 0
    assert trial.whole.count_of("corrupted") == 0


def test_clients_get_broken_answers_for_a_few_seconds_only(trial):
    """Until the gateway has ejected the replica, and one for each trial after that."""
    assert trial.whole.failed <= 12 * LOAD.mean_rps / 2
    assert trial.attempts_per_request <= 1.2


def test_nothing_is_restarted_and_the_replica_comes_back(trial):
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
