"""Scenarios of the lab hold in front of engines with other servers' metrics.

Needs no Docker.
"""

from __future__ import annotations

import json
import os
import time
import urllib.request
from typing import TYPE_CHECKING

import pytest
from support import sessions
from support.waiting import until

from pytest_llmchaos.host import identity
from pytest_llmchaos.prometheus.queries import Prometheus
from pytest_llmchaos.runtime.local.runtime import LocalRuntime
from pytest_llmchaos.subject.lab import lab_subject

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240), pytest.mark.usefixtures("local_programs")]

LOCAL = ("--chaos-runtime=local", "--chaos-backend=sim", "--chaos-seed=7", "-q")
# A scenario, its claims with one experiment, and what acted.
SCENARIOS = {
    "hung_model": (
        "hung_replica_is or hung_replica_costs",
        {
            "test_a_hung_replica_is_detected",
            "test_a_hung_replica_is_restarted_by_the_remediator",
            "test_a_hung_replica_costs_little",
        },
    ),
    "busy_model": (
        "busy_engine or all_is_well",
        {
            "test_a_busy_engine_is_detected",
            "test_a_busy_engine_is_not_restarted",
            "test_clients_of_a_busy_engine_wait_and_get_whole_answers",
            "test_all_is_well_soon_after",
        },
    ),
    "kill_model": (
        "one_lost_replica",
        {
            "test_one_lost_replica_is_detected",
            "test_one_lost_replica_is_repaired_by_the_remediator",
            "test_one_lost_replica_is_an_incident_that_ends",
            "test_one_lost_replica_hardly_shows_to_clients",
        },
    ),
}


def outcomes(reports: Path) -> tuple[set[str], dict[str, str]]:
    """Verdicts of the trials, and the outcome of each claim."""
    trials = sessions.run_json(reports)["trials"]
    claims = {claim["nodeid"].split("::")[1]: claim["outcome"] for trial in trials for claim in trial["claims"]}
    return {trial["verdict"] for trial in trials}, claims


@pytest.mark.nightly(
    "test_engine_signals has hung and busy engines in each server's names, two of which are scraped below"
)
@pytest.mark.parametrize("file", SCENARIOS)
@pytest.mark.parametrize("names", ["vllm", "sglang", "tgi"])
def test_a_scenario_has_the_same_verdicts_under_each_servers_names(tmp_path: Path, names: str, file: str) -> None:
    chosen, claims = SCENARIOS[file]

    code, out = sessions.run(
        tmp_path, f"scenarios/test_{file}.py", "-k", chosen, *LOCAL, env={"LLMCHAOS_SIM_METRICS": names}
    )

    assert code == 0, out[-4000:]
    assert outcomes(tmp_path) == ({"held"}, dict.fromkeys(claims, "passed"))


# TensorRT-LLM counts requests and no steps: the gateway ejects the replica first.
WITHOUT_STEPS = """
from pytest_llmchaos import experiment, faults, loads

pytestmark = experiment(
    load=loads.open_loop(rate_rps=12, prompts="short-chat", max_tokens=64),
    fault=faults.hang("model-1"),
    steady_s=5,
    stable_s=10,
    repair_within_s=55,
)


def test_a_hung_replica_without_a_count_of_steps_is_restarted(trial):
    assert trial.alert("ReplicaEjected", "model-1").after_s <= 25
    assert trial.rule("replica-mute", "model-1").after_s <= 45
    assert trial.repaired_by == "remediator"
    assert trial.restarts == {"model-1": 1}
"""


@pytest.mark.nightly("test_lab_api_outliers has the ejection and test_triggers the rule, on a clock of their own")
def test_a_hung_engine_that_counts_no_steps_is_restarted(tmp_path: Path) -> None:
    file = tmp_path / "test_hung.py"
    file.write_text(WITHOUT_STEPS)

    code, out = sessions.run(tmp_path, str(file), *LOCAL, env={"LLMCHAOS_SIM_METRICS": "tensorrt-llm"})

    assert code == 0, out[-4000:]


SIDE_BY_SIDE = {"model-1": {"LAB_METRICS": "sglang"}, "model-2": {"LAB_METRICS": "tgi"}}


def test_two_servers_are_side_by_side_in_one_lab(tmp_path: Path) -> None:
    runtime = LocalRuntime(
        lab_subject("sim"),
        project=f"llmchaos-test-{os.getpid()}-names",
        run="test",
        owner=identity.owner_label(),
        directory=tmp_path,
    )
    try:
        runtime.up(remediator=False)
        prometheus = Prometheus(runtime.url("prometheus"))
        until(lambda: servers_of(prometheus) == both("vllm", "vllm"), "series of vLLM's names", 30)

        runtime.configure(SIDE_BY_SIDE)
        # TGI lacks them until its first request.
        until(lambda: asked(runtime) and servers_of(prometheus) == both("sglang", "tgi"), "series of two servers", 30)
    finally:
        runtime.down()


def both(first: str, second: str) -> set[tuple[str, str]]:
    return {("model-1", first), ("model-2", second)}


def servers_of(prometheus: Prometheus) -> set[tuple[str, str]]:
    """Each replica, and the server whose names it has."""
    found = prometheus.vector('llmchaos:requests_running{job="model"}', time.time(), may_be_empty=True)
    return {(dict(labels)["service"], dict(labels)["server"]) for labels in found}


def asked(runtime: LocalRuntime) -> bool:
    """Send a request to the gateway, which takes turns."""
    body = json.dumps({"model": "smollm2:135m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2})
    request = urllib.request.Request(
        f"{runtime.url('api')}/v1/chat/completions", body.encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=5) as answer:
        return bool(answer.status == 200)
