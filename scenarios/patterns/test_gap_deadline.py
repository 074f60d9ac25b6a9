"""A deadline between events lets migration finish streams that have stalled.

It does not help the stalled answer by itself: without migration its client gets an
error in place of silence.

Needs the simulated engine.
"""

from pytest_llmchaos import arm, experiment, faults, loads

SETTINGS = {"LAB_GAP_TIMEOUT_S": "0.5", "LAB_MIGRATION": "on"}

pytestmark = experiment(
    load=loads.open_loop(rate_rps=24, prompts="short-chat", max_tokens=16, timeout_s=2),
    fault=faults.stall(["model-1", "model-2"], after_tokens=10, share=0.15),
    steady_s=4,
    fault_s=8,
    settle_within_s=20,
    stable_s=2,
    remediator=False,
    simulated_engine=True,
    arms={
        "on": arm(environment={"api": SETTINGS}),
        "off": arm(environment={"api": {**SETTINGS, "LAB_GAP_DEADLINE": "off"}}),
    },
)


def test_stalled_answers_are_finished_elsewhere(arms):
    assert arms.during_fault.availability.low >= 0.03
    assert arms["on"].during_fault.availability >= 0.97
    assert arms["on"].whole.count_of("corrupted") == 0


def test_a_healthy_system_pays_nothing(arms):
    assert arms.before_fault.ttft_s.p50.high <= 0.005
