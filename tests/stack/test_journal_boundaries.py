"""Deaths of pytest at every line of a trial's journal.

pytest is killed before and after each line. Within 3 s everything of the run must be
gone. This runs on a tiny stack, because orphans do not depend on what services do
(`tiny_stack`). A few sessions die in parallel, each with its own project. Their sweep
of dead runs is off, so that only a run's own watchdog cleans up. The lists of lines are
compared with those that a trial of each fault writes, so none can be missing.

From a fault's intent to its end, every line is a death for every fault. Outside of that
no fault is in force, so these lines are deaths in trials of `kill` alone. An attached
stack must be restored to its original state, wherever between two acts on a container
the run died. Last, the whole lab dies once with each fault in force.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import time

import jsonschema
import pytest
from support import sessions, tiny_stack
from support.dying import (
    AFTER,
    ALONE,
    BEFORE,
    IN_FORCE,
    JUDGED,
    KILLER,
    SIDE_BY_SIDE,
    chosen,
    die,
    in_the_background,
    kinds,
    named,
    stage,
)
from support.gone import seconds_until_gone
from support.stacks import ROOT, require
from support.tiny_stack import FAULTS, Engine
from support.waiting import until

from pytest_llmchaos.runtime.docker import docker_cli

pytestmark = [pytest.mark.stack, pytest.mark.timeout(120)]

SCHEMA = ROOT / "pytest_llmchaos" / "evidence" / "journal.schema.json"
# Docker's reports of the fault are copied into the journal after the verdict.
REPORTED = {
    "kill": [("event", 2)],
    "pause": [("event", 2)],
    "partition": [],
    "limit_cpu": [],
    "limit_memory": [],
    "flaky": [],
}
LINES = {fault: [*BEFORE, *IN_FORCE, *AFTER, *REPORTED[fault], *JUDGED] for fault in FAULTS}

LAST = ("before", "phase", 2)  # the end of the block with the fault in force
OWN = [
    (fault, when, kind, number)
    for fault in FAULTS
    for kind, number in LINES[fault]
    for when in ("before", "after")
    if fault == "kill" or (kind, number) in IN_FORCE or (when, kind, number) == LAST
]
# The places between which the container is changed, or the change is reverted.
TURNS = [
    ("after", "intent", 1),
    ("before", "proof", 1),
    ("after", "event", 1),
    ("before", "proof", 2),
    ("after", "undone", 1),
]
ATTACHED = [(fault, *turn) for fault in FAULTS for turn in TURNS]
LIVING = [(fault, "never", "dies", 1) for fault in FAULTS]


@pytest.fixture(scope="module")
def image():
    require("sim")
    return tiny_stack.image()


@pytest.fixture(scope="module")
def own(request, image, tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")

    def perish(case):
        fault, when, kind, number = case
        killer = KILLER.format(when=when, kind=kind, number=number)
        tiny = tiny_stack.make(folder / named(case), image, fault=fault, conftest=killer)
        engine = Engine()
        try:
            if case in LIVING:
                code, said = tiny.run()
                assert code == 0, said
                return tiny.reports
            pid, died_s = die(tiny.start(), tiny.reports)
            return tiny_stack.clean_after_s(tiny, tiny_stack.project_of(pid), engine, died_s)
        finally:
            engine.close()

    yield from in_the_background(perish, chosen(request, "case"))


@pytest.mark.sampled(share=0.12, by=stage)
@pytest.mark.parametrize("case", OWN, ids=named)
def test_nothing_is_left_of_a_run_that_was_killed(own, case, record_testsuite_property):
    took_s = own[case].result()

    record_testsuite_property(f"gone after a kill {named(case)}, in seconds", round(took_s, 3))


@pytest.mark.sampled(share=0.4)
@pytest.mark.parametrize("case", LIVING, ids=named)
def test_no_line_of_a_trial_is_missing_here(own, case):
    reports = own[case].result()

    assert kinds(reports) == LINES[case[0]]
    schema = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    assert [str(problem) for line in sessions.lines(reports) for problem in schema.iter_errors(line)] == []


@pytest.fixture(scope="module")
def attached(request, image, tmp_path_factory):
    """Stacks of another owner, one for each session that dies in parallel."""
    folder, cases, stacks = tmp_path_factory.mktemp("attached"), chosen(request, "attached_case"), queue.Queue()
    ups = []

    def compose(environment, *words):
        command = ["docker", "compose", "-f", str(tiny_stack.HERE / "compose.yaml"), *words]
        docker_cli.run(command, env=docker_cli.environment(environment), timeout_s=90)

    def perish(case):
        fault, when, kind, number = case
        environment = stacks.get()
        killer = KILLER.format(when=when, kind=kind, number=number)
        tiny = tiny_stack.make(folder / named(case), image, fault=fault, attach=True, conftest=killer)
        tiny.environment.update(environment)
        engine, project = Engine(), environment["COMPOSE_PROJECT_NAME"]
        try:
            before = engine.looks(project)
            pid, died_s = die(tiny.start("--chaos-unleash"), tiny.reports)
            judge = f"{tiny_stack.project_of(pid)}-judge"

            def left():
                looks = engine.looks(project)
                changed = [] if looks == before else [f"{looks}, not {before}"]
                return [*changed, *engine.left(judge), *tiny_stack.processes_of(tiny.folder)]

            return seconds_until_gone(left, died_s)
        finally:
            engine.close()
            stacks.put(environment)

    try:
        for number in range(min(SIDE_BY_SIDE, len(cases))):
            port = {"TINY_DESK_PORT": str(29310 + number)}
            environment = {"TINY_IMAGE": image, "COMPOSE_PROJECT_NAME": f"tinydesk{os.getpid()}-{number}", **port}
            ups.append(environment)
            compose(environment, "up", "--detach", "--wait")
            stacks.put(environment)
        yield from in_the_background(perish, cases)
    finally:
        for environment in ups:
            compose(environment, "down", "--volumes", "--timeout", "0")


@pytest.mark.sampled(by=lambda parameters: parameters["attached_case"][0])
@pytest.mark.parametrize("attached_case", ATTACHED, ids=named)
def test_an_attached_stack_is_restored(attached, attached_case, record_testsuite_property):
    took_s = attached[attached_case].result()

    record_testsuite_property(f"reverted after a kill {named(attached_case)}, in seconds", round(took_s, 3))


SCALED = """
services:
  helper:
    extends: {file: COMPOSE, service: desk}
    ports: !reset []
    scale: 2
