"""A replica that computes on its CPU, two hundred times slower, is busy and not hung: nobody restarts it, and callers get whole
answers.

The twin of test_hung_model.py: callers wait for a first token here too, but the step counter goes on. Needs the simulated engine.
"""

from pytest_llmchaos import experiment, faults, loads

pytestmark = experiment(
    load=loads.open_loop(rate_rps=5, prompts="short-chat", max_tokens=4),
    fault=faults.together(faults.cpu_fallback("model-1", slowdown=200), faults.cpu_fallback("model-2", slowdown=200)),
    steady_s=5,
    fault_s=20,
    recovery_s=40,
)


def test_a_busy_engine_is_noticed(trial):
    assert trial.time_to_detect_s <= 20


def test_a_busy_engine_is_not_restarted(trial):
    assert trial.actions == ()
    assert trial.restarts == {}


def test_callers_of_a_busy_engine_get_whole_answers(trial):
    assert trial.fault.availability >= 0.99
    assert trial.silently_truncated == 0


def test_all_is_well_soon_after(trial):
    assert trial.time_to_settle_s <= 15
