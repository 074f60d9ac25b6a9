"""Comments keep a connection open that its client or a proxy would cut as idle.

It does not help against a deadline for the first token itself. An answer that fails
after a comment can only fail inside its stream, because the status 200 is sent.

Needs the simulated engine.
"""

from pytest_llmchaos import arm, experiment, faults, loads

pytestmark = experiment(
    load=loads.open_loop(rate_rps=24, prompts="short-chat", max_tokens=16, idle_timeout_s=0.5),
    fault=faults.late_first_token(["model-1", "model-2"], delay_s=0.9),
    steady_s=4,
    fault_s=4,
    settle_within_s=20,
    stable_s=2,
    remediator=False,
    simulated_engine=True,
    arms={
        "on": arm(environment={"api": {"LAB_KEEPALIVE_S": "0.1"}}),
        "off": arm(environment={"api": {"LAB_KEEPALIVE_S": "0.1", "LAB_KEEPALIVE": "off"}}),
    },
)


def test_late_answers_are_waited_for(arms):
    assert arms.during_fault.availability.low >= 0.5
    assert arms["on"].during_fault.availability >= 0.95


def test_a_healthy_system_pays_nothing(arms):
    assert arms.before_fault.ttft_s.p50.high <= 0.005
