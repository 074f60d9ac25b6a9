"""A replica in a crash loop gets a few starts with growing pauses, then a human.

The other replica serves meanwhile. Needs the simulated engine.
"""

from itertools import pairwise

from pytest_llmchaos import experiment, faults, loads

LOAD = loads.open_loop(rate_rps=12, prompts="short-chat", max_tokens=64)

pytestmark = experiment(
    load=LOAD,
    fault=faults.crash_on_boot("model-1", for_s=120),
    steady_s=4,
    repair_within_s=70,  # five starts, each pause twice as long as the one before: 30 s until a human takes over
)
control = experiment(load=LOAD, fault=faults.none(), steady_s=4, simulated_engine=True)


def test_a_crash_loop_is_detected(trial):
    assert trial.alert("ServiceDown", "model-1").after_s <= 8
    assert trial.alert("ServiceFlapping", "model-1").after_s <= 45
    assert trial.rule("replica-exited", "model-1").after_s <= 5


def test_a_crash_loop_is_met_with_a_few_starts_and_growing_pauses(trial):
    starts_s = [action.at_s for action in trial.actions]
    pauses_s = [later - earlier for earlier, later in pairwise(starts_s)]
    assert 3 <= len(starts_s) <= 6
    assert all(later > 1.3 * earlier for earlier, later in pairwise(pauses_s))


def test_a_crash_loop_is_handed_to_a_human(trial):
    assert any(event.source == "remediator" and event.what.startswith("escalated") for event in trial.events)


def test_the_other_replica_serves_meanwhile(trial):
    assert trial.during_fault.availability >= 0.97
    assert trial.silently_truncated == 0
    assert trial.attempts_per_request <= 1.2


@control
def test_without_a_fault_nothing_happens(trial):
    assert trial.failed == 0
    assert trial.alerts == ()
    assert trial.actions == ()
    assert trial.whole.ttft_s.p50 <= 0.2
    assert trial.whole.ttft_s.p95 <= 1
    assert trial.attempts_per_request <= 1.05
