"""The subject: existing backends, and files at their paths."""

import sys
from dataclasses import replace

import pytest

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.subject import lab as subject
from pytest_llmchaos.subject.lab import BACKENDS, dashboards_dir, lab_subject, scenarios_dir, setup_command, stack_dir


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_file_of_a_backend_s_stack_is_there(backend):
    lab = lab_subject(backend)

    assert [file for file in (*lab.compose_files, lab.slo_file, lab.bootstrap) if not file.is_file()] == []
    assert 0 < lab.capacity_tokens_per_s <= lab.peak_tokens_per_s
    assert ("LLMCHAOS_BACKEND", backend) in lab.extra_env


def test_monitoring_may_be_hit_by_name_and_is_no_target_that_trials_wait_for():
    lab = lab_subject("sim")

    assert lab.targets == ("api", "model-1", "model-2")
    assert lab.may_hit == ("api", "model-1", "model-2", "remediator", "prometheus", "pushgateway")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_lab_with_agents_has_two_services_more_and_is_otherwise_the_same(backend):
    plain, lab = lab_subject(backend), lab_subject(backend, agents=True)
    more = {
        "compose_files": (stack_dir() / "compose.agents.yaml",),
        "targets": ("agent", "desk"),
        "ports": (("agent", "LLMCHAOS_AGENT_PORT", 8200), ("desk", "LLMCHAOS_DESK_PORT", 8100)),
        "scrape_jobs": ("agent", "desk"),
        "known_rules": ("agent-exited", "desk-exited"),
    }

    assert (plain.agents, plain.ledger) == (None, None)
    assert (lab.agents.service, lab.ledger.service, lab.ledger.path) == ("agent", "desk", "/ledger")
    for name, added in more.items():
        assert getattr(lab, name) == (*getattr(plain, name), *added), name
    assert replace(lab, agents=None, ledger=None, **{name: getattr(plain, name) for name in more}) == plain
    assert all(file.is_file() for file in lab.compose_files)


def test_a_lab_with_an_autoscaler_has_replicas_that_rest():
    plain, lab = lab_subject("sim"), lab_subject("sim", scales=True)

    assert (plain.autoscaler, plain.spare, plain.resting) == (None, (), ())
    assert (lab.autoscaler, lab.spare) == ("autoscaler", ("model-3", "model-4"))
    assert lab.resting == ("model-3", "model-4", "autoscaler")
    assert lab.may_hit == (*plain.may_hit, "autoscaler", "model-3", "model-4")
    lab.for_scaling()
    with pytest.raises(BadScenario, match=r"the stack lacks it: the lab has one if an experiment of the session has"):
        plain.for_scaling()
    with pytest.raises(BadScenario, match=r"llmchaos reads no autoscaler of a stack of one's own"):
        replace(plain, own=True).for_scaling()


def test_an_unknown_backend_names_those_there_are():
    with pytest.raises(BadScenario, match="must be one of ollama, llamacpp, sim, got 'gpt'"):
        lab_subject("gpt")


def test_the_stack_its_dashboards_and_its_scenarios_are_found():
    assert (stack_dir() / "compose.yaml").is_file()
    assert list(dashboards_dir().glob("*.json"))
    assert (scenarios_dir() / "test_kill_api.py").is_file()


def test_a_checkout_is_set_up_by_its_makefile(tmp_path, monkeypatch):
    (tmp_path / "Makefile").touch()
    monkeypatch.setattr(subject, "stack_dir", lambda: tmp_path / "stack")

    assert [setup_command(), setup_command("sim")] == ["make setup", "make setup BACKEND=sim"]


def test_what_a_wheel_brought_is_set_up_by_the_program_it_brought(tmp_path, monkeypatch):
    monkeypatch.setattr(subject, "stack_dir", lambda: tmp_path / "_stack")
    monkeypatch.setattr(sys, "executable", "/a python")

    assert setup_command("sim") == f"'/a python' {tmp_path}/_stack/bootstrap.py all --backend sim"
