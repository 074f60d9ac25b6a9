"""The service repairs itself after faults drawn by the seed, one service at a time.

`pytest --chaos-seed=42` performs the same campaign again.
"""

from pytest_llmchaos import experiment, faults, loads

LOAD = loads.open_loop(rate_rps=12, prompts="short-chat", max_tokens=64)
LIGHT = loads.open_loop(rate_rps=2, prompts="short-chat", max_tokens=8)  # for a real model on two cores

pytestmark = experiment(
    load=LOAD,
    light_load=LIGHT,
    fault=faults.random(
        n=3,
        among=[faults.kill("api"), faults.kill("model-*"), faults.restart("model-*"), faults.restart("api")],
        within_s=45,
    ),
    steady_s=8,
    repair_within_s=60,
    blast_radius=1,
)
control = experiment(load=LOAD, light_load=LIGHT, fault=faults.none(), steady_s=4)


def test_the_campaign_is_detected(trial):
    assert trial.time_to_detect_s <= 20


def test_the_service_recovers_without_a_human(trial):
    assert trial.time_to_recover_s <= 90
    assert trial.repaired_by in {"remediator", "itself", "mixed"}


def test_the_campaign_costs_little(trial):
    assert trial.slo("availability").bad_s <= 20
    assert trial.silently_truncated == 0


@control
def test_without_a_fault_nothing_happens(trial):
    assert trial.failed == 0
    assert trial.alerts == ()
    assert trial.actions == ()
    assert trial.whole.ttft_s.p95 <= 2
    assert trial.attempts_per_request <= 1.05
