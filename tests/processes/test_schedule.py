"""The schedule of one seed, equal under any pytest options."""

import json
import os
import subprocess
import sys

import pytest

SCENARIO = '''
"""It holds."""
from pytest_llmchaos import experiment, faults, loads

ANY = [faults.kill("api"), faults.restart("model-*"), faults.pause("model-*")]
FAULTS = [faults.random(n=3, among=ANY, within_s=20), faults.kill("model-*"), faults.none()]
pytestmark = experiment(load=loads.poisson(rate_rps=2, max_tokens=8), fault=FAULTS, fault_s=3)

def test_one(trial):
    assert trial

def test_two(trial):
    assert trial

@experiment(load=loads.open_loop(rate_rps=4, max_tokens=8), fault=faults.kill("model-*"))
def test_three(trial):
    assert trial
'''
# A schedule needs no stack, because it is journalled before the start.
DOUBLE = """
from pytest_llmchaos.session.campaign import Campaign
from pytest_llmchaos.trial.perform import Performed
from pytest_llmchaos.errors import Unsupported

Campaign.preflight = lambda self: self.run.announce([trial.entry for trial in self.schedule()])
Campaign._perform = lambda self, plan: Performed(name="001", trial=None, error=Unsupported("nothing is performed here"))
"""
WAYS = {
    "as it is": [],
    "reversed, in one process": ["-n", "0", "test_c.py", "test_b.py", "test_a.py"],
    "in random order, from another folder": ["-p", "pytest_randomly"],
    "two workers": ["-n", "2"],
    "selected": ["-k", "test_b"],
    "another seed": ["--chaos-seed=43"],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """run.json of each way to run the same three files, by name, in parallel."""
    folder, elsewhere = tmp_path_factory.mktemp("scenarios"), tmp_path_factory.mktemp("elsewhere")
    for name in "abc":
        (folder / f"test_{name}.py").write_text(SCENARIO)
    (folder / "conftest.py").write_text(DOUBLE)
    (folder / "pytest.ini").write_text("[pytest]\n")
    common = ["-p", "pytest_llmchaos.plugin", "-p", "xdist", "--chaos-runtime=compose", "--chaos-backend=sim"]
    children, reports = {}, {}
    for number, (way, args) in enumerate(WAYS.items()):
        reports[way] = folder / f"reports-{number}"
        seed = [] if "seed" in way else ["--chaos-seed=42"]
        where = [str(folder)] if "folder" in way else []
        command = [sys.executable, "-m", "pytest", *common, *seed, f"--chaos-report={reports[way]}", *args]
        children[way] = subprocess.Popen(
            [*command, *where],
            cwd=elsewhere if where else folder,
            env={**os.environ, "PYTHONHASHSEED": str(number), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    said = {way: (child.communicate()[0], child.returncode) for way, child in children.items()}
    for way, (out, status) in said.items():
        assert status == 0, f"{way}:\n{out}"
    return {way: json.loads((path / "latest" / "run.json").read_text()) for way, path in reports.items()}


def text(schedule):
    """The schedule's text in the file, with its order of keys."""
    return json.dumps(schedule)


@pytest.mark.parametrize("way", [way for way in WAYS if way not in {"as it is", "selected", "another seed"}])
def test_the_same_seed_gives_the_same_bytes(runs, way):
    assert text(runs[way]["schedule"]) == text(runs["as it is"]["schedule"])


def test_a_selection_is_a_part_of_the_whole_byte_for_byte(runs):
    part = runs["selected"]["schedule"]

    assert text(part) == text([entry for entry in runs["as it is"]["schedule"] if entry["scenario"] == "b"])
    assert len(part) == 4


def test_every_trial_stands_in_it_once_with_what_was_drawn(runs):
    schedule = runs["as it is"]["schedule"]

    assert len(schedule) == 3 * 4
    loads = {(entry["scenario"], entry["fault"], entry["load"]): entry["arrivals_sha256"] for entry in schedule}
    poisson = "poisson 2/s short-chat, 8 tokens"
    assert all(loads[name, "kill model-*", poisson] == loads[name, "none", poisson] for name in "abc")
    assert len(set(loads.values())) == 3 * 3
    drawn = [entry for entry in schedule if entry["fault"].startswith("random")]
    assert len({text(entry["injections"]) for entry in drawn}) == 3


def test_another_seed_gives_other_bytes(runs):
    assert text(runs["another seed"]["schedule"]) != text(runs["as it is"]["schedule"])
