"""Whatever of the known faults hits, one service at a time and in whatever order the seed draws, the service repairs itself.

`pytest --chaos-seed=42` performs the same campaign again.
"""

from pytest_llmchaos import experiment, faults, loads

pytestmark = experiment(
    load=loads.open_loop(rate_rps=2, prompts="short-chat", max_tokens=8),
    fault=faults.random(
        n=3,
        among=[faults.kill("api"), faults.kill("model-*"), faults.restart("model-*"), faults.restart("api")],
        within_s=45,
    ),
    steady_s=8,
    repair_within_s=60,
    blast_radius=1,
)


def test_the_campaign_is_detected(trial):
    assert trial.time_to_detect_s <= 20


def test_the_service_recovers_without_a_human(trial):
    assert trial.time_to_recover_s <= 90
    assert trial.repaired_by in {"remediator", "itself", "mixed"}


def test_the_campaign_costs_little(trial):
    assert trial.slo("availability").bad_s <= 30
    assert trial.silently_truncated == 0
