"""A user's engine with a server's own names, as processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import sessions
from support.stacks import ROOT

from pytest_llmchaos.subject.lab import stack_dir

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
      LAB_METRICS: SERVER
    volumes: ["STACK/services:/engine:ro"]
    healthcheck: {test: [CMD, curl, "http://127.0.0.1:8080/health"]}
"""
INI = """[pytest]
addopts = -p no:randomly -p no:cacheprovider
llmchaos_runtime = local
llmchaos_compose = compose.yaml
llmchaos_api = engine:8080
llmchaos_targets = engine
llmchaos_metrics = engine:8080
llmchaos_model = smollm2:135m
llmchaos_slo = slo.yaml
llmchaos_busy_query = sum by (service) (llmchaos:requests_running)
llmchaos_replicas = engine
"""
SLO = """apiVersion: openslo/v1
kind: SLO
metadata: {name: NAME}
spec:
  service: engine
  description: Of all first tokens, those within the bound.
  budgetingMethod: Occurrences
  timeWindow: [{duration: 30d, isRolling: true}]
  objectives: [{target: 0.9}]
  indicator:
    metadata: {name: NAME}
    spec:
      ratioMetric:
        counter: true
        good: {metricSource: {type: Prometheus, spec: {query: 'METRIC_bucket{le="BOUND"}'}}}
        total: {metricSource: {type: Prometheus, spec: {query: METRIC_count}}}
"""
SCENARIO = '''"""A short freeze leaves most first tokens fast."""

from pytest_llmchaos import experiment, faults, loads

pytestmark = experiment(
    load=loads.open_loop(rate_rps=10, max_tokens=4), fault=faults.pause("engine"), steady_s=3, fault_s=1,
    settle_within_s=20,
)


def test_most_first_tokens_are_fast(trial):
    found, native = trial.slo("fast"), trial.slo("native")
    assert found.value > 0.5
    assert found.total > 20
    for what in ("good", "total"):  # of the same scrape: the load has ended
        assert found.raw[f"{what} at the window's end"] == native.raw[f"{what} at the window's end"] > 0
'''


def slo(name: str, metric: str, bound: str) -> str:
    return SLO.replace("NAME", name).replace("METRIC", metric).replace("BOUND", bound)


def session(folder: Path, *, server: str, slos: list[str], **ini: str) -> tuple[int, str]:
    """Status and output of a session on an engine with a server's names."""
    (folder / "compose.yaml").write_text(COMPOSE.replace("STACK", str(stack_dir())).replace("SERVER", server))
    (folder / "slo.yaml").write_text("---\n".join(slos))
    (folder / "pytest.ini").write_text(INI + "".join(f"{key} = {value}\n" for key, value in ini.items()))
    (folder / "test_fast.py").write_text(SCENARIO)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, **sessions.PROXIES, "PATH": path, "PYTHONPATH": str(ROOT)}

    def run() -> tuple[int, str]:
        command = [sys.executable, "-m", "pytest", "-rP"]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        return done.returncode, done.stdout + done.stderr

    return sessions.measured(folder / "reports", run, output_of=lambda ended: ended[1])


RULES = "groups: [{name: a, rules: [{alert: Full, expr: 'METRIC > 0.9'}]}]"


@pytest.mark.sampled  # test_servers_preflight chooses the server in both ways
@pytest.mark.parametrize(
    "ini",
    [{}, {"llmchaos_servers": "engine: sglang", "llmchaos_queries": "alerts.yml"}],
    ids=["recognised", "named"],
)
def test_an_objective_over_canonical_names_judges_an_engine_with_the_names_of_sglang(tmp_path, ini):
    canonical, native = "gen_ai_server_time_to_first_token_seconds", "sglang:time_to_first_token_seconds"
    slos = [slo("fast", canonical, "0.4"), slo("native", native, "0.4")]
    (tmp_path / "alerts.yml").write_text(RULES.replace("METRIC", "sglang:token_usage + llmchaos:requests_waiting"))

    code, said = session(tmp_path, server="sglang", slos=slos, **ini)

    assert code == 0, said
    assert ("engine is SGLang" in said) == (not ini), said


def test_an_objective_over_a_replaced_name_is_refused_before_the_first_trial(tmp_path):
    slos = [slo("fast", "vllm:time_per_output_token_seconds", "0.5")]
    (tmp_path / "alerts.yml").write_text(RULES.replace("METRIC", "vllm:gpu_cache_usage_perc"))

    code, said = session(
        tmp_path, server="vllm", slos=slos, llmchaos_servers="engine: vllm", llmchaos_queries="alerts.yml"
    )

    assert code != 0
    assert "vLLM has vllm:inter_token_latency_seconds_count in its place since" in said, said
    assert "alerts.yml: alert Full reads vllm:gpu_cache_usage_perc, which is not there: vLLM" in said, said
    assert sessions.of_kind(tmp_path / "reports", "trial") == []
