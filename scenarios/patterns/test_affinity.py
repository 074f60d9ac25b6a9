"""Affinity lets each replica cache its half of the beginnings, not a part of them all.

It does not help if beginnings do not repeat, or if one replica's cache holds them all.

Needs the simulated engine.
"""

from pytest_llmchaos import arm, experiment, faults, loads

# The eight documents take 200 blocks. A replica caches its half and those in flight. A
# document that is not cached takes 25 steps of 5 ms.
ENGINE = {"LAB_KV_BLOCKS": "125", "LAB_MAX_MODEL_TOKENS": "512", "LAB_BATCH_TOKENS": "16"}
ENGINES = {"model-1": ENGINE, "model-2": ENGINE}

pytestmark = experiment(
    load=loads.open_loop(rate_rps=16, prompts="documents.txt", max_tokens=8),
    fault=faults.none(),
    steady_s=8,  # the first arm begins with empty caches
    fault_s=6,
    stable_s=2,
    remediator=False,
    simulated_engine=True,
    arms={
        "on": arm(environment={"api": {"LAB_AFFINITY": "on"}, **ENGINES}),
        "off": arm(environment=ENGINES),
    },
)


def test_documents_stay_in_the_cache(arms):
    assert arms.during_fault.ttft_s.at(0.8).ratio.high <= 0.5


def test_a_healthy_system_pays_nothing(arms):
    assert arms.before_fault.ttft_s.p50.high <= 0.005
