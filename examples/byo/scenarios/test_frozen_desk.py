"""A desk frozen for 4 s is detected in 4 s, back 5 s after, and truncates no answer."""

from pytest_llmchaos import experiment, faults, loads

pytestmark = experiment(
    load=loads.open_loop(rate_rps=5, max_tokens=8),
    fault=faults.pause("faq"),
    steady_s=3,
    fault_s=4,
    settle_within_s=30,
)


def test_a_frozen_desk_is_noticed(trial):
    assert trial.time_to_detect_s <= 4
    assert "FaqDown" in trial.alerts


def test_a_frozen_desk_answers_again(trial):
    assert trial.time_to_settle_s <= 5
    assert trial.silently_truncated == 0


def test_a_frozen_desk_ends_the_answers_it_began(trial):
    assert trial.slo("whole-answers").value >= 0.9
