"""Sessions with a service behind the gateway that takes TLS only."""

from __future__ import annotations

import pytest
from support import sessions, tiny_stack
from support.docker_agents import TLS_SERVER
from support.stacks import require

pytestmark = [pytest.mark.stack, pytest.mark.timeout(120)]

COMPOSE = """
  vault:
    <<: *service
    entrypoint: ["python3", "-S", "/vault.py"]
    volumes: ["./vault.py:/vault.py:ro"]
    expose: ["8443"]
"""
SHOWN = """
    healthcheck: {test: ["CMD", "curl", "-kf", "https://localhost:8443/"], interval: 1h}
"""


@pytest.fixture
def tiny(tmp_path):
    require("sim")
    made = tiny_stack.make(tmp_path / "user", tiny_stack.image())
    (made.folder / "vault.py").write_text(TLS_SERVER)
    made.scenario("reading", 'flaky("vault")', tiny_stack.PASSING)
    ini = made.folder / "pytest.ini"
    ini.write_text(ini.read_text().replace("llmchaos_targets = desk", "llmchaos_targets = desk vault"))
    return made


def declare(tiny, text):
    compose = tiny.folder / "compose.yaml"
    compose.write_text(compose.read_text() + text)


def test_a_trial_is_refused_before_its_load_by_what_the_service_answers(tiny):
    declare(tiny, COMPOSE)

    status, said = tiny.run()

    assert status == pytest.ExitCode.TESTS_FAILED, said
    assert "has to read requests of vault as HTTP/1 without TLS, and vault takes TLS on port 8443: choose" in said
    lines = sessions.lines(tiny.reports)
    assert "intent" not in {line["kind"] for line in lines}
    assert [line["verdict"] for line in lines if line["kind"] == "judged"] == ["invalid"]


def test_a_session_is_refused_before_the_start_by_the_services_settings(tiny):
    declare(tiny, COMPOSE + SHOWN)

    status, said = tiny.run()

    assert status == pytest.ExitCode.USAGE_ERROR, said
    assert "and vault takes TLS on port 8443 (its health check requests https://localhost:8443): choose" in said
    assert sessions.lines(tiny.reports) == []


def test_the_plan_names_the_scenario(tiny):
    declare(tiny, COMPOSE + SHOWN)

    _, said = tiny.run("--chaos-plan")

    assert "reading: flaky(status=503, share=0.3) vault at +0 s" in said
    assert "not ready: scenario 'reading': flaky vault has to read requests of vault as HTTP/1 without TLS" in said
