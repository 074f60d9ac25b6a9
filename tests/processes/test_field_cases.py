"""Defects that others reported, on the versions that have them.

The desk's ledger is their witness. A defect that is gone after an update of
tests/field.lock makes its test fail.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from support.desk_process import DeskProcess

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.runtime.local import prerequisites

TESTS = Path(__file__).parents[1]
PROGRAMS = TESTS / "support" / "field"
HANGS_S = 5.0  # a healthy client has raised after milliseconds
START_S = 60.0
pytestmark = [
    pytest.mark.nightly("test_lab_agents_process: the lab's own agents with a dead desk, and killed in a call"),
    pytest.mark.timeout(180),
]


@pytest.fixture(scope="module")
def field():
    """PYTHONPATH of the versions of tests/field.lock."""
    try:
        return str(prerequisites.agents_packages(TESTS / "field.lock"))
    except NotReady as lacking:
        pytest.skip(str(lacking))


@pytest.fixture
def desk(tmp_path):
    """Starts desks on one ledger."""
    started = []

    def start(**more):
        started.append(DeskProcess(tmp_path / "ledger.sqlite", **more))
        return started[-1].ready()

    yield start
    for process in started:
        process.popen.kill()
        process.popen.communicate()


def program(name, *arguments, packages):
    """A program with these packages alone, its output in lines."""
    own = ["-S"] if packages else []
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": packages}
    command = [sys.executable, *own, str(PROGRAMS / name), *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def refund_of(desk, packages):
    """The word that a client prints whose server dies in its call. None: it waits."""
    client = program("mcp_client.py", desk.url, packages=packages)
    try:
        assert client.stdout.readline() == "calls\n", client.communicate()
        assert desk.popen.wait(START_S) == -signal.SIGKILL  # the call has arrived
        try:
            return client.communicate(timeout=HANGS_S)[0].split(" ")[0]
        except subprocess.TimeoutExpired:
            return None
    finally:
        client.kill()
        client.communicate()


def test_a_client_of_mcp_1_20_hangs_for_ever_when_its_server_dies_in_a_call(desk, field):
    """Issue 1577 of modelcontextprotocol/python-sdk. Version 2 raises at once.

    https://github.com/modelcontextprotocol/python-sdk/issues/1577
    """
    assert refund_of(desk(dies_at="apply"), field) is None
    assert refund_of(desk(dies_at="apply"), "") == "raised"


def effects_after_resume(desk, packages, folder, first, slow):
    """Effects of both orders, of a graph that was killed while it saved its first."""
    given = (desk.url, folder / f"{slow}.sqlite", first)
    killed = program("langgraph_order.py", *given, slow, packages=packages)
    assert (killed.wait(START_S), killed.communicate()[0]) == (-signal.SIGKILL, "")
    resumed = program("langgraph_order.py", *given, "none", packages=packages)
    out, err = resumed.communicate(timeout=START_S)
    assert (resumed.returncode, out) == (0, str({"order": first + 1})), err
    found = Counter(row["order"] for row in desk.ledger() if row["effect"])
    return [found[first], found[first + 1]]


def test_langgraph_1_2_repeats_a_step_or_not_by_the_order_of_its_writes(desk, field, tmp_path):
    """Issue 8039 of langchain-ai/langgraph.

    https://github.com/langchain-ai/langgraph/issues/8039

    With durability="sync", results of a step and the checkpoint that replaces it are
    written without an order. A SIGKILL then finds the results saved, or not.
    """
    ledger = desk()

    assert effects_after_resume(ledger, field, tmp_path, 1, "writes") == [2, 1]
    assert effects_after_resume(ledger, field, tmp_path, 3, "put") == [1, 1]
