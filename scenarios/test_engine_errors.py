"""A replica that fails every request is restarted in 30 s and costs clients little.

A GPU error (XID 48) fails every request while /health returns 200. The gateway sees it
in its own traffic, the health probe does not. Needs the simulated engine.
"""

from pytest_llmchaos import experiment, faults, loads

LOAD = loads.open_loop(rate_rps=12, prompts="short-chat", max_tokens=64)

pytestmark = experiment(
    load=LOAD,
    fault=faults.xid("model-1", code=48, engine="errors"),
    steady_s=4,
    stable_s=10,  # the gateway retries an ejected replica after this time
    repair_within_s=45,
)
both_fail = experiment(
    load=LOAD,
    fault=faults.xid(["model-1", "model-2"], code=48, engine="errors"),
    steady_s=4,
    repair_within_s=10,
    remediator=False,
)
control = experiment(load=LOAD, fault=faults.none(), steady_s=4, simulated_engine=True)


def test_a_failing_engine_is_detected(trial):
    assert trial.alert("GpuXid", "model-1").after_s <= 5
    assert trial.alert("ReplicaEjected", "model-1").after_s <= 8
    assert trial.rule("replica-mute", "model-1").after_s <= 20


def test_a_failing_engine_is_restarted_by_the_remediator(trial):
    assert trial.time_to_recover_s <= 30
    assert trial.repaired_by == "remediator"
    assert trial.restarts == {"model-1": 1}
    assert trial.replicas.all_serve


def test_a_failing_engine_hardly_shows_to_clients(trial):
    assert trial.slo("availability").bad_s <= 3
    assert trial.silently_truncated == 0
    assert trial.attempts_per_request <= 1.2


@both_fail
def test_two_failing_engines_are_taken_out(trial):
    assert trial.alert("ReplicaEjected", "model-1").after_s <= 8
    assert trial.alert("ReplicaEjected", "model-2").after_s <= 8


@both_fail
def test_retries_do_not_double_the_load(trial):
    """With no replica left, the gateway's retry budget bounds its second attempts."""
    assert trial.attempts_per_request >= 1.02  # or the gateway retried nothing
    assert trial.attempts_per_request <= 1.4
    assert trial.silently_truncated == 0


@control
def test_without_a_fault_nothing_happens(trial):
    assert trial.failed == 0
    assert trial.alerts == ()
    assert trial.actions == ()
    assert trial.whole.ttft_s.p50 <= 0.2
    assert trial.whole.ttft_s.p95 <= 1
    assert trial.attempts_per_request <= 1.05
