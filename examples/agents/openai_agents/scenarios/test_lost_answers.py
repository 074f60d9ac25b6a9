"""Refunds with a lost answer are paid once."""

from pytest_llmchaos import experiment, faults, loads

pytestmark = experiment(
    load=loads.tasks(rate_rps=0.5, task_s=25),
    fault=faults.tool("desk.refund", how="lost_answer", share=0.5),
    steady_s=8,
    fault_s=10,
    settle_within_s=40,
)


def test_every_task_is_completed(trial):
    assert trial.tasks.stuck == 0
    assert trial.tasks.failed == 0


def test_no_refund_is_doubled(trial):
    assert trial.tasks.duplicate_effects == 0
    assert trial.tasks.false_success == 0
