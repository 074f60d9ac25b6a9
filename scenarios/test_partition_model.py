"""A replica that is cut off hangs pooled connections, and is out of rotation in 5 s.

Packets vanish in both directions. Nothing is refused, so only deadlines end what was
under way. The other replica serves. The remediator does not run: it would restart a
replica that it cannot reach either. On a real model the load is light.
"""

from pytest_llmchaos import experiment, faults, loads

LOAD = loads.open_loop(rate_rps=12, prompts="short-chat", max_tokens=64)
LIGHT = loads.open_loop(rate_rps=2, prompts="short-chat", max_tokens=8)
pytestmark = experiment(
    load=LOAD,
    light_load=LIGHT,
    fault=faults.partition("model-1", how="drop"),
    steady_s=4,
    fault_s=12,
    settle_within_s=30,
    remediator=False,
)
control = experiment(load=LOAD, light_load=LIGHT, fault=faults.none(), steady_s=4)


def test_a_partition_is_detected(trial):
    assert trial.alert("ServiceDown", "model-1").after_s <= 8


def test_the_other_replica_serves(trial):
    assert trial.during_fault.availability >= 0.85
    assert trial.silently_truncated == 0
    assert trial.whole.count_of("stalled") == 0
    assert trial.attempts_per_request <= 1.2


def test_the_replica_is_back_when_the_network_is(trial):
    assert trial.time_to_settle_s <= 25
    assert trial.replicas.all_serve


@control
def test_without_a_fault_nothing_happens(trial):
    assert trial.failed == 0
    assert trial.alerts == ()
    assert trial.actions == ()
    assert trial.whole.ttft_s.p50 <= 1
    assert trial.whole.ttft_s.p95 <= 2
    assert trial.attempts_per_request <= 1.05
