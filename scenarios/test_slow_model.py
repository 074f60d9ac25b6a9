"""A replica whose answers trickle gets few of the requests and is not restarted.

The gateway sends each request to the replica with the fewest in flight, and a slow one
keeps its own for long. Most clients notice nothing. Needs the simulated engine.
"""

from pytest_llmchaos import experiment, faults, loads

LOAD = loads.open_loop(rate_rps=12, prompts="short-chat", max_tokens=64)
pytestmark = experiment(
    load=LOAD,
    fault=faults.slow_drip("model-1", every_s=0.05, bytes_per_piece=200),
    steady_s=4,
    fault_s=14,
    settle_within_s=30,
    simulated_engine=True,
)
control = experiment(load=LOAD, fault=faults.none(), steady_s=4, simulated_engine=True)


def test_slow_answers_are_detected(trial):
    assert trial.alert("LatencyP95CreepingBurn").after_s <= 12


def test_most_clients_notice_nothing(trial):
    assert trial.during_fault.e2e_s.p50 <= 1
    assert trial.during_fault.e2e_s.p95 > 2  # or the fault did not reach them
    assert trial.slo("latency-p95").bad_s <= 4


def test_every_answer_is_whole(trial):
    assert trial.failed == 0
    assert trial.attempts_per_request <= 1.05


def test_a_slow_replica_is_left_alone(trial):
    assert trial.actions == ()
    assert trial.restarts == {}
    assert trial.time_to_settle_s <= 15


@control
def test_without_a_fault_nothing_happens(trial):
    assert trial.failed == 0
    assert trial.alerts == ()
    assert trial.actions == ()
    assert trial.whole.ttft_s.p50 <= 0.2
    assert trial.whole.ttft_s.p95 <= 1
    assert trial.attempts_per_request <= 1.05
