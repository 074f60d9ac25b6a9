"""A replica that computes very slowly is not restarted, and clients get whole answers.

The twin of test_hung_model.py: the replica computes on its CPU, 300 times slower.
Clients wait longer for a first token than a hung replica would be left alone, but the
step counter goes on. The load stays below the gateway's admission limit, so clients
meet a slow engine and not a full queue (the arithmetic is in
tests/test_scenario_strengths.py). Needs the simulated engine.
"""

from pytest_llmchaos import experiment, faults, loads

LOAD = loads.open_loop(rate_rps=2, prompts="short-chat", max_tokens=2)

pytestmark = experiment(
    load=LOAD,
    fault=faults.together(faults.cpu_fallback("model-1", slowdown=300), faults.cpu_fallback("model-2", slowdown=300)),
    steady_s=5,
    fault_s=25,
    settle_within_s=40,
)
control = experiment(load=LOAD, fault=faults.none(), steady_s=5, simulated_engine=True)


def test_a_busy_engine_is_detected(trial):
    assert trial.alert("LatencyP95FastBurn").after_s <= 20


def test_a_busy_engine_is_not_restarted(trial):
    assert trial.actions == ()
    assert trial.restarts == {}


def test_clients_of_a_busy_engine_wait_and_get_whole_answers(trial):
    assert trial.during_fault.ttft_s.p50 > 1  # or the fault did not reach them
    assert trial.during_fault.availability >= 0.95
    assert trial.silently_truncated == 0
    assert trial.attempts_per_request <= 1.05


def test_all_is_well_soon_after(trial):
    assert trial.time_to_settle_s <= 15


@control
def test_without_a_fault_nothing_happens(trial):
    assert trial.failed == 0
    assert trial.alerts == ()
    assert trial.actions == ()
    assert trial.whole.ttft_s.p50 <= 0.2
    assert trial.whole.ttft_s.p95 <= 1
    assert trial.attempts_per_request <= 1.05
