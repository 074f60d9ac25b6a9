"""Runs of one seed on both runtimes, equal except for measured values."""

from __future__ import annotations

import json
import re

import jsonschema
import pytest
from support import sessions
from support.runtimes import RUNTIMES, require_runtime

pytestmark = [
    pytest.mark.stack,
    pytest.mark.timeout(180),
    pytest.mark.nightly(
        "test_runtime_contract checks both runtimes the same way; test_local_runtime and test_sessions keep to the format"
    ),
]

SCENARIO = '''"""A killed api is repaired; without a fault nothing acts."""
import pytest
from pytest_llmchaos import experiment, faults, loads
from pytest_llmchaos.errors import NotRecovered
LOAD = loads.open_loop(rate_rps=10, max_tokens=8)

@experiment(load=LOAD, fault=faults.kill("api"), steady_s=6, repair_within_s=20, stable_s=1)
def test_repaired(trial):
    assert trial.repaired_by == "remediator"

@experiment(load=LOAD, fault=faults.kill("model-*"), steady_s=4, repair_within_s=5, stable_s=1, remediator=False)
def test_not_repaired(trial):
    with pytest.raises(NotRecovered):
        trial.time_to_recover_s

@experiment(load=LOAD, fault=faults.none(), steady_s=4, repair_within_s=5, stable_s=2)
def test_nothing_acts(trial):
    assert trial.actions == ()
'''
MAY_DIFFER = {"runtime", "environment", "images", "run", "replay"}
# Measured values, besides all that end in `_s`. The first to notice differs by
# milliseconds.
MEASURED = {
    "offered",
    "ok",
    "outcomes",
    "value",
    "budget_spent",
    "burn_rate",
    "clients_say",
    "raw",
    "estimated",
    "met",
    "attempts_per_request",
    "answered",
    "of",
    "load",
}
NOTICED = {"detected_by", "coincident"}
# Begin and end of alerts differ by milliseconds. So does a readiness check, once a
# second, that falls into the time of a repair.
CHRONICLE = {"events", "findings", "readyz"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """run.json of each runtime."""
    folder = tmp_path_factory.mktemp("alike")
    for name in RUNTIMES:
        require_runtime(name)
    (folder / "test_alike.py").write_text(SCENARIO)
    found = {}
    for name in RUNTIMES:
        options = (f"--chaos-runtime={name}", "--chaos-backend=sim", "--chaos-seed=7")
        code, out = sessions.run(folder / name, str(folder / "test_alike.py"), *options)
        assert code == 0, out[-4000:]
        found[name] = sessions.run_json(folder / name)
    return found


def comparable(value, key=""):
    """The values that must be equal. Of a measurement only its place."""
    if key in MEASURED | NOTICED or key.endswith("_s"):
        return "measured"
    if key == "query":
        return re.sub(r"\b\d+ms\b", "TIME", value)
    if isinstance(value, dict):
        return {name: comparable(one, name) for name, one in value.items() if name not in MAY_DIFFER | CHRONICLE}
    if isinstance(value, list):
        return [comparable(one, key) for one in value]
    return value


def flat(value, path=""):
    """Each value by its path."""
    named = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    parts = {at: one for name, part in named for at, one in flat(part, f"{path}/{name}").items()}
    return parts or {path: value}


def test_two_runs_of_one_seed_are_alike(runs):
    compose, local = (comparable(runs[name]) for name in ("compose", "local"))
    left, right = flat(compose), flat(local)

    differ = {path: (left.get(path, "absent"), right.get(path, "absent")) for path in left.keys() | right.keys()}
    assert {path: pair for path, pair in differ.items() if pair[0] != pair[1]} == {}
    assert local["seed"] == 7
    assert [trial["verdict"] for trial in local["trials"]] == ["held"] * 3


def test_they_had_the_same_schedule_and_victims(runs):
    compose, local = (runs[name] for name in ("compose", "local"))

    assert local["schedule"] == compose["schedule"]
    assert len(local["schedule"]) == 3
    assert all(len(one["arrivals_sha256"]) == 64 for one in local["schedule"])
    assert [trial["victim"] for trial in local["trials"]] == [trial["victim"] for trial in compose["trials"]]


def test_they_saw_the_same_acts_of_the_runtime(runs):
    def acts(run):
        return [sorted({what for what in _by_runtime(trial) if "health_status" not in what}) for trial in run["trials"]]

    assert acts(runs["local"]) == acts(runs["compose"])
    assert len(acts(runs["local"])[0]) == 3


def _by_runtime(trial):
    return [event["what"] for event in trial["events"] if event["source"] == "runtime"]


def test_a_difference_is_named_with_its_place(runs):
    assert {name: run["runtime"] for name, run in runs.items()} == {"compose": "compose", "local": "local"}
    ran_as = {name: run["environment"]["services run as"] for name, run in runs.items()}
    assert ran_as == {"compose": "containers", "local": "process, not container"}
    assert runs["local"]["environment"].keys() == runs["compose"]["environment"].keys()
    assert runs["local"]["stack"].keys() == runs["compose"]["stack"].keys()


@pytest.mark.parametrize("name", sorted(RUNTIMES))
def test_both_keep_the_format(runs, name):
    schema = json.loads((sessions.ROOT / "pytest_llmchaos/report/run.schema.json").read_text())
    validator = jsonschema.Draft202012Validator(schema)

    assert [str(problem) for problem in validator.iter_errors(runs[name])] == []
