"""Environment variables of services, set before a load."""

import pytest
from support.clock import Clock
from support.fake_lab import fake_lab

from pytest_llmchaos import arm, experiment, faults, loads
from pytest_llmchaos.errors import InvalidExperiment, NotReady, Unsupported
from pytest_llmchaos.evidence.journal import read
from pytest_llmchaos.host import measurement_lock
from pytest_llmchaos.lab import lab as labs
from pytest_llmchaos.lab.variables import configure
from pytest_llmchaos.plan.schedule import plan_trial
from pytest_llmchaos.trial.perform import perform

OFF = {"api": {"LAB_BREAKER": "off"}}


@pytest.fixture
def lab(tmp_path, monkeypatch):
    monkeypatch.setattr(measurement_lock, "slot_file", lambda name: tmp_path / f"{name}.lock")
    with fake_lab(tmp_path, Clock()) as made:
        made.calls = []
        monkeypatch.setattr(made.runtime, "configure", made.calls.append)
        yield made


def test_services_are_configured_if_their_variables_change_and_only_then(lab):
    for environment in ({}, OFF, OFF, dict(OFF), {}, {}):
        configure(lab, environment)

    assert lab.calls == [OFF, {}]


def test_after_a_failure_they_are_configured_again(lab, monkeypatch):
    def fail(_):
        raise NotReady("api does not become healthy")

    with monkeypatch.context() as patch:
        patch.setattr(lab.runtime, "configure", fail)
        with pytest.raises(NotReady, match="api does not become healthy"):
            configure(lab, OFF)
    configure(lab, {})

    assert lab.calls == [{}]


DRY = {"remediator": {"LAB_DRY": "1"}}


@pytest.mark.parametrize(
    ("present", "environment"),
    [({}, OFF), ({}, DRY), (DRY, DRY | OFF)],
    ids=["another", "itself", "another, as before"],
)
def test_the_remediator_does_not_run_while_services_restart(lab, monkeypatch, present, environment):
    lab.environment = present
    lab.remediator.ensure(True)
    monkeypatch.setattr(lab.runtime, "configure", lambda _: lab.calls.append(lab.remediator.running))

    configure(lab, environment)

    assert lab.calls == [False]


def test_what_a_restart_causes_is_explained(lab, monkeypatch):
    spells = []
    monkeypatch.setattr(lab.reasons, "add", lambda *_, alerts_alone: spells.append(alerts_alone))

    configure(lab, OFF)

    assert spells == [True]


def test_a_runtime_without_the_ability_is_named(lab):
    lab.runtime.abilities -= {"configure"}
    configure(lab, {})

    with pytest.raises(Unsupported, match="the fake runtime cannot configure, which environment variables of an arm"):
        configure(lab, OFF)


class Refused(Exception):
    """The load's start."""


def refuse(*_, **__):
    raise Refused


@pytest.mark.parametrize(("name", "configured"), [("off", [OFF]), ("on", [])])
def test_a_trial_configures_services_before_its_load_and_the_next_load_restores_them(
    lab, monkeypatch, name, configured
):
    monkeypatch.setattr(labs, "RunningLoad", refuse)
    load, fault = loads.open_loop(rate_rps=2), faults.kill("api")
    made = experiment(load=load, fault=fault, arms={"on": arm(), "off": arm(environment=OFF)}).kwargs["experiment"]
    about = {"scenario": "s", "hypothesis": "", "experiment": made, "fault": fault, "repeat": 0, "seed": 1}
    plan = plan_trial(**about, services=lab.subject.targets, arm=name)

    with pytest.raises(Refused):
        perform(lab, plan)
    assert lab.calls == configured
    with pytest.raises(Refused), lab.load(load):
        pytest.fail("without a load")
    assert lab.calls == configured + [{}] * len(configured)


def test_a_trial_whose_services_cannot_be_configured_is_journalled_with_the_reason(lab, monkeypatch):
    def fail(_):
        raise InvalidExperiment("api does not start")

    monkeypatch.setattr(lab.runtime, "configure", fail)
    fault = faults.kill("api")
    made = experiment(
        load=loads.open_loop(rate_rps=2), fault=fault, arms={"on": arm(), "off": arm(environment=OFF)}
    ).kwargs["experiment"]
    about = {"scenario": "s", "hypothesis": "", "experiment": made, "fault": fault, "repeat": 0, "seed": 1}

    performed = perform(lab, plan_trial(**about, services=lab.subject.targets, arm="off"))

    assert str(performed.error) == "api does not start"
    judged = [line for line in read(lab.journal.path) if line["kind"] == "judged"]
    assert [(one["arm"], one["environment"], one["verdict"]) for one in judged] == [("off", OFF, "invalid")]
