"""An agent restarted in a refund resumes its tasks and pays once."""

from pytest_llmchaos import experiment, faults, loads

pytestmark = experiment(
    load=loads.tasks(rate_rps=0.5, task_s=25),
    fault=faults.timed(faults.restart("agent"), at="after:desk.refund#1.answered"),
    steady_s=8,
    repair_within_s=60,
)


def test_no_task_is_lost(trial):
    assert trial.tasks.lost == 0
    assert trial.tasks.stuck == 0


def test_no_effect_is_doubled_or_missing(trial):
    assert trial.tasks.duplicate_effects == 0
    assert trial.tasks.false_success == 0
