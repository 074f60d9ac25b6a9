"""Cancelled work for clients who left leaves the places to those who wait.

Most clients leave early, and the engines become three times slower. Then the places are
too few for the whole answers of all.

It does not help if clients stay, or if those who stay are already too many.

Needs the simulated engine.
"""

from pytest_llmchaos import arm, experiment, faults, loads

pytestmark = experiment(
    load=loads.open_loop(rate_rps=16, prompts="short-chat", max_tokens=128, patience_s=0.2, impatient_ratio=0.6),
    fault=faults.cpu_fallback(["model-1", "model-2"], slowdown=3),
    steady_s=6,
    fault_s=8,
    settle_within_s=20,
    stable_s=2,
    remediator=False,
    simulated_engine=True,
    arms={
        "on": arm(environment={"api": {"LAB_CONCURRENCY": "12"}}),
        "off": arm(environment={"api": {"LAB_CONCURRENCY": "12", "LAB_CANCEL": "off"}}),
    },
)


def test_clients_who_stay_get_the_places_of_those_who_left(arms):
    assert arms.during_fault.ttft_s.p50.high <= -0.3
    assert arms["on"].during_fault.ttft_s.p50 <= 0.1


def test_a_healthy_system_pays_nothing(arms):
    assert arms.before_fault.ttft_s.p50.high <= 0.005
