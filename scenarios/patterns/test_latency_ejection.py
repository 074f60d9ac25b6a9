"""A replica whose first tokens are late is ejected, although it fails nothing.

It does not help if all replicas are equally slow, or if a replica is late for a few
requests only.

Needs the simulated engine.
"""

from pytest_llmchaos import arm, experiment, faults, loads

pytestmark = experiment(
    load=loads.open_loop(rate_rps=40, prompts="short-chat", max_tokens=8),
    fault=faults.late_first_token("model-1", delay_s=1.5),
    steady_s=4,
    fault_s=8,
    settle_within_s=20,
    stable_s=2,
    remediator=False,
    simulated_engine=True,
    arms={
        "on": arm(),
        "off": arm(environment={"api": {"LAB_LATENCY_EJECTION": "off"}}),
    },
)


def test_a_slow_replica_is_left_out(arms):
    assert arms.during_fault.ttft_s.p95.ratio.high <= 0.8


def test_a_healthy_system_pays_nothing(arms):
    assert arms.before_fault.ttft_s.p50.high <= 0.005
