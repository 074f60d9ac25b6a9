"""A stream that stops in the middle is ended with an error after 5 s, pings or not.

The connection stays open, and comments keep it busy. The gateway counts tokens only.
The engine behind it goes on, so nothing is restarted. Needs the simulated engine.
"""

from pytest_llmchaos import experiment, faults, loads

LOAD = loads.open_loop(rate_rps=12, prompts="short-chat", max_tokens=64)
pytestmark = experiment(
    load=LOAD,
    fault=faults.stall("model-1", after_tokens=3, keep_alive_s=1),
    steady_s=4,
    fault_s=24,
    settle_within_s=30,
    simulated_engine=True,
)
control = experiment(load=LOAD, fault=faults.none(), steady_s=4, simulated_engine=True)


def test_stalled_streams_are_detected(trial):
    assert trial.alert("RequestStuck", "model-1").after_s <= 8
    assert trial.alert("StreamCompletenessFastBurn").after_s <= 12


def test_no_client_is_left_hanging(trial):
    assert trial.whole.count_of("inband_error") >= 5  # or the fault did not reach clients
    assert trial.whole.count_of("stalled") == 0
    assert trial.whole.count_of("timeout") == 0
    assert trial.silently_truncated == 0


def test_few_clients_are_hit(trial):
    """A stalled replica keeps its eight places busy and gets no more requests."""
    assert trial.during_fault.availability >= 0.8
    assert trial.attempts_per_request <= 1.2


def test_an_engine_that_goes_on_is_not_restarted(trial):
    assert trial.actions == ()
    assert trial.time_to_settle_s <= 20
    assert trial.replicas.all_serve


@control
def test_without_a_fault_nothing_happens(trial):
    assert trial.failed == 0
    assert trial.alerts == ()
    assert trial.actions == ()
    assert trial.whole.ttft_s.p50 <= 0.2
    assert trial.whole.ttft_s.p95 <= 1
    assert trial.attempts_per_request <= 1.05
