"""Scenarios of autoscaling as whole sessions, on both runtimes."""

from __future__ import annotations

import json

import pytest
from support import sessions
from support.scenario_files import name_of

pytestmark = [pytest.mark.stack, pytest.mark.timeout(1200), pytest.mark.usefixtures("local_programs")]

FILES = sorted((sessions.ROOT / "scenarios" / "autoscaling").glob("test_*.py"))


@pytest.mark.nightly("test_scaling has the claims, test_autoscaled_loads the loads, test_fault_agent_stale the faults")
@pytest.mark.parametrize("runtime", ["local", "compose"])
@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_the_claims_of_every_scenario_hold(tmp_path, file, runtime):
    code, out = sessions.run(
        tmp_path / "reports", str(file), f"--chaos-runtime={runtime}", "--chaos-backend=sim", timeout_s=500
    )

    assert code == 0, out[-6000:]
    run = json.loads((tmp_path / "reports" / "latest" / "run.json").read_text())
    assert {trial["verdict"] for trial in run["trials"]} == {"held"}, "skipped ones prove nothing"
