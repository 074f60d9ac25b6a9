"""A user's own stack as processes: started, scraped, wired, ended.

Needs no Docker.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
from support.waiting import until

from pytest_llmchaos.host import identity
from pytest_llmchaos.host.http_client import request
from pytest_llmchaos.prometheus.queries import Prometheus
from pytest_llmchaos.runtime.local import cleanup
from pytest_llmchaos.runtime.local.runtime import LocalRuntime
from pytest_llmchaos.session import own_checks
from pytest_llmchaos.session.own_checks import Problems
from pytest_llmchaos.subject.lab import stack_dir
from pytest_llmchaos.subject.own_stack import OwnKeys, own_subject

pytestmark = [pytest.mark.stack, pytest.mark.timeout(180), pytest.mark.usefixtures("local_programs")]

COMPOSE = """
services:
  engine:
    command: [python3, -m, lab_engine]
    environment:
      PYTHONPATH: /engine
      LAB_HOST: 0.0.0.0
      LAB_PORT: ${LLMCHAOS_PORT_8080:-8080}
      LAB_ADMIN_PORT: ${LLMCHAOS_PORT_8081:-8081}
    volumes: ["STACK/services:/engine:ro"]
    healthcheck: {test: [CMD, curl, "http://127.0.0.1:8080/health"]}
"""


@pytest.fixture
def runtime(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "compose.yaml").write_text(COMPOSE.replace("STACK", str(stack_dir())))
    keys = OwnKeys(compose=("compose.yaml",), api="engine:8080", targets=("engine",), metrics=("engine:8080",))
    problems = Problems()
    subject = own_checks.examine(own_subject(keys, tmp_path), problems, local=True)
    problems.require_none()
    project = f"llmchaos-test-{os.getpid()}-own"
    runtime = LocalRuntime(
        subject, project=project, run="test", owner=identity.owner_label(), directory=tmp_path, wire=["engine"]
    )
    runtime.prepare()
    try:
        yield runtime
    finally:
        runtime.down()


def served(runtime):
    answer = request("GET", f"{runtime.url('engine')}/v1/models", timeout_s=5)
    return [one["id"] for one in answer.json()["data"]]


def test_an_own_stack_runs_and_dies_as_processes(runtime):
    runtime.up()
    prometheus = Prometheus(runtime.url(runtime.subject.prometheus))

    until(lambda: prometheus.vector('up{job="engine"} == 1', time.time(), may_be_empty=True), "a scraped engine", 15)
    assert request("GET", f"{runtime.url('engine')}/health", timeout_s=5).status_code == 200
    assert runtime.wire_open("engine") is not None

    runtime.configure({"engine": {"LAB_MODEL": "other"}})
    assert served(runtime) == ["other"]
    assert runtime.wire_open("engine") is not None
    runtime.configure({})
    assert served(runtime) == ["smollm2:135m"]

    runtime.kill("engine")
    until(lambda: not runtime.state("engine").running, "a dead engine")
    runtime.restart("engine")
    runtime.wait_healthy(["engine"], 20)
    assert runtime.state("engine").running

    runtime.down()
    assert not cleanup.processes_of(runtime.project)
