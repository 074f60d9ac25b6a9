"""A gateway frozen for 4 s with one batch worker answers again within 5 s."""

from pytest_llmchaos import experiment, faults, loads

pytestmark = experiment(
    load=loads.open_loop(rate_rps=5, max_tokens=4),
    fault=faults.pause(["gateway", "batch"]),
    steady_s=3,
    fault_s=4,
    settle_within_s=20,
)


def test_it_is_noticed(trial):
    assert trial.time_to_detect_s <= 4
    assert "ServiceDown" in trial.alerts
    assert trial.victims == ("gateway", "batch")


def test_it_answers_again(trial):
    assert trial.time_to_settle_s <= 5


def test_the_clients_judge_it(trial):
    assert trial.slo("availability").value >= 0.5
