"""Canonical names in the run's own Prometheus, and the check of a start."""

import json
import subprocess
from dataclasses import replace

import pytest
import yaml
from support.own_stack_keys import make_folder, subject_of
from support.prometheus_server import program

from pytest_llmchaos.runtime import judge_files
from pytest_llmchaos.servers.catalogue import servers
from pytest_llmchaos.servers.rules import recording_rules


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path)


def groups_of(subject):
    return yaml.safe_load(judge_files.rule_file(subject))["groups"]


def test_named_services_are_recorded_once_and_others_only_if_they_are_recognised(folder):
    subject = subject_of(folder, metrics=("web", "a.b", "worker"), servers=("web: vllm", "a.b: vllm"))

    groups = {one["name"]: one["rules"] for one in groups_of(subject)}

    engines = {
        one.name
        for one in servers().values()
        if one.kind == "engine" and any(e.status != "absent" for e in one.entries)
    }
    assert set(groups) == {"canonical-vllm", *(f"recognised-{one}" for one in engines), "llmchaos"}
    (named,) = (one for one in groups["canonical-vllm"] if one["record"] == "llmchaos:requests_running")
    (found,) = (one for one in groups["recognised-vllm"] if one["record"] == "llmchaos:requests_running")
    assert named["expr"] == 'vllm:num_requests_running{job=~"web|a[.]b"}'
    assert found["expr"] == (
        '(vllm:num_requests_running{job=~"worker"}) and on (job) '
        'last_over_time(llmchaos_server_recognised{server="vllm"}[30s])'
    )
    assert named["labels"] == found["labels"] == {"server": "vllm", "origin": "native"}


def test_a_stack_whose_servers_are_all_named_has_no_rules_of_others(folder):
    subject = subject_of(folder, metrics=("web",), servers=("web: vllm",))

    assert [one["name"] for one in groups_of(subject)] == ["canonical-vllm", "llmchaos"]
    assert groups_of(replace(subject, scrapes=(), servers=())) is None
    assert judge_files.unnamed(subject) == ()


def test_prometheus_accepts_the_rules_of_named_and_recognised_servers(folder):
    rules = folder / "rules.yml"
    pages = [one for one in servers().values() if one.kind != "provider"]
    subject = subject_of(folder, metrics=("web", "worker"), servers=("web: vllm",))
    rules.write_text(judge_files.rule_file(subject))
    every = folder / "every.yml"
    every.write_text(recording_rules(pages, 'job="web"'))

    for path in (rules, every):
        done = subprocess.run(
            [program("promtool"), "check", "rules", path], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


HISTOGRAM = "vllm:time_to_first_token_seconds"
PAGE = {
    'vllm:num_requests_running{job="JOB",service="JOB"}': "3x2",
    HISTOGRAM + '_bucket{job="JOB",service="JOB",le="0.1"}': "1x2",
    HISTOGRAM + '_bucket{job="JOB",service="JOB",le="+Inf"}': "2x2",
    'vllm:gpu_cache_usage_perc{job="JOB",service="JOB"}': "0.25x2",
}


def recorded(folder, subject, series):
    """The series that the rules record until 2 s, by promtool's own evaluation."""
    (folder / "rules.yml").write_text(judge_files.rule_file(subject))
    wanted = (
        "llmchaos:requests_running",
        "gen_ai_server_time_to_first_token_seconds_bucket",
        "llmchaos:kv_cache_usage_ratio",
    )
    test = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": "1s",
        "tests": [
            {
                "interval": "1s",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [
                    {"expr": f"sum by (job, server) ({one})", "eval_time": "2s", "exp_samples": []} for one in wanted
                ],
            }
        ],
    }
    (folder / "tests.yml").write_text(json.dumps(test))
    command = [program("promtool"), "test", "rules", "tests.yml"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def page_of(*jobs):
    return {name.replace("JOB", job): values for job in jobs for name, values in PAGE.items()}


def test_an_unnamed_service_is_recorded_once_it_is_recognised_as_that_server(folder):
    subject = subject_of(folder, metrics=("web", "worker"))
    pushed = 'llmchaos_server_recognised{job="web",service="llmchaos-pushgateway",server="vllm"}'

    before = recorded(folder, subject, page_of("web", "worker"))
    after = recorded(folder, subject, page_of("web", "worker") | {pushed: "1x2"})

    assert before.returncode == 0, before.stdout + before.stderr  # nothing was recorded
    assert after.returncode == 1
    told = after.stdout + after.stderr
    assert '{job="web", server="vllm"} 3E+00' in told
    assert '{job="web", server="vllm"} 2.5E-01' in told
    assert told.count('server="vllm"') == 3
    assert "worker" not in told
