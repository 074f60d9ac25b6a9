"""Repeated runs, control arms, and replays of a run.json."""

import json
import re
import subprocess
import sys

import jsonschema
import pytest
from support import sessions
from support.stacks import ROOT, require

from pytest_llmchaos.plan.schedule import schedule_bytes

pytestmark = pytest.mark.stack

SCHEMA = json.loads((ROOT / "pytest_llmchaos" / "report" / "run.schema.json").read_text())
SCENARIO = '''
"""It comes back."""
from pytest_llmchaos import experiment, faults, loads

pytestmark = experiment(
    load=loads.open_loop(rate_rps=20, max_tokens=8), fault={fault}, steady_s=2, stable_s={stable_s}, repair_within_s=30
)

def test_it_comes_back(trial):
    assert trial.is_control or trial.time_to_recover_s <= 20

def test_without_a_fault_nothing_happens(trial):
    assert not trial.is_control or (trial.alerts, trial.actions, trial.restarts) == ((), (), {{}})
'''
BACKEND = "--chaos-backend=sim"


def written(folder, fault, stable_s=2):
    path = folder / "test_back.py"
    path.write_text(SCENARIO.format(fault=fault, stable_s=stable_s))
    return str(path)


@pytest.mark.nightly(
    "test_plugin repeats trials, test_report_effects has the times of many, test_trials performs many on one stack"
)
def test_repeated_trials_give_mttd_and_mttr_with_n_and_spread(tmp_path):
    require("sim")
    scenario = written(tmp_path, 'faults.kill("api")')

    code, out = sessions.run(tmp_path / "reports", scenario, BACKEND, "--chaos-repeat=3", "--chaos-seed=42")

    assert code == 0, out[-4000:]
    run = sessions.run_json(tmp_path / "reports")
    jsonschema.validate(run, SCHEMA)
    assert [(trial["repeat"], trial["verdict"]) for trial in run["trials"]] == [(0, "held"), (1, "held"), (2, "held")]
    for times, key in zip(run["times"], ("time_to_detect_s", "time_to_recover_s"), strict=True):
        values = sorted(trial[key] for trial in run["trials"])
        assert (times["time"], times["n"], times["never"]) == (key, 3, 0)
        assert (times["least_s"], times["median_s"], times["most_s"]) == tuple(values)
        assert times["mean_s"] == pytest.approx(sum(values) / 3, abs=0.001)
        assert times["deviation_s"] > 0
    assert re.search(r"back: kill api: MTTD [\d.]+ s \(n=3, median [\d.]+ s, [\d.]+ to [\d.]+ s\)", out)
    assert "| MTTR | 3 |" in (tmp_path / "reports" / "latest" / "summary.md").read_text()
    assert "MTTR" in (tmp_path / "reports" / "latest" / "report.html").read_text()


@pytest.mark.nightly(
    "test_plugin performs a replay and refuses one of something else; test_schedule has the same bytes"
)
def test_a_run_is_performed_again_from_its_run_json_with_the_same_victims(tmp_path):
    require("sim")
    arms = '[faults.kill("model-*"), faults.none()]'
    scenario = written(tmp_path, arms)

    code, out = sessions.run(tmp_path / "first", scenario, BACKEND, "--chaos-seed=11")
    assert code == 0, out[-4000:]
    first = sessions.run_json(tmp_path / "first")
    replay = f"--chaos-replay={tmp_path / 'first' / 'latest' / 'run.json'}"
    code, out = sessions.run(tmp_path / "again", scenario, BACKEND, replay)
    assert code == 0, out[-4000:]
    again = sessions.run_json(tmp_path / "again")

    assert schedule_bytes(again["schedule"]) == schedule_bytes(first["schedule"])
    assert again["seed"] == first["seed"] == 11
    victims = [[trial["victim"] for trial in run["trials"]] for run in (first, again)]
    assert victims[0] == victims[1]
    assert victims[0][0] in {"model-1", "model-2"}
    planned = next(entry for entry in first["schedule"] if entry["injections"])["injections"][0]["victim"]
    assert {planned} == {act["victim"] for act in sessions.of_kind(tmp_path / "again", "intent")}
    assert [trial["verdict"] for trial in again["trials"]] == ["held", "held"]
    effect = first["trials"][0]["effect"]
    assert (effect["control"], effect["reason"]) == (first["trials"][1]["trial"], None)
    assert effect["availability"]["low"] <= effect["availability"]["value"] <= effect["availability"]["high"]
    assert min(effect["requests"].values()) >= 40

    for changed, args, message in (
        (arms, ["--chaos-seed=12"], "--chaos-seed=12 contradicts --chaos-replay="),
        ('[faults.kill("api"), faults.none()]', [], "differs from the recorded schedule"),
    ):
        reports = tmp_path / f"refused {len(args)}"
        code, out = sessions.run(reports, written(tmp_path, changed), BACKEND, replay, *args)
        assert code == 4, out[-3000:]
        assert message in out
        assert out.count("ERROR") == 1
        assert sessions.of_kind(reports, "stack") == []


@pytest.mark.nightly(
    "test_foreign_faults plans a fault of a package that it installs, test_fault_contract has the contract"
)
def test_the_fault_of_another_package_is_performed_and_proven(tmp_path):
    """The package, scenario and test of docs/faults.md, read from there."""
    require("sim")
    text = (ROOT / "docs" / "faults.md").read_text()
    toml, module, scenario, contract = re.findall(r"```(?:toml|python)\n(.*?)```", text, re.DOTALL)[-4:]
    source, site = tmp_path / "source", tmp_path / "site"
    source.mkdir()
    for name, part in (("pyproject.toml", toml), ("chaos_migration.py", module)):
        (source / name).write_text(part)
    for name, part in (("test_migration.py", scenario), ("test_contract.py", contract)):
        (tmp_path / name).write_text(part)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--target", str(site), str(source)], check=True)

    code, out = sessions.run(
        tmp_path / "reports",
        str(tmp_path / "test_migration.py"),
        str(tmp_path / "test_contract.py"),
        BACKEND,
        env={"PYTHONPATH": f"{site}:{ROOT}"},
    )

    assert code == 0, out[-4000:]
    run = sessions.run_json(tmp_path / "reports")
    trial = next(trial for trial in run["trials"] if trial["scenario"] == "migration")
    assert (trial["verdict"], trial["fidelity"], trial["healed"]) == ("held", "kernel", True)
    assert trial["victim"] in {"model-1", "model-2"}
    assert [proof["step"] for proof in trial["proof"]] == ["injected", "healed"]
    assert run["catalogue"]["faults"][-1] == "live_migration"
