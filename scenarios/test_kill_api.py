"""A lost API is detected in 5 s, repaired in 20 s, and costs under 10 s of answers."""

from pytest_llmchaos import experiment, faults, loads

LOAD = loads.open_loop(rate_rps=12, prompts="short-chat", max_tokens=64)
LIGHT = loads.open_loop(rate_rps=2, prompts="short-chat", max_tokens=8)  # for a real model on two cores

pytestmark = experiment(load=LOAD, light_load=LIGHT, fault=faults.kill("api"), steady_s=8, repair_within_s=40)
unrepaired = experiment(
    load=LOAD, light_load=LIGHT, fault=faults.kill("api"), steady_s=4, repair_within_s=8, remediator=False
)
control = experiment(load=LOAD, light_load=LIGHT, fault=faults.none(), steady_s=4)


def test_kill_api_is_detected(trial):
    assert trial.time_to_detect_s <= 5
    assert trial.rule("api-exited").after_s <= 3  # the rule for a silent process acts at 5 s


def test_kill_api_is_repaired_by_the_remediator(trial):
    assert trial.time_to_recover_s <= 20
    assert trial.repaired_by == "remediator"
    assert {action.rule for action in trial.actions if action.service == "api"} == {"api-exited"}


def test_kill_api_is_an_incident_that_ends(trial):
    assert {incident.ended for incident in trial.incidents if incident.service == "api"} == {True}


def test_kill_api_costs_little(trial):
    assert trial.slo("availability").bad_s <= 10  # seconds of the offered load, by Prometheus
    assert trial.silently_truncated == 0  # by the clients' samples


@unrepaired
def test_a_lost_api_that_nothing_repairs_pages(trial):
    assert trial.alert("ServiceDown", "api").after_s <= 5
    assert trial.alert("ServiceDown", "api").severity == "page"
    assert trial.alert("AvailabilityFastBurn").after_s <= 8
    assert trial.alert("AvailabilityFastBurn").severity == "page"


@control
def test_without_a_fault_nothing_happens(trial):
    assert trial.failed == 0
    assert trial.alerts == ()
    assert trial.actions == ()
    assert trial.whole.ttft_s.p95 <= 2
    assert trial.attempts_per_request <= 1.05
