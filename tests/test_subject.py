"""What is under test: a backend that exists, and files that are where they are said to be."""

import pytest

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.subject import BACKENDS, dashboards_dir, lab_subject, stack_dir


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_file_of_a_backend_s_stack_is_there(backend):
    subject = lab_subject(backend)

    assert [file for file in (*subject.compose_files, subject.slo_file, subject.bootstrap) if not file.is_file()] == []
    assert 0 < subject.capacity_tokens_per_s <= subject.peak_tokens_per_s
    assert ("LLMCHAOS_BACKEND", backend) in subject.extra_env


def test_an_unknown_backend_names_those_there_are():
    with pytest.raises(BadScenario, match="must be one of ollama, llamacpp, sim, got 'gpt'"):
        lab_subject("gpt")


def test_the_stack_and_its_dashboards_are_found():
    assert (stack_dir() / "compose.yaml").is_file()
    assert list(dashboards_dir().glob("*.json"))
