"""A half-open breaker tries a bad replica with one request, not with all of its load.

It does not shorten the time until a good replica is back: it makes a bad one cheaper to
try.

Needs the simulated engine.
"""

from pytest_llmchaos import arm, experiment, faults, loads

pytestmark = experiment(
    load=loads.open_loop(rate_rps=80, prompts="short-chat", max_tokens=8),
    fault=faults.flaky("model-1", status=503, share=1.0),
    steady_s=4,
    fault_s=8,
    settle_within_s=20,
    stable_s=2,
    remediator=False,
    simulated_engine=True,
    arms={
        "on": arm(environment={"api": {"LAB_RETRY": "off", "LAB_EJECT_S": "0.5"}}),
        "off": arm(environment={"api": {"LAB_RETRY": "off", "LAB_EJECT_S": "0.5", "LAB_HALF_OPEN": "off"}}),
    },
)


def test_a_bad_replica_gets_single_trials(arms):
    assert arms.during_fault.availability.low > 0


def test_a_healthy_system_pays_nothing(arms):
    assert arms.before_fault.ttft_s.p50.high <= 0.005
