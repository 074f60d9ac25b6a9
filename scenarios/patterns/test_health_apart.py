"""A gateway whose health is its own is not restarted for its replicas' failure.

Both replicas die. The remediator has the rules of a liveness probe, which restarts what
reports itself unhealthy. It runs dry, so it records what it would restart.

It does not bring the replicas back: it saves a restart that repairs nothing.

Needs the simulated engine.
"""

from pytest_llmchaos import arm, experiment, faults, loads

LIVENESS = {"LAB_RULES_FILE": "/etc/remediator/liveness.yaml", "LAB_DRY_RUN": "1"}

pytestmark = experiment(
    load=loads.open_loop(rate_rps=24, prompts="short-chat", max_tokens=16),
    fault=faults.kill(["model-1", "model-2"]),
    steady_s=4,
    repair_within_s=8,
    stable_s=2,
    remediator=True,
    simulated_engine=True,
    arms={
        "on": arm(environment={"remediator": LIVENESS}),
        "off": arm(environment={"remediator": LIVENESS, "api": {"LAB_HEALTH_APART": "off"}}),
    },
)


def test_no_gateway_is_restarted_for_its_replicas(arms):
    assert not any(one.service == "api" for one in arms["on"].incidents)
    assert any(one.service == "api" for one in arms["off"].incidents)


def test_a_healthy_system_pays_nothing(arms):
    assert arms.before_fault.ttft_s.p50.high <= 0.005
