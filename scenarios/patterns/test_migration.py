"""Migration finishes the answers of a replica that breaks its streams in the middle.

It does not help if no other replica is good, for tool calls and structured output, or
beyond its bound of bytes.

Needs the simulated engine.
"""

from pytest_llmchaos import arm, experiment, faults, loads

pytestmark = experiment(
    load=loads.open_loop(rate_rps=24, prompts="short-chat", max_tokens=16),
    fault=faults.truncate("model-1", after_tokens=5, how="mid_event", share=0.25),
    steady_s=4,
    fault_s=8,
    settle_within_s=20,
    stable_s=2,
    remediator=False,
    simulated_engine=True,
    arms={
        "on": arm(environment={"api": {"LAB_MIGRATION": "on", "LAB_BREAKER": "off"}}),
        "off": arm(environment={"api": {"LAB_MIGRATION": "off", "LAB_BREAKER": "off"}}),
    },
)


def test_cut_answers_are_finished_elsewhere(arms):
    assert arms.during_fault.availability.low >= 0.04
    assert arms["on"].during_fault.availability >= 0.99
    assert arms["on"].whole.count_of("corrupted") == 0


def test_a_healthy_system_pays_nothing(arms):
    assert arms.before_fault.ttft_s.p50.high <= 0.005
