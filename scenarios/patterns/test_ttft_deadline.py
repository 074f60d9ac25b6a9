"""A deadline for a try's first token turns a hung replica into a short delay.

It does not help if every replica hangs, and a deadline below the time of long prompts
ends good answers.

Needs the simulated engine.
"""

from pytest_llmchaos import arm, experiment, faults, loads

pytestmark = experiment(
    load=loads.open_loop(rate_rps=48, prompts="short-chat", max_tokens=8),
    fault=faults.late_first_token("model-1", delay_s=6),
    steady_s=4,
    fault_s=8,
    settle_within_s=20,
    stable_s=2,
    remediator=False,
    simulated_engine=True,
    arms={
        "on": arm(
            environment={"api": {"LAB_CONCURRENCY": "64", "LAB_TTFT_TIMEOUT_S": "0.4", "LAB_LATENCY_EJECTION": "off"}}
        ),
        "off": arm(
            environment={
                "api": {
                    "LAB_CONCURRENCY": "64",
                    "LAB_TTFT_TIMEOUT_S": "0.4",
                    "LAB_TTFT_DEADLINE": "off",
                    "LAB_LATENCY_EJECTION": "off",
                }
            }
        ),
    },
)


def test_answers_of_a_hung_replica_come_from_another(arms):
    assert arms.during_fault.ttft_s.p95.ratio.high <= 0.3


def test_a_healthy_system_pays_nothing(arms):
    assert arms.before_fault.ttft_s.p50.high <= 0.005
