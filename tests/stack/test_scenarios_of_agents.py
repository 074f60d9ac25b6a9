"""Scenarios of agents as whole sessions in the local runtime."""

from __future__ import annotations

import pytest
from support import sessions
from support.scenario_files import name_of

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900), pytest.mark.usefixtures("local_programs")]

FOLDER = sessions.ROOT / "scenarios" / "agents"
CHEAP = "two_workers_one_task"
OTHERS = [name for path in sorted(FOLDER.glob("test_*.py")) if (name := name_of(path)) != CHEAP]


def hold(reports, name):
    file = FOLDER / f"test_{name}.py"
    code, out = sessions.run(reports, str(file), "--chaos-runtime=local", "--chaos-backend=sim", timeout_s=800)

    assert code == 0, out[-6000:]


def test_the_claims_of_two_agents_hold(tmp_path):
    hold(tmp_path / "reports", CHEAP)


@pytest.mark.nightly(
    "test_lab_agents_process has the agents' tasks, test_tasks their judgement, and one scenario is above"
)
@pytest.mark.parametrize("name", OTHERS)
def test_the_claims_of_every_scenario_hold(tmp_path, name):
    hold(tmp_path / "reports", name)
