"""A healthy service is left alone through a burst: no restart, no page.

A remediator's action or a page without a fault refutes a control arm, including one
from before the trial. Needs the simulated engine.
"""

from pytest_llmchaos import experiment, faults, loads

control = experiment(
    load=loads.burst(base_rps=10, burst_rps=24, after_s=6, burst_s=4, prompts="short-chat", max_tokens=48),
    fault=faults.none(),
    steady_s=4,
    stable_s=8,
    simulated_engine=True,
)


@control
def test_nothing_is_repaired(trial):
    assert trial.actions == ()
    assert trial.restarts == {}
    assert trial.replicas.all_serve


@control
def test_nothing_pages(trial):
    assert trial.alerts == ()


@control
def test_a_burst_within_the_capacity_is_served(trial):
    assert trial.failed == 0
    assert trial.whole.ttft_s.p50 <= 0.2
    assert trial.whole.ttft_s.p95 <= 1
    assert trial.attempts_per_request <= 1.05
