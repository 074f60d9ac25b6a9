"""Two xdist workers on one machine, each with a stack, measuring in turn."""

import pytest
from support import sessions
from support.stacks import require

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]

SCENARIO = '''"""{name} is repaired."""
from pytest_llmchaos import experiment, faults, loads

pytestmark = experiment(
    load=loads.open_loop(rate_rps=10, max_tokens=4), fault=faults.kill("{name}"), steady_s=2, stable_s=2
)


def test_it_is_repaired(trial):
    assert trial.repaired_by == "remediator"


def test_a_second_claim_is_asked_of_the_same_trial(trial):
    assert trial.whole.offered
'''


@pytest.mark.nightly(
    "test_deaths has two sessions of which one waits for the other, and workers that end with their stacks"
)
def test_each_worker_has_a_stack_of_its_own_and_they_measure_in_turn(tmp_path):
    require("sim")
    files = []
    for name in ("api", "model-1"):
        file = tmp_path / f"test_{name.replace('-', '_')}.py"
        file.write_text(SCENARIO.format(name=name))
        files.append(str(file))
    reports = tmp_path / "reports"

    code, out = sessions.run(
        reports, *files, "-p", "xdist", "-n", "2", "--chaos-backend=sim", "--chaos-seed=42", timeout_s=200
    )

    assert code == 0, out[-4000:]
    stacks = sessions.of_kind(reports, "stack")
    assert len({one["project"] for one in stacks}) == 2
    journals = sorted(path.name for path in reports.glob("2*/journal*.jsonl"))
    assert journals == ["journal-gw0.jsonl", "journal-gw1.jsonl"]
    # A trial has the measurement lock from its first line to its verdict.
    begun = sorted(one["at_unix_s"] for one in sessions.of_kind(reports, "trial"))
    ended = sorted(one["at_unix_s"] for one in sessions.of_kind(reports, "judged"))
    assert len(begun) == len(ended) == 2
    assert [len(trial["claims"]) for trial in sessions.run_json(reports)["trials"]] == [2, 2]
    assert ended[0] <= begun[1]
    # The start of the other stack does not disturb it.
    up = sorted(one["at_unix_s"] for one in sessions.of_kind(reports, "stack_up"))
    assert ended[0] <= up[1]
    for stack in stacks:
        assert sessions.leftovers(stack["project"]) == []
