"""Deaths of pytest at every line of a local trial's journal.

pytest is killed before and after each line. Within 3 s no process of the run may be
left. `test_journal_boundaries` does the same for containers. These sessions do not wait
for Prometheus' first scrape, which changes nothing about orphans.
"""

from __future__ import annotations

import pytest
from support import sessions, tiny_stack
from support.dying import (
    AFTER,
    ALONE,
    BEFORE,
    IN_FORCE,
    JUDGED,
    KILLER,
    chosen,
    die,
    in_the_background,
    kinds,
    named,
    stage,
)
from support.gone import seconds_until_gone

from pytest_llmchaos.runtime.local import cleanup

pytestmark = [pytest.mark.stack, pytest.mark.timeout(180), pytest.mark.usefixtures("local_programs")]

SCENARIO = '''
"""A model that is hit."""
from pytest_llmchaos import experiment, faults, loads

pytestmark = experiment(
    load=loads.open_loop(rate_rps=10, max_tokens=2), fault=faults.{call}("model-1"), remediator=False,
    steady_s=1, stable_s=0.5, {within}
)

def test_it(trial):
    assert trial.whole.offered
'''
AT_ONCE = """
from pytest_llmchaos.lab.lab import Lab

Lab._scraped = lambda self: True
"""
PASSING = "settle_within_s=2, fault_s=0.5"
FAULTS = {"kill": "repair_within_s=2", "pause": PASSING, "flaky": PASSING}  # with their deadlines
# Events are copied in one go after everything is over, so no death is tested there.
LINES = [*BEFORE, *IN_FORCE, *AFTER, *JUDGED[1:]]
# Before a fault's intent and after its end, the kind of fault makes no difference.
CASES = [
    (fault, when, kind, number)
    for fault in FAULTS
    for kind, number in (LINES if fault == "kill" else IN_FORCE)
    for when in ("before", "after")
]


def start(folder, fault, conftest):
    folder.mkdir()
    (folder / "test_doomed.py").write_text(SCENARIO.format(call=fault, within=FAULTS[fault]))
    (folder / "conftest.py").write_text(conftest)
    (folder / "pytest.ini").write_text("[pytest]\n")
    arguments = [str(folder), f"--rootdir={folder}", f"--confcutdir={folder}", "-c", str(folder / "pytest.ini")]
    options = ("--chaos-runtime=local", "--chaos-backend=sim")
    return sessions.start(folder / "reports", *arguments, *options), folder / "reports"


@pytest.fixture(scope="module")
def dead(request, tmp_path_factory):
    home = tmp_path_factory.mktemp("local")

    def perish(case):
        fault, when, kind, number = case
        folder = home / named(case)
        pid, died_s = die(*start(folder, fault, KILLER.format(when=when, kind=kind, number=number) + AT_ONCE))

        def left():
            found = [*cleanup.processes_of(tiny_stack.project_of(pid)), *tiny_stack.processes_of(folder)]
            return found + [str(path) for path in (folder / "reports").glob("2*/local")]

        return seconds_until_gone(left, died_s)

    yield from in_the_background(perish, chosen(request, "case"))


@pytest.mark.sampled(share=0.12, by=stage)
@pytest.mark.parametrize("case", CASES, ids=named)
def test_no_process_is_left_of_a_run_that_was_killed(dead, case, record_testsuite_property):
    took_s = dead[case].result()

    record_testsuite_property(f"local run gone after a kill {named(case)}, in seconds", round(took_s, 3))


@pytest.mark.sampled
@pytest.mark.parametrize("fault", FAULTS)
def test_no_line_of_a_trial_is_missing_here(tmp_path, fault):
    child, reports = start(tmp_path / "lives", fault, ALONE)

    assert child.wait(timeout=60) == 0, sessions.said(reports)
    copied = [(kind, n) for kind, n in kinds(reports) if kind == "finding" or (kind == "event" and n > 1)]
    assert [line for line in kinds(reports) if line not in copied] == LINES
