"""pytest is killed at every boundary of a trial: whatever was written down last, all of the run is gone within seconds."""

import signal
import time

import pytest
import sessions

from conftest import require
from pytest_llmchaos.owner import process_started
from pytest_llmchaos.runtime import docker_cli

pytestmark = [pytest.mark.stack, pytest.mark.timeout(120)]

GONE_DEADLINE_S = 3.0

SCENARIO = '''
"""It is killed before it can be judged."""
from pytest_llmchaos import experiment, faults, loads

pytestmark = experiment(
    load=loads.open_loop(rate_rps=10, max_tokens=4), fault=faults.{fault}, remediator=False,
    steady_s=1, recovery_s=2, stable_s=1{more}
)

def test_it(trial):
    assert trial.whole.offered
'''

# Kills its own process before or after the line of a kind is written, the n-th time that it is.
KILLER = """
import os, signal
from pytest_llmchaos.journal import Journal

write, left = Journal.write, [{number}]

def write_and_die(self, kind, **fields):
    left[0] -= kind == {kind!r}
    dies = kind == {kind!r} and left[0] == 0
    if dies and {when!r} == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, kind, **fields)
    if dies:
        os.kill(os.getpid(), signal.SIGKILL)

Journal.write = write_and_die
"""

PASSING = ", fault_s=1"
FAULTS = {
    "kill": ('kill("api")', ""),
    "pause": ('pause("model-1")', PASSING),
    "partition": ('partition("model-1")', PASSING),
    "limit_cpu": ('limit_cpu("model-1", cores=0.2)', PASSING),
    "limit_memory": ('limit_memory("model-1", mebibytes=128)', PASSING),
}
# fault, when, kind of line, the how many-th of its kind. Before a fault nothing depends on which it is.
BOUNDARIES = [
    ("kill", "after", "stack", 1),
    ("kill", "before", "stack_up", 1),
    ("kill", "before", "anchor", 1),
    ("kill", "after", "phase", 1),
    *(
        (fault, when, kind, number)
        for fault in ("kill", "pause")
        for when, kind, number in [
            ("after", "intent", 1),
            ("before", "proof", 1),
            ("after", "proof", 1),
            ("before", "proof", 2),
        ]
    ),
    ("kill", "after", "undone", 1),
    ("partition", "after", "proof", 1),
    ("limit_cpu", "after", "proof", 1),
    ("limit_memory", "after", "proof", 1),
    ("kill", "before", "stack_down", 1),
]


def start(tmp_path, fault, killer=""):
    require("sim")
    call, more = FAULTS[fault]
    suite = tmp_path / "suite"
    suite.mkdir()
    (suite / "test_doomed.py").write_text(SCENARIO.format(fault=call, more=more))
    (suite / "conftest.py").write_text(killer)
    (suite / "pytest.ini").write_text("[pytest]\n")
    reports = tmp_path / "reports"
    arguments = [str(suite), f"--rootdir={suite}", f"--confcutdir={suite}", "-c", str(suite / "pytest.ini")]
    return sessions.start(reports, *arguments, "--chaos-backend=sim", "--chaos-runtime=compose"), reports


def gone_after_s(reports):
    """Seconds until no container, network, volume or process of the run is left. Fails past the deadline."""
    begin = time.monotonic()
    project = sessions.of_kind(reports, "stack")[0]["project"]
    sessions.wait_for(lambda: not sessions.leftovers(project), GONE_DEADLINE_S, "the stack was gone")
    took_s = time.monotonic() - begin
    helpers = sessions.of_kind(reports, "process")
    assert [one for one in helpers if process_started(one["pid"]) == one["started"]] == []
    return took_s


@pytest.mark.parametrize("boundary", BOUNDARIES, ids=lambda b: "-".join(map(str, b)))
def test_nothing_is_left_of_a_run_that_was_killed(tmp_path, boundary, record_testsuite_property):
    fault, when, kind, number = boundary
    child, reports = start(tmp_path, fault, KILLER.format(when=when, kind=kind, number=number))
    try:
        child.wait(timeout=60)
    finally:
        child.kill()

    assert child.returncode == -signal.SIGKILL, sessions.said(reports)
    record_testsuite_property(f"gone after a kill {when} {kind} ({fault}), in seconds", round(gone_after_s(reports), 3))


def test_nothing_is_left_of_a_run_that_was_killed_while_its_stack_came_up(tmp_path):
    child, reports = start(tmp_path, "kill")
    try:
        line = sessions.wait_for(lambda: sessions.of_kind(reports, "stack"), 30, "the stack was announced")[0]
        label = f"label=com.docker.compose.project={line['project']}"
        sessions.wait_for(lambda: docker_cli.listed("container", label), 30, "the first container was made")
    finally:
        child.kill()
        child.wait()

    assert sessions.of_kind(reports, "stack_up") == []
    gone_after_s(reports)
    time.sleep(1.5)  # nothing may come in this time, so there is nothing to wait for
    assert sessions.leftovers(line["project"]) == []
