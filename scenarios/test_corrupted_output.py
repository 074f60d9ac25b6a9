"""A replica that answers garbage is found by a canary and restarted within 12 s.

Its answers are fast, whole and have status 200, so no health check and no metric of the
server sees it. Clients who check their answers do, and the remediator then sends each
replica a question with a known answer. Needs the simulated engine.
"""

from pytest_llmchaos import experiment, faults, loads

LOAD = loads.open_loop(rate_rps=12, prompts="short-chat", max_tokens=64)

pytestmark = experiment(
    load=LOAD,
    fault=faults.corrupted_output("model-1"),
    steady_s=6,
    fault_s=14,
    settle_within_s=30,
)
unrepaired = experiment(
    load=LOAD,
    fault=faults.corrupted_output("model-1", how="swapped"),
    steady_s=4,
    fault_s=6,
    settle_within_s=30,
    remediator=False,
)
control = experiment(load=LOAD, fault=faults.none(), steady_s=4, simulated_engine=True)


def test_garbage_is_detected(trial):
    assert trial.alert("StreamCompletenessFastBurn").after_s <= 5
    assert trial.rule("replica-false", "model-1").after_s <= 10


def test_a_replica_that_answers_garbage_is_restarted_by_the_remediator(trial):
    assert [(act.service, act.rule) for act in trial.actions] == [("model-1", "replica-false")]
    assert trial.restarts == {"model-1": 1}
    assert trial.replicas.all_serve


def test_clients_get_garbage_for_a_few_seconds_only(trial):
    """Half of their answers until the restart, and not one after it."""
    assert 12 <= trial.whole.count_of("corrupted") <= 12 * LOAD.mean_rps / 2
    assert trial.whole.count_of("corrupted") >= 0.9 * trial.failed
    assert trial.silently_truncated == 0
    assert trial.attempts_per_request <= 1.2


@unrepaired
def test_another_clients_answers_that_nothing_repairs_page(trial):
    assert trial.alert("StreamCompletenessFastBurn").after_s <= 5
    assert trial.alert("StreamCompletenessFastBurn").severity == "page"


@unrepaired
def test_no_server_side_signal_shows_them(trial):
    assert 0.3 <= trial.during_fault.availability <= 0.7
    assert trial.attempts_per_request <= 1.05
    assert trial.time_to_settle_s <= 10


@control
def test_without_a_fault_nothing_happens(trial):
    assert trial.failed == 0
    assert trial.alerts == ()
    assert trial.actions == ()
    assert trial.whole.ttft_s.p50 <= 0.2
    assert trial.whole.ttft_s.p95 <= 1
    assert trial.attempts_per_request <= 1.05
