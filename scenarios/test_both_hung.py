"""Two hung replicas page within 10 s and are not restarted.

On suspicion alone, the remediator never takes down the last replicas. Needs the
simulated engine.
"""

from pytest_llmchaos import experiment, faults, loads

LOAD = loads.open_loop(rate_rps=12, prompts="short-chat", max_tokens=64)

pytestmark = experiment(
    load=LOAD,
    fault=faults.hang(["model-1", "model-2"]),
    steady_s=4,
    repair_within_s=14,
)
control = experiment(load=LOAD, fault=faults.none(), steady_s=4, simulated_engine=True)


def test_two_hung_replicas_page(trial):
    assert trial.alert("RequestStuck", "model-1").after_s <= 10
    assert trial.alert("RequestStuck", "model-2").after_s <= 10
    assert trial.alert("AvailabilityFastBurn").after_s <= 14
    assert trial.rule("replica-hung", "model-1").after_s <= 10
    assert trial.rule("replica-hung", "model-2").after_s <= 10


def test_two_hung_replicas_are_not_touched(trial):
    assert trial.actions == ()
    assert trial.restarts == {}


def test_clients_get_a_refusal_or_an_error_and_never_half_an_answer(trial):
    assert trial.silently_truncated == 0
    assert trial.whole.count_of("stalled") == 0  # or the gateway ends no silent stream
    assert trial.whole.count_of("corrupted") == 0
    assert trial.attempts_per_request <= 1.5


@control
def test_without_a_fault_nothing_happens(trial):
    assert trial.failed == 0
    assert trial.alerts == ()
    assert trial.actions == ()
    assert trial.whole.ttft_s.p50 <= 0.2
    assert trial.whole.ttft_s.p95 <= 1
    assert trial.attempts_per_request <= 1.05
