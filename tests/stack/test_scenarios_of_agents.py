"""Scenarios of agents as whole sessions in the local runtime."""

from __future__ import annotations

import json

import pytest
from support import sessions
from support.scenario_files import name_of

pytestmark = [pytest.mark.stack, pytest.mark.timeout(2000), pytest.mark.usefixtures("local_programs")]

FILES = sorted((sessions.ROOT / "scenarios" / "agents").glob("test_*.py"))


@pytest.mark.nightly(
    "test_lab_agents_process has the agents' tasks, test_tasks their judgement, test_agents_stack the stack"
)
@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_the_claims_of_every_scenario_hold(tmp_path, file):
    code, out = sessions.run(
        tmp_path / "reports", str(file), "--chaos-runtime=local", "--chaos-backend=sim", timeout_s=800
    )

    assert code == 0, out[-6000:]
    run = json.loads((tmp_path / "reports" / "latest" / "run.json").read_text())
    assert {trial["verdict"] for trial in run["trials"]} == {"held"}, "skipped ones prove nothing"
