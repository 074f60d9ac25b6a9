"""A gateway that fails open notices first that its replicas are good again.

It does not help while the replicas are really bad: then each request fails a little
later.

Needs the simulated engine.
"""

from pytest_llmchaos import arm, experiment, faults, loads

pytestmark = experiment(
    load=loads.open_loop(rate_rps=24, prompts="short-chat", max_tokens=16),
    fault=faults.flaky(["model-1", "model-2"], status=503, share=1.0),
    steady_s=4,
    fault_s=8,
    settle_within_s=20,
    stable_s=2,
    remediator=False,
    simulated_engine=True,
    arms={
        "on": arm(environment={"api": {"LAB_EJECT_S": "6"}}),
        "off": arm(environment={"api": {"LAB_EJECT_S": "6", "LAB_FAIL_OPEN": "off"}}),
    },
)


def test_the_service_is_back_as_soon_as_its_replicas(arms):
    assert arms.after_fault.availability.low >= 0.2


def test_a_healthy_system_pays_nothing(arms):
    assert arms.before_fault.ttft_s.p50.high <= 0.005
