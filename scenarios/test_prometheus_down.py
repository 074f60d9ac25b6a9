"""Without Prometheus, the remediator touches nothing, and clients are served.

Prometheus is frozen, and a replica dies while it is. What only Prometheus counts is
inconclusive then and never held. When it goes on, it reports the time that it missed.
The remediator writes into its audit log that it is blind. Needs the simulated engine.
"""

import pytest

from pytest_llmchaos import experiment, faults, loads
from pytest_llmchaos.errors import Inconclusive

LOAD = loads.open_loop(rate_rps=12, prompts="short-chat", max_tokens=64)
FROZEN = faults.pause("prometheus")

alone = experiment(load=LOAD, fault=FROZEN, steady_s=4, fault_s=8, settle_within_s=30, simulated_engine=True)
# The replica dies when the last answers of Prometheus are too old to count.
in_trouble = experiment(
    load=LOAD,
    fault=faults.sequence(FROZEN, then=faults.kill("model-1"), after_s=5),
    steady_s=4,
    fault_s=8,
    settle_within_s=30,
    blast_radius=2,
    simulated_engine=True,
)
control = experiment(load=LOAD, fault=faults.none(), steady_s=4, simulated_engine=True)


@alone
def test_what_only_prometheus_counts_is_inconclusive(trial):
    with pytest.raises(Inconclusive, match="hit prometheus"):
        assert trial.slo("availability").met
    with pytest.raises(Inconclusive, match="hit prometheus"):
        assert "RequestStuck" not in trial.alerts
    with pytest.raises(Inconclusive, match="hit prometheus"):
        assert trial.attempts_per_request <= 1.05


@alone
def test_prometheus_reports_that_it_saw_nothing(trial):
    """It fires the alert when it goes on, after 8 s. That an alert fired is a fact."""
    alert = trial.alert("PrometheusMissingRuleEvaluations", "prometheus")
    assert alert.after_s <= 14
    assert alert.severity == "ticket"


@alone
def test_clients_notice_nothing(trial):
    assert trial.failed == 0
    assert trial.whole.ttft_s.p95 <= 1


@alone
def test_a_blind_remediator_records_it_and_touches_nothing(trial):
    assert any(one.source == "remediator" and one.what.startswith("blind") for one in trial.events)
    assert trial.actions == ()
    assert trial.restarts == {}


@in_trouble
def test_a_blind_remediator_does_not_guess(trial):
    """The dead replica stays dead while nothing but the runtime shows it."""
    assert any(one.source == "remediator" and one.what.startswith("blind") for one in trial.events)
    assert trial.actions == ()
    assert trial.restarts == {}


@in_trouble
def test_prometheus_reports_it_in_trouble_too(trial):
    """It goes on after 13 s: the second fault lasts for 8 s too."""
    assert trial.alert("PrometheusMissingRuleEvaluations", "prometheus").after_s <= 20


@in_trouble
def test_the_other_replica_serves_meanwhile(trial):
    assert trial.during_fault.availability >= 0.95
    assert trial.silently_truncated == 0


@control
def test_without_a_fault_nothing_happens(trial):
    assert trial.failed == 0
    assert trial.alerts == ()
    assert trial.actions == ()
    assert trial.whole.ttft_s.p50 <= 0.2
    assert trial.whole.ttft_s.p95 <= 1
    assert trial.attempts_per_request <= 1.05
