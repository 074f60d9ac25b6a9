"""A flood of 2.5 times the capacity is shed, and admitted requests stay within bounds.

The gateway answers what it cannot serve with 429 or 503 at once. The remediator
restarts no busy service, and the service is back to normal within 30 s after. The
backend's peak throughput sets the size of the flood, so the trial's own clients stay
light, as a real model needs.
"""

from pytest_llmchaos import experiment, faults, loads

LOAD = loads.open_loop(
    rate_rps=2, prompts="short-chat", max_tokens=8, latency_targets=loads.LatencyTargets(ttft_s=8, e2e_s=10)
)

pytestmark = experiment(
    load=LOAD,
    fault=faults.overload("api", times=2.5),
    steady_s=8,
    fault_s=20,
    settle_within_s=45,
)
control = experiment(load=LOAD, fault=faults.none(), steady_s=4)


def test_saturation_is_detected(trial):
    assert trial.alert("QueueBacklog").after_s <= 15


def test_what_cannot_be_served_is_refused_and_not_left_hanging(trial):
    hanging = {
        name: count for name, count in trial.during_fault.outcomes.items() if name not in {"ok", "http_429", "http_5xx"}
    }
    assert not any(hanging.values())


def test_every_refusal_has_a_retry_after(trial):
    assert trial.during_fault.without_retry_after == 0


def test_admitted_requests_stay_inside_their_bounds(trial):
    assert trial.during_fault.good >= 0.95 * trial.during_fault.ok
    assert trial.attempts_per_request <= 1.1


def test_a_busy_service_is_not_restarted(trial):
    assert trial.actions == ()
    assert trial.restarts == {}


def test_the_service_is_back_to_normal_within_30_s(trial):
    assert trial.time_to_settle_s <= 30


@control
def test_without_a_fault_nothing_happens(trial):
    assert trial.failed == 0
    assert trial.alerts == ()
    assert trial.actions == ()
    assert trial.whole.ttft_s.p95 <= 2
    assert trial.attempts_per_request <= 1.05
