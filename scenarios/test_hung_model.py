"""A hung replica is detected in 8 s, restarted in 20 s, and costs clients little.

The process lives, /health returns 200 and the gauges keep their last values. Only the
step counter, which stands still while clients wait, distinguishes it from a busy engine
(see test_busy_model.py). Needs the simulated engine.
"""

from pytest_llmchaos import experiment, faults, loads

LOAD = loads.open_loop(rate_rps=12, prompts="short-chat", max_tokens=64)

pytestmark = experiment(
    load=LOAD,
    fault=faults.hang("model-1"),
    steady_s=5,
    stable_s=10,  # the gateway retries an ejected replica after this time
    repair_within_s=40,
)
unrepaired = experiment(load=LOAD, fault=faults.hang("model-1"), steady_s=4, repair_within_s=10, remediator=False)
control = experiment(load=LOAD, fault=faults.none(), steady_s=4, simulated_engine=True)


def test_a_hung_replica_is_detected(trial):
    assert trial.rule("replica-hung", "model-1").after_s <= 8


def test_a_hung_replica_is_restarted_by_the_remediator(trial):
    assert trial.time_to_recover_s <= 20
    assert trial.repaired_by == "remediator"
    assert trial.restarts == {"model-1": 1}
    assert trial.replicas.all_serve


def test_a_hung_replica_costs_little(trial):
    assert trial.slo("availability").bad_s <= 5
    assert trial.silently_truncated == 0
    assert trial.attempts_per_request <= 1.2


@unrepaired
def test_a_hung_replica_that_nothing_repairs_pages(trial):
    assert trial.alert("EngineStalled", "model-1").after_s <= 10
    assert trial.alert("RequestStuck", "model-1").after_s <= 8


@control
def test_without_a_fault_nothing_happens(trial):
    assert trial.failed == 0
    assert trial.alerts == ()
    assert trial.actions == ()
    assert trial.whole.ttft_s.p50 <= 0.2
    assert trial.whole.ttft_s.p95 <= 1
    assert trial.attempts_per_request <= 1.05
