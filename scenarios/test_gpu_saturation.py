"""A neighbour on both GPUs delays answers, loses none, and is detected in 20 s.

It takes 98 % of the GPUs' time. The remediator restarts nothing, and the service is
back to normal within 15 s after. The burn rate of the latency objective detects it:
soon after a quiet start, and at the latest when its 15 s window lies within the fault.
The load stays below the gateway's admission limit, so clients meet a slow GPU and not a
full queue (the arithmetic is in tests/test_scenario_strengths.py). Needs the simulated
engine.
"""

from pytest_llmchaos import experiment, faults, loads

LOAD = loads.open_loop(rate_rps=2, prompts="short-chat", max_tokens=16)

pytestmark = experiment(
    load=LOAD,
    fault=faults.together(faults.gpu_saturation("model-1", share=0.98), faults.gpu_saturation("model-2", share=0.98)),
    steady_s=5,
    fault_s=25,
    settle_within_s=40,
)
control = experiment(load=LOAD, fault=faults.none(), steady_s=5, simulated_engine=True)


def test_gpu_saturation_is_detected(trial):
    assert trial.alert("LatencyP95FastBurn").after_s <= 20


def test_gpu_saturation_needs_no_restart(trial):
    assert trial.actions == ()
    assert trial.restarts == {}


def test_gpu_saturation_loses_no_request(trial):
    assert trial.slo("availability").bad_s <= 1
    assert trial.attempts_per_request <= 1.05
    assert trial.silently_truncated == 0


def test_clients_wait_longer_and_not_too_long(trial):
    assert trial.during_fault.e2e_s.p50 > 2 * trial.before_fault.e2e_s.p50  # or the fault did not reach them
    assert trial.during_fault.e2e_s.p95 <= 10


def test_the_service_is_back_to_normal_within_15_s(trial):
    assert trial.time_to_settle_s <= 15


@control
def test_without_a_fault_nothing_happens(trial):
    assert trial.failed == 0
    assert trial.alerts == ()
    assert trial.actions == ()
    assert trial.whole.ttft_s.p50 <= 0.2
    assert trial.whole.ttft_s.p95 <= 1
    assert trial.attempts_per_request <= 1.05
