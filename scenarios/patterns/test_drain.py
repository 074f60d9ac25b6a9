"""A gateway that drains lets its open streams end.

It does not help against SIGKILL, or for answers longer than the time to drain.

Needs the simulated engine.
"""

from pytest_llmchaos import arm, experiment, faults, loads

pytestmark = experiment(
    load=loads.open_loop(rate_rps=24, prompts="short-chat", max_tokens=64),
    fault=faults.stop("api"),
    steady_s=4,
    repair_within_s=30,
    stable_s=2,
    remediator=True,
    simulated_engine=True,
    arms={
        "on": arm(),
        "off": arm(environment={"api": {"LAB_DRAIN": "off"}}),
    },
)


BROKEN = ("truncated", "cut", "stalled", "inband_error", "corrupted")


def test_a_stopped_gateway_lets_its_streams_end(arms):
    assert all(arms["on"].whole.count_of(name) == 0 for name in BROKEN)
    assert any(arms["off"].whole.count_of(name) >= 2 for name in BROKEN)


def test_a_healthy_system_pays_nothing(arms):
    assert arms.before_fault.ttft_s.p50.high <= 0.005
