"""Late first tokens page, and a replica that is only late is not restarted.

The remediator's rule for a hung replica needs an engine that takes no step. Clients
wait and get whole answers. The load leaves places free in the gateway, so none waits
for another. On a real model the load is light.
"""

from pytest_llmchaos import experiment, faults, loads

LOAD = loads.open_loop(rate_rps=4, prompts="short-chat", max_tokens=24)
LIGHT = loads.open_loop(rate_rps=2, prompts="short-chat", max_tokens=8)
pytestmark = experiment(
    load=LOAD,
    light_load=LIGHT,
    fault=faults.late_first_token(["model-1", "model-2"], delay_s=3),
    steady_s=4,
    fault_s=20,
    settle_within_s=30,
)
control = experiment(load=LOAD, light_load=LIGHT, fault=faults.none(), steady_s=4)


def test_late_first_tokens_are_detected(trial):
    assert trial.alert("TimeToFirstTokenP95FastBurn").after_s <= 18
    assert trial.alert("TimeToFirstTokenP95FastBurn").severity == "page"


def test_a_late_replica_is_not_restarted(trial):
    assert trial.actions == ()
    assert trial.restarts == {}


def test_clients_wait_and_get_whole_answers(trial):
    assert trial.during_fault.ttft_s.p50 > 2  # or the fault did not reach them
    assert trial.failed == 0
    assert trial.silently_truncated == 0
    assert trial.attempts_per_request <= 1.05


def test_all_is_well_soon_after(trial):
    assert trial.time_to_settle_s <= 10


@control
def test_without_a_fault_nothing_happens(trial):
    assert trial.failed == 0
    assert trial.alerts == ()
    assert trial.actions == ()
    assert trial.whole.ttft_s.p50 <= 1
    assert trial.whole.ttft_s.p95 <= 2
    assert trial.attempts_per_request <= 1.05
