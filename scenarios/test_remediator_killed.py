"""A remediator killed in mid-repair repairs once: the replica is back within 20 s.

It dies soon after the replica, once before and once after it has acted, and its
supervisor starts it again at once. Its state file records what it has done already. On
a real model the load is light, so the trial shows little of the clients there.
"""

from pytest_llmchaos import experiment, faults, loads

LOAD = loads.open_loop(rate_rps=12, prompts="short-chat", max_tokens=64)
LIGHT = loads.open_loop(rate_rps=2, prompts="short-chat", max_tokens=8)  # for a real model on two cores

KILL, DIES = faults.kill("model-1"), faults.restart("remediator")

pytestmark = experiment(
    load=LOAD,
    light_load=LIGHT,
    fault=[faults.sequence(KILL, then=DIES, after_s=0.3), faults.sequence(KILL, then=DIES, after_s=1)],
    steady_s=4,
    stable_s=8,
    repair_within_s=40,
    blast_radius=2,
)
control = experiment(load=LOAD, light_load=LIGHT, fault=faults.none(), steady_s=4)


def test_the_repair_is_done_exactly_once(trial):
    assert trial.restarts == {"model-1": 1}
    assert [action.service for action in trial.actions] == ["model-1"]
    assert trial.rule("replica-exited", "model-1").after_s <= 15


def test_the_replica_is_back_in_time(trial):
    assert trial.time_to_recover_s <= 20
    assert trial.replicas.all_serve


def test_clients_hardly_notice(trial):
    assert trial.whole.availability >= 0.95
    assert trial.silently_truncated == 0
    assert trial.attempts_per_request <= 1.2


@control
def test_without_a_fault_nothing_happens(trial):
    assert trial.failed == 0
    assert trial.alerts == ()
    assert trial.actions == ()
    assert trial.whole.ttft_s.p95 <= 2
    assert trial.attempts_per_request <= 1.05
