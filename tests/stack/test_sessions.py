"""Whole sessions on the real stack."""

import json
import os
import socket
import subprocess
import sys

import jsonschema
import pytest
from support import sessions
from support.stacks import ROOT, require

from pytest_llmchaos.host.state_dirs import state_dir

pytestmark = pytest.mark.stack

SCHEMA = json.loads((ROOT / "pytest_llmchaos" / "report" / "run.schema.json").read_text())


def test_kill_api_on_the_real_model_holds_and_leaves_its_evidence(tmp_path):
    require("ollama")

    chosen = "kill_api and not pages and not nothing_happens"  # the arm with the remediator
    code, out = sessions.run(tmp_path, "scenarios", "-k", chosen, "--chaos-seed=42", "--chaos-backend=ollama")

    assert code == 0, out[-4000:]
    run = sessions.run_json(tmp_path)
    jsonschema.validate(run, SCHEMA)
    trial = run["trials"][0]
    assert run["backend"] == "ollama"
    assert trial["verdict"] == "held"
    assert trial["repaired_by"] == "remediator"
    assert trial["time_to_detect_s"] <= 5
    assert trial["time_to_recover_s"] <= 20
    assert [claim["outcome"] for claim in trial["claims"]] == ["passed"] * 4
    for name in ("report.html", "summary.md", "journal.jsonl", "trials/001/samples.jsonl", "logs/api.txt"):
        assert (tmp_path / "latest" / name).stat().st_size > 0
    assert "latest/report.html" in out or "report.html" in out
    assert sessions.leftovers(sessions.of_kind(tmp_path, "stack")[0]["project"]) == []


@pytest.mark.nightly("test_neighbours runs two workers; test_deaths has workers with stacks of their own")
def test_claims_of_one_trial_share_a_worker(tmp_path):
    require("sim")

    code, out = sessions.run(tmp_path, "scenarios", "-k", "kill_api", "-p", "xdist", "-n", "2", "--chaos-backend=sim")

    assert code == 0, out[-4000:]
    assert len(sessions.of_kind(tmp_path, "judged")) == 3
    run = sessions.run_json(tmp_path)
    assert [claim["outcome"] for claim in run["trials"][0]["claims"]] == ["passed"] * 4


def free_port_taken():
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    return sock


BAD = [
    (
        "no daemon",
        ["--chaos-runtime=compose"],
        {"DOCKER_HOST": "unix:///nonexistent/docker.sock"},
        "no Docker daemon answers at unix:///nonexistent/docker.sock",
    ),
    (
        "unknown backend",
        ["--chaos-backend=gpt-5"],
        {},
        "--chaos-backend must be one of ollama, llamacpp, sim, got 'gpt-5'",
    ),
    ("missing image", ["--chaos-backend=sim"], {"LLMCHAOS_PROMETHEUS_IMAGE": "llmchaos/none:0"}, "llmchaos/none:0"),
    ("seed", ["--chaos-seed=x"], {}, "--chaos-seed must be a whole number"),
]


@pytest.mark.parametrize(("args", "env", "message"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_what_is_wrong_is_one_clear_error_before_anything_starts(tmp_path, args, env, message):
    require("sim")

    code, out = sessions.run(tmp_path, "scenarios", "-k", "kill_api", *args, env=env)

    assert code == 4, out[-3000:]
    assert message in out
    assert out.count("ERROR") == 1
    assert sessions.of_kind(tmp_path, "stack") == []


def test_a_port_that_is_taken_is_named(tmp_path):
    require("sim")
    with free_port_taken() as sock:
        port = str(sock.getsockname()[1])
        code, out = sessions.run(
            tmp_path, "scenarios", "-k", "kill_api", "--chaos-backend=sim", env={"LLMCHAOS_API_PORT": port}
        )

    assert code == 4, out[-3000:]
    assert f"LLMCHAOS_API_PORT={port} is already in use" in out


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user without permission")
def test_no_permission_is_named_with_what_to_do(tmp_path):
    require("sim")
    socket_path = "/var/run/docker.sock"
    if not os.path.exists(socket_path):  # noqa: PTH110 - a fact, not a path to work with
        pytest.skip(f"no {socket_path} here")
    code = (
        "import os; os.setgroups([]); os.setgid(65534); os.setuid(65534);"
        "from pytest_llmchaos.runtime.docker import docker_cli;"
        "from pytest_llmchaos.errors import NotReady\n"
        "try:\n docker_cli.require_engine()\nexcept NotReady as e:\n print(e)"
    )
    preload = f"import pytest_llmchaos.runtime.docker.docker_cli; {code}"
    done = subprocess.run([sys.executable, "-c", preload], capture_output=True, text=True, check=False, cwd="/")

    assert "no permission to use the Docker daemon" in done.stdout, done.stderr
    assert "usermod -aG docker" in done.stdout


def test_a_load_beyond_the_backend_is_refused_with_both_numbers(tmp_path):
    require("sim")
    scenario = tmp_path / "test_heavy.py"
    scenario.write_text(
        '"""Too much."""\nfrom pytest_llmchaos import experiment, faults, loads\n'
        'pytestmark = experiment(load=loads.open_loop(rate_rps=500, max_tokens=64), fault=faults.kill("api"))\n'
        "def test_it(trial):\n    assert trial\n"
    )

    code, out = sessions.run(tmp_path, str(scenario), "--chaos-backend=ollama")

    assert code == 4, out[-3000:]
    assert "offers 32000 tokens/s" in out
    assert "declared for 45" in out


def test_locks_and_ports_are_kept_in_a_private_folder():
    assert state_dir().stat().st_mode & 0o077 == 0
