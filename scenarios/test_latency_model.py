"""A replica behind a slow network gets whole answers through and is left alone.

Every byte arrives 0.4 s late, on pooled connections too. Health checks still pass.
The gateway sends such a replica fewer requests. Needs the simulated engine.
"""

from pytest_llmchaos import experiment, faults, loads

LOAD = loads.open_loop(rate_rps=12, prompts="short-chat", max_tokens=64)
pytestmark = experiment(
    load=LOAD,
    fault=faults.latency("model-1", delay_s=0.4, jitter_s=0.1),
    steady_s=4,
    fault_s=14,
    settle_within_s=30,
    simulated_engine=True,
)
control = experiment(load=LOAD, fault=faults.none(), steady_s=4, simulated_engine=True)


def test_a_slow_network_is_detected(trial):
    assert trial.alert("ProbeSlow", "model-1").after_s <= 12


def test_latency_reaches_clients_and_is_bounded(trial):
    assert trial.during_fault.ttft_s.p95 > 0.3  # or the fault did not reach them
    assert trial.during_fault.ttft_s.p95 <= 1.5
    assert trial.during_fault.e2e_s.p95 <= 2.5


def test_no_answer_is_lost(trial):
    assert trial.failed == 0
    assert trial.attempts_per_request <= 1.05


def test_a_distant_replica_is_left_alone(trial):
    assert trial.actions == ()
    assert trial.restarts == {}
    assert "ServiceDown" not in trial.alerts
    assert trial.time_to_settle_s <= 10
    assert trial.replicas.all_serve


@control
def test_without_a_fault_nothing_happens(trial):
    assert trial.failed == 0
    assert trial.alerts == ()
    assert trial.actions == ()
    assert trial.whole.ttft_s.p50 <= 0.2
    assert trial.whole.ttft_s.p95 <= 1
    assert trial.attempts_per_request <= 1.05
