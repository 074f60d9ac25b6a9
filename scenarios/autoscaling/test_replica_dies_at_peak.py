"""An autoscaler replaces a replica that dies while all are needed.

No remediator runs. After a replica has been dead for 2 s the autoscaler starts it. One
that waits for a repair by another program serves the peak with too few.

Needs the simulated engine.
"""

from pytest_llmchaos import arm, experiment, faults, loads

SMALL = {"api": {"LAB_CONCURRENCY": "2"}}
QUICK = {"LAB_SLOTS": "2", "LAB_SYNC_S": "1", "LAB_WINDOW_S": "5"}
POLICY = "fixed(3)"

pytestmark = experiment(
    # Three replicas serve it, two do not.
    load=loads.open_loop(rate_rps=4.8, prompts="short-chat", max_tokens=192),
    fault=faults.kill("model-1"),
    steady_s=6,
    repair_within_s=25,
    stable_s=3,
    remediator=False,
    simulated_engine=True,
    arms={
        "replaces": arm(autoscaler=POLICY, environment={**SMALL, "autoscaler": {**QUICK, "LAB_REPAIR_S": "2"}}),
        "waits": arm(autoscaler=POLICY, environment={**SMALL, "autoscaler": {**QUICK, "LAB_REPAIR_S": "600"}}),
    },
)


def test_the_dead_replica_is_replaced(arms):
    assert arms["replaces"].time_to_recover_s <= 20
    assert arms["replaces"].whole.goodput_ratio >= 0.85
    assert arms["waits"].recover.took_s is None
    assert arms["waits"].whole.goodput_ratio <= 0.7


def test_a_death_is_no_scaling(arms):
    assert arms["replaces"].flaps == 0
    assert arms["replaces"].max_replicas == 3
