"""The local runtime as a whole: deaths, parallel runs, failed starts.

Needs no Docker.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import jsonschema
import pytest
from support import sessions
from support.gone import seconds_until_gone
from support.waiting import until

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.host import identity, ports, state_dirs
from pytest_llmchaos.runtime.local import cleanup
from pytest_llmchaos.runtime.local.runtime import LocalRuntime
from pytest_llmchaos.subject.lab import lab_subject, stack_dir

pytestmark = [pytest.mark.stack, pytest.mark.timeout(180), pytest.mark.usefixtures("local_programs")]

LOCAL = ("--chaos-runtime=local", "--chaos-backend=sim", "--chaos-seed=7")
SCENARIO = '''"""A killed api is repaired."""
from pytest_llmchaos import experiment, faults, loads
LOAD = loads.open_loop(rate_rps=10, max_tokens=8)
pytestmark = experiment(load=LOAD, fault=faults.kill("api"), steady_s=3, repair_within_s=20, stable_s=1)
def test_repaired(trial):
    assert trial.repaired_by == "remediator"
'''


@pytest.fixture
def scenario(tmp_path):
    file = tmp_path / "test_scenario.py"
    file.write_text(SCENARIO)
    return str(file)


@pytest.fixture
def doomed(tmp_path):
    """The scenario with a short start, for sessions that die in its fault."""
    file = tmp_path / "test_doomed.py"
    file.write_text(SCENARIO.replace("steady_s=3", "steady_s=1"))
    return str(file)


def new_runtime(directory, name="a", backend="sim"):
    return LocalRuntime(
        lab_subject(backend),
        project=f"llmchaos-test-{os.getpid()}-{name}",
        run="test",
        owner=identity.owner_label(),
        directory=directory,
    )


def project_of(reports):
    return sessions.of_kind(reports, "stack")[0]["project"]


def end(child):
    child.kill()
    child.wait()


def contents(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_a_trial_needs_no_docker_names_its_repairer_and_writes_nothing_elsewhere(tmp_path, scenario):
    reports, cache = tmp_path / "reports", state_dirs.cache_dir()
    env = {"DOCKER_HOST": "unix:///nonexistent/docker.sock", "XDG_CACHE_HOME": str(cache.parent), "XDG_RUNTIME_DIR": ""}
    for variable in ("HOME", "TMPDIR"):
        (tmp_path / variable).mkdir()
        env[variable] = str(tmp_path / variable)
    before = contents(cache), contents(stack_dir())

    code, out = sessions.run(reports, scenario, *LOCAL[1:], env={**env, "PYTHONDONTWRITEBYTECODE": "1"})

    assert code == 0, out[-4000:]
    assert "llmchaos: runtime local (no Docker daemon answers" in out
    assert (contents(cache), contents(stack_dir())) == before
    assert contents(tmp_path / "HOME") == set()
    locks = [path for path in (tmp_path / "TMPDIR").rglob("*") if path.is_file()]
    assert {(path.suffix, path.stat().st_size) for path in locks} == {(".lock", 0)}
    assert {path.name for path in (reports / "latest").resolve().parent.iterdir()} == {
        "output.txt",
        "latest",
        "ledger.jsonl",
        (reports / "latest").resolve().name,
    }
    assert "dashboards are not served" in out
    run = sessions.run_json(reports)
    jsonschema.validate(run, json.loads((sessions.ROOT / "pytest_llmchaos/report/run.schema.json").read_text()))
    trial = run["trials"][0]
    assert (run["runtime"], run["backend"], trial["verdict"], trial["repaired_by"]) == (
        "local",
        "sim",
        "held",
        "remediator",
    )
    for name in ("report.html", "summary.md", "journal.jsonl", "logs/api.txt", "logs/events.jsonl"):
        assert (reports / "latest" / name).stat().st_size > 0
    assert cleanup.processes_of(project_of(reports)) == {}


ARMS = '''"""The claims of kill_api without its remediator, and without its fault."""
import pytest
from pytest_llmchaos import experiment, faults, loads
from pytest_llmchaos.errors import NotRecovered
LOAD = loads.open_loop(rate_rps=10, max_tokens=8)

@experiment(load=LOAD, fault=faults.kill("api"), steady_s=8, repair_within_s=5, stable_s=1, remediator=False)
def test_without_the_remediator_it_stays_down(trial):
    with pytest.raises(NotRecovered):
        trial.time_to_recover_s
    assert (trial.repaired_by, trial.actions) == ("instrument", ())

@experiment(load=LOAD, fault=faults.none(), steady_s=8, repair_within_s=5, stable_s=3)
def test_without_a_fault_nothing_acts(trial):
    assert (trial.actions, trial.restarts, trial.whole.availability) == ((), {}, 1.0)
'''


@pytest.mark.nightly("test_trials has both arms; what the local runtime adds to a trial is in the one above")
def test_the_control_arms_hold(tmp_path):
    file = tmp_path / "test_arms.py"
    file.write_text(ARMS)
    reports = tmp_path / "reports"

    code, out = sessions.run(reports, str(file), *LOCAL)

    assert code == 0, out[-4000:]
    assert [trial["verdict"] for trial in sessions.run_json(reports)["trials"]] == ["held", "held"]


FAULTS = '''"""What the runtime can, and what it cannot."""
import pytest
from pytest_llmchaos import experiment, faults, loads

def part(fault, **phases):
    return experiment(load=loads.open_loop(rate_rps=10, max_tokens=8), fault=fault, steady_s=4, stable_s=1, **phases)

@part(faults.limit_memory("model-1", mebibytes=200), fault_s=2, settle_within_s=10)
def test_limit_memory(trial):
    assert (trial.victims, trial.actions, trial.whole.availability) == (("model-1",), (), 1.0)

@part(faults.partition("api"), fault_s=2)
def test_partition(trial): ...

@part(faults.limit_cpu("api", cores=0.5), fault_s=2)
def test_limit_cpu(trial): ...

@part(faults.memory_leak("model-1"), repair_within_s=10)
def test_memory_leak(trial): ...
'''


@pytest.mark.nightly("test_runtime_contract limits memory in both runtimes; test_plugin makes a skip of what one lacks")
def test_memory_can_be_limited_and_a_missing_ability_is_a_skip_that_names_it(tmp_path):
    file = tmp_path / "test_faults.py"
    file.write_text(FAULTS)
    reports = tmp_path / "reports"

    code, out = sessions.run(reports, str(file), "-rs", *LOCAL)

    assert code == 0, out[-4000:]
    for lacking, fault in {"partition": "partition", "limit_cpu": "limit_cpu", "oom_kill": "memory_leak"}.items():
        assert f"the local runtime cannot {lacking}, which {fault}" in out
    assert "1 passed, 3 skipped" in out
    # A skipped scenario is no trial, and leaves the claim of the one before it alone.
    trials = sessions.run_json(reports)["trials"]
    assert [(trial["verdict"], len(trial["claims"])) for trial in trials] == [("held", 1)]
    injected, healed = sessions.of_kind(reports, "proof")
    assert f"{200 * 2**20} bytes of data" in injected["witness"]
    assert "limit_memory of model-1 is as found" in healed["witness"]


@pytest.mark.sampled
@pytest.mark.parametrize("frozen", ["services", "supervisord", "everything"])
def test_frozen_processes_die_with_pytest_too(tmp_path, doomed, frozen):
    reports = tmp_path / "reports"
    child = sessions.start(reports, doomed, *LOCAL)
    try:
        until(lambda: sessions.of_kind(reports, "proof"), f"the proof: {sessions.said(reports)}", 90)
        project = project_of(reports)
        supervisord = int(next(reports.glob("2*/local/*/supervisord.pid")).read_text())
        for pid in cleanup.processes_of(project):
            if frozen == "everything" or (pid == supervisord) == (frozen == "supervisord"):
                os.kill(pid, signal.SIGSTOP)
    finally:
        end(child)
    killed = time.monotonic()

    seconds_until_gone(lambda: cleanup.processes_of(project), killed)
    until(lambda: not list(reports.glob("2*/local")), "its folder was gone")


@pytest.mark.nightly("test_local_supervisor removes a dead run that is frozen, test_sweep has the command")
def test_a_frozen_stack_without_a_watchdog_is_removed_by_the_command(tmp_path, doomed):
    reports = tmp_path / "reports"
    child = sessions.start(reports, doomed, *LOCAL)
    try:
        until(lambda: sessions.of_kind(reports, "proof"), "the fault was proven", 90)
        project = project_of(reports)
        watchdog = next(pid for pid in _children(child.pid) if b"pytest_llmchaos.cleanup.watchdog" in _command(pid))
        os.kill(watchdog, signal.SIGKILL)
        for pid in cleanup.processes_of(project):
            os.kill(pid, signal.SIGSTOP)
    finally:
        end(child)
    assert cleanup.processes_of(project)

    healed = subprocess.run(
        [sys.executable, "-m", "pytest_llmchaos.cli", "heal"], capture_output=True, text=True, check=False
    )  # 1 if there is a Docker that does not answer

    assert cleanup.processes_of(project) == {}
    # A session that starts next to this test sweeps the orphan too, and may be first.
    assert f"removing {project}" in healed.stdout or healed.stdout == "no orphans found\n"


def _children(pid):
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _command(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")


@pytest.mark.sampled
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_cancelled_run_reverts_its_fault_and_ends_its_processes(tmp_path, doomed, number):
    reports = tmp_path / "reports"
    child = sessions.start(reports, doomed, *LOCAL)
    try:
        until(lambda: sessions.of_kind(reports, "proof"), "the fault was proven", 90)
        child.send_signal(number)
        child.wait(timeout=30)
    finally:
        end(child)

    assert cleanup.processes_of(project_of(reports)) == {}
    assert sessions.of_kind(reports, "undone")[0]["ok"] is True
    assert child.returncode == 2


@pytest.mark.nightly("test_local_supervisor has two runs at once, and test_deaths two sessions")
def test_two_parallel_runs_leave_each_other_alone(tmp_path):
    one, two = new_runtime(tmp_path, "one"), new_runtime(tmp_path, "two")
    try:
        one.up(remediator=False)
        two.up(remediator=False)
        assert one.url("api") != two.url("api")

        one.kill("api")
        one.down()

        assert two.state("api").running
        assert not [e for e in two.events(0, float("inf")) if e.action == "kill"]
        with urllib.request.urlopen(two.url("api") + "/readyz", timeout=2) as answer:
            assert answer.status == 200
    finally:
        one.down()
        two.down()
    assert cleanup.processes_of(one.project) == cleanup.processes_of(two.project) == {}


@pytest.mark.nightly("test_deaths has two sessions with containers; test_local_supervisor has two runs at once")
def test_parallel_workers_have_a_stack_each(tmp_path, scenario):
    second = tmp_path / "test_second.py"
    second.write_text(Path(scenario).read_text())
    reports = tmp_path / "reports"

    code, out = sessions.run(reports, scenario, str(second), "-p", "xdist", "-n", "2", *LOCAL)

    assert code == 0, out[-4000:]
    projects = {line["project"] for line in sessions.of_kind(reports, "stack")}
    ups = sorted(line["at_unix_s"] for line in sessions.of_kind(reports, "stack_up"))
    downs = sorted(line["at_unix_s"] for line in sessions.of_kind(reports, "stack_down"))
    assert len(projects) == 2
    assert ups[1] < downs[0]  # both were up at once
    assert [trial["verdict"] for trial in sessions.run_json(reports)["trials"]] == ["held", "held"]
    assert [project for project in projects if cleanup.processes_of(project)] == []


@pytest.fixture
def own_stack(tmp_path, monkeypatch):
    """A private copy of the lab's files."""
    stack = tmp_path / "stack"
    shutil.copytree(stack_dir(), stack, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr("pytest_llmchaos.subject.lab.stack_dir", lambda: stack)
    return stack


@pytest.mark.nightly("the trial without Docker above writes nothing elsewhere")
def test_it_writes_nothing_outside_its_own_folder(tmp_path, own_stack, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(state_dirs.cache_dir().parent))
    for variable in ("HOME", "TMPDIR"):
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / variable))
    before = sorted(own_stack.rglob("*"))
    runtime = new_runtime(tmp_path / "reports")
    try:
        runtime.up()
        runtime.kill("model-1")
    finally:
        runtime.down()

    assert sorted(own_stack.rglob("*")) == before
    assert [path.name for path in (tmp_path / "reports").iterdir()] == ["logs"]
    assert [*(tmp_path / "HOME").iterdir(), *(tmp_path / "TMPDIR").iterdir()] == []


def test_a_requested_port_is_used_and_one_in_use_is_named(tmp_path, monkeypatch):
    held = ports.Ports()
    free = held.reserve()
    monkeypatch.setenv("LLMCHAOS_API_PORT", str(free))
    runtime = new_runtime(tmp_path)

    runtime.prepare()

    assert runtime.url("api") == f"http://127.0.0.1:{free}"
    monkeypatch.setenv("LLMCHAOS_API_PORT", "x")
    with pytest.raises(NotReady, match="LLMCHAOS_API_PORT must be a port from 1 to 65535, got 'x'"):
        new_runtime(tmp_path).prepare()
    held.close()


def test_a_service_that_cannot_start_is_named_with_the_end_of_its_log(tmp_path, own_stack):
    override = own_stack / "compose.sim.yaml"
    override.write_text(override.read_text().replace("LAB_PORT: ", "LAB_SLOTS: none\n    LAB_PORT: "))
    runtime = new_runtime(tmp_path / "reports")

    with pytest.raises(NotReady, match=r"(?s)model-\d has ended \(2\) and its log ends:.*LAB_SLOTS"):
        runtime.up()

    assert cleanup.processes_of(runtime.project) == {}