"""


@pytest.mark.sampled
@pytest.mark.parametrize("fault", FAULTS)
def test_one_container_of_an_attached_service_is_hit_and_restored(image, tmp_path, fault):
    project, files = f"tinyscaled{os.getpid()}", [tiny_stack.HERE / "compose.yaml", tmp_path / "scaled.yaml"]
    files[1].write_text(SCALED.replace("COMPOSE", str(files[0])))
    own = {"TINY_IMAGE": image, "COMPOSE_PROJECT_NAME": project, "TINY_DESK_PORT": "29314"}
    compose = ["docker", "compose", *(word for file in files for word in ("-f", str(file)))]
    call, more = FAULTS[fault]
    tiny = tiny_stack.make(
        tmp_path / "tiny", image, attach=True, conftest=KILLER.format(when="after", kind="proof", number=1)
    )
    tiny.scenario("doomed", call.replace('"desk"', '"helper#2"'), more)
    ini = tiny.folder / "pytest.ini"
    ini.write_text(ini.read_text().replace("llmchaos_targets = desk", "llmchaos_targets = helper"))
    tiny.environment.update(own)
    with contextlib.closing(Engine()) as engine:
        try:
            docker_cli.run([*compose, "up", "--detach", "--wait"], env=docker_cli.environment(own), timeout_s=90)
            before, since_s = engine.looks(project), time.time()

            pid, died_s = die(tiny.start("--chaos-unleash"), tiny.reports)

            def left():
                looks = engine.looks(project)
                changed = [] if looks == before else [f"{looks}, not {before}"]
                return [*changed, *engine.left(f"{tiny_stack.project_of(pid)}-judge")]

            seconds_until_gone(left, died_s)
            # Docker changes no container for a fault on the wire.
            hit = set() if fault == "flaky" else {f"{project}-helper-2"}
            assert engine.acted_on(project, since_s) == hit
        finally:
            docker_cli.run([*compose, "down", "--volumes", "--timeout", "0"], env=docker_cli.environment(own))


LAB = '''
"""It is killed before it can be judged."""
from pytest_llmchaos import experiment, faults, loads

pytestmark = experiment(
    load=loads.open_loop(rate_rps=10, max_tokens=4), fault=faults.{fault}, remediator=False,
    steady_s=1, stable_s=1{more}
)

def test_it(trial):
    assert trial.whole.offered
'''


def start_on_the_lab(tmp_path, fault, killer=""):
    require("sim")
    suite = tmp_path / "suite"
    suite.mkdir()
    call = FAULTS[fault][0]
    more = ", repair_within_s=2" if fault == "kill" else ", settle_within_s=2, fault_s=1"
    (suite / "test_doomed.py").write_text(
        LAB.format(fault=call.replace("desk", "model-1").replace("=64", "=128"), more=more)
    )
    (suite / "conftest.py").write_text(killer)
    (suite / "pytest.ini").write_text("[pytest]\n")
    reports = tmp_path / "reports"
    arguments = [str(suite), f"--rootdir={suite}", f"--confcutdir={suite}", "-c", str(suite / "pytest.ini")]
    return sessions.start(reports, *arguments, "--chaos-backend=sim", "--chaos-runtime=compose"), reports


def lab_gone_after_s(tmp_path, project, died_s):
    engine = Engine()
    tiny = tiny_stack.Tiny(folder=tmp_path, environment={})
    try:
        return tiny_stack.clean_after_s(tiny, project, engine, died_s)
    finally:
        engine.close()


@pytest.mark.sampled
@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_is_left_of_the_whole_lab_either(tmp_path, fault, record_testsuite_property):
    child, reports = start_on_the_lab(tmp_path, fault, KILLER.format(when="after", kind="proof", number=1))
    try:
        child.wait(timeout=60)
    finally:
        child.kill()
    died_s = time.monotonic()

    assert child.returncode == -signal.SIGKILL, sessions.said(reports)
    took_s = lab_gone_after_s(tmp_path, tiny_stack.project_of(child.pid), died_s)
    record_testsuite_property(f"whole lab gone after a kill in {fault}, in seconds", round(took_s, 3))


def test_nothing_is_left_of_a_run_that_was_killed_during_its_start(tmp_path):
    child, reports = start_on_the_lab(tmp_path, "kill", ALONE)
    try:
        line = until(lambda: sessions.of_kind(reports, "stack"), "the stack was announced", 30)[0]
        label = f"label=com.docker.compose.project={line['project']}"
        until(lambda: docker_cli.list_rows("container", label), "the first container was made", 30)
    finally:
        child.kill()
        child.wait()
    died_s = time.monotonic()

    assert sessions.of_kind(reports, "stack_up") == []
    lab_gone_after_s(tmp_path, line["project"], died_s)
    time.sleep(1.5)  # nothing may appear in this time, so there is no event to wait for
    assert sessions.leftovers(line["project"]) == []
