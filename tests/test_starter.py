"""`llmchaos init`: the lab's project, and how it is written."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from support.doc_blocks import Block
from support.doc_commands import check_shell

from pytest_llmchaos.cli import main as llmchaos
from pytest_llmchaos.generate.starter import lab_project
from pytest_llmchaos.subject.lab import lab_subject

ROOT = Path(__file__).parent.parent


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def keys_of(folder):
    return tomllib.loads((folder / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]


def workflow_of(folder):
    (path,) = (folder / ".github" / "workflows").iterdir()
    (job,) = yaml.safe_load(path.read_text())["jobs"].values()
    return job


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        ([], {}),
        (["--runtime=local"], {"llmchaos_runtime": "local", "llmchaos_backend": "llamacpp"}),
        (["--runtime=compose"], {"llmchaos_runtime": "compose", "llmchaos_backend": "ollama"}),
        (["--runtime=local", "--backend=sim"], {"llmchaos_runtime": "local", "llmchaos_backend": "sim"}),
        (["--backend=sim"], {"llmchaos_backend": "sim"}),
    ],
)
def test_the_keys_are_those_of_the_options(tmp_path, options, keys):
    assert llmchaos(["init", str(tmp_path / "demo"), *options]) == 0

    assert keys_of(tmp_path / "demo") == {"testpaths": ["scenarios"], **keys}


@pytest.mark.parametrize("options", [[], ["--runtime=local"], ["--runtime=compose", "--scenario=all"]])
def test_the_commands_of_the_workflow_exist(tmp_path, options):
    llmchaos(["init", str(tmp_path / "demo"), *options])

    job = workflow_of(tmp_path / "demo")

    commands = [step["run"] for step in job["steps"] if "run" in step]
    for command in commands:
        if not command.startswith("if "):
            check_shell(Block("chaos.yml", 1, "sh", "", command))
    assert ("llmchaos setup" in " ".join(commands)) == (options != ["--runtime=local"])
    assert 20 <= job["timeout-minutes"] <= 360  # a job of GitHub Actions takes no more


def test_actions_are_pinned_like_those_of_this_project(tmp_path):
    llmchaos(["init", str(tmp_path / "demo")])
    ours = "".join(path.read_text() for path in (ROOT / ".github" / "workflows").glob("*.yml"))

    used = [step["uses"] for step in workflow_of(tmp_path / "demo")["steps"] if "uses" in step]

    assert len(used) == 4
    assert [one for one in used if one not in ours] == []


def test_an_existing_file_is_not_changed_and_nothing_else_is_written(tmp_path, capsys):
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / ".gitignore").symlink_to("nowhere")

    assert llmchaos(["init", str(tmp_path)]) == 1

    assert files_of(tmp_path) == {"README.md": b"mine"}
    error = capsys.readouterr().err
    assert "has README.md, .gitignore already" in error
    assert "Nothing was written" in error


def test_a_second_call_changes_nothing(tmp_path, capsys):
    llmchaos(["init", str(tmp_path / "demo")])
    before = files_of(tmp_path)

    assert llmchaos(["init", str(tmp_path / "demo"), "--runtime=local"]) == 1
    assert files_of(tmp_path) == before


def test_what_cannot_be_written_whole_is_not_written(tmp_path, capsys):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / ".github").write_text("a file where a folder must be")

    assert llmchaos(["init", str(tmp_path / "demo")]) == 1

    assert files_of(tmp_path / "demo") == {".github": b"a file where a folder must be"}
    assert [path.name for path in (tmp_path / "demo").iterdir()] == [".github"]
    assert "cannot be written" in capsys.readouterr().err


def test_an_unknown_scenario_is_refused_with_the_shipped_ones(tmp_path, capsys):
    assert llmchaos(["init", str(tmp_path / "demo"), "--scenario=kill_apy"]) == 1

    error = capsys.readouterr().err
    assert "kill_api, " in error
    assert "agents/lost_answer, " in error
    assert "a folder of them (agents, autoscaling, patterns) or all, got kill_apy" in error
    assert not (tmp_path / "demo").exists()


def test_scenarios_are_copied_as_they_are(tmp_path):
    llmchaos(["init", str(tmp_path / "demo"), "--scenario=kill_model", "--scenario=random"])

    written = files_of(tmp_path / "demo" / "scenarios")

    assert written == {
        name: (ROOT / "scenarios" / name).read_bytes() for name in ("test_kill_model.py", "test_random.py")
    }


def test_scenarios_of_a_folder_are_named_by_it_or_alone_and_bring_their_data(tmp_path):
    agents = {f"agents/{path.name}" for path in (ROOT / "scenarios" / "agents").glob("test_*.py")}
    every = {path.relative_to(ROOT / "scenarios").as_posix() for path in (ROOT / "scenarios").rglob("test_*.py")}
    expected = {
        "agents/lost_answer": {"agents/test_lost_answer.py"},
        "lost_answer": {"agents/test_lost_answer.py"},
        "agents": agents,
        "affinity": {"patterns/documents.txt", "patterns/test_affinity.py"},
        "autoscaling/scale_from_zero": {"autoscaling/pause.csv", "autoscaling/test_scale_from_zero.py"},
        "all": every | {"autoscaling/pause.csv", "patterns/documents.txt"},
    }

    written = {}
    for name in expected:
        folder = tmp_path / name.replace("/", "-")
        assert llmchaos(["init", str(folder), "--scenario", name]) == 0
        written[name] = files_of(folder / "scenarios")

    assert {name: set(files) for name, files in written.items()} == expected
    for files in written.values():
        assert [path for path, text in files.items() if text != (ROOT / "scenarios" / path).read_bytes()] == []


def test_scenarios_that_need_the_simulated_engine_get_it(tmp_path, capsys):
    """A project whose trials are all skipped would prove nothing."""
    cases = [
        (["lost_answer"], [], "sim", ""),
        (["hung_model", "retry"], ["--runtime=local"], "sim", ""),
        (["kill_api"], ["--runtime=local"], "llamacpp", ""),
        (
            ["kill_api", "hung_model"],
            [],
            None,
            "note: skipped without --backend sim, which gives the simulated engine: hung_model\n",
        ),
        (
            ["all"],
            ["--runtime=compose"],
            "ollama",
            f"which gives the simulated engine: {len(lab_project.names()) - 8} scenarios\n",
        ),
        (["all"], ["--backend=sim"], "sim", ""),
    ]
    wrong = []
    for number, (names, options, backend, note) in enumerate(cases):
        folder = tmp_path / str(number)
        assert llmchaos(["init", str(folder), *options, *(f"--scenario={name}" for name in names)]) == 0
        out = capsys.readouterr().out
        if keys_of(folder).get("llmchaos_backend") != backend or (note not in out if note else "skipped" in out):
            wrong.append((names, options, keys_of(folder), out))
    assert wrong == []

    assert llmchaos(["init", str(tmp_path / "none"), "--backend=ollama", "--scenario=lost_answer"]) == 1
    assert "--backend must be sim for agents/lost_answer" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_the_simulated_engine_is_needed_where_the_page_lists_it():
    page = (ROOT / "docs" / "scenarios.md").read_text()
    simulated = set(re.findall(r"^\| `(\w+)` \|.*\| simulated \|$", page, re.MULTILINE))
    paths = {name: path for name, path in lab_project.names().items() if "/" not in name}

    assert simulated == {
        name for name, path in paths.items() if lab_project.needs_the_simulated_engine(path.read_text())
    }


def test_the_project_of_an_agents_scenario_gets_the_agents(tmp_path, capsys):
    llmchaos(["init", str(tmp_path / "processes"), "--runtime=local", "--scenario=lost_answer"])
    out = capsys.readouterr().out
    llmchaos(["init", str(tmp_path / "containers"), "--scenario=lost_answer", "--scenario=kill_api", "--backend=sim"])

    assert "note: the first start installs the packages of the lab's agents (250 MB)" in out
    assert "An agent (`agent`) takes tasks" in (tmp_path / "processes" / "README.md").read_text()
    setup = [step["run"] for step in workflow_of(tmp_path / "containers")["steps"] if "setup" in step.get("run", "")]
    assert setup == ["llmchaos setup --backend sim --agents"]
    readme = (tmp_path / "containers" / "README.md").read_text()
    assert f"{setup[0]} # build or pull the lab's images. Without Docker skip it: pytest starts processes\n" in readme
    assert "note: without Docker the first start installs the packages" in capsys.readouterr().out


def test_a_project_in_containers_names_no_way_without_them(tmp_path, capsys):
    llmchaos(["init", str(tmp_path / "demo"), "--runtime=compose", "--scenario=lost_answer"])

    assert "250 MB" not in capsys.readouterr().out
    assert "# build or pull the lab's images\n" in (tmp_path / "demo" / "README.md").read_text()


def test_an_experiment_is_added_as_the_readme_describes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    llmchaos(["init", "demo", "--runtime=local", "--scenario=lost_answer"])
    monkeypatch.chdir("demo")
    before = files_of(Path())
    (command,) = re.findall("`llmchaos (init .+) NAME` writes", Path("README.md").read_text())

    assert llmchaos([*command.split(), "two_workers_one_task"]) == 0
    assert files_of(Path()) == before, "inside, pytest would not find it"
    assert Path("../more/scenarios/agents/test_two_workers_one_task.py").is_file()


def test_a_folder_inside_a_repository_gets_a_workflow_for_its_top(tmp_path, capsys):
    (tmp_path / ".git").mkdir()

    llmchaos(["init", str(tmp_path / "tests" / "ä chaos")])

    folder = tmp_path / "tests" / "ä chaos"
    job = workflow_of(folder)
    assert job["defaults"]["run"]["working-directory"] == "tests/ä chaos"
    assert job["steps"][-1]["with"]["path"] == "tests/ä chaos/reports/"
    out = capsys.readouterr().out
    assert "note: GitHub reads workflows at the top of a repository" in out
    assert f"cd '{folder}'" in out


def test_a_machine_that_lacks_something_is_named_with_the_remedy(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "supervisor" else object())

    llmchaos(["init", str(tmp_path / "demo"), "--runtime=local", "--backend=sim"])

    assert "note: the local runtime needs supervisor in " in capsys.readouterr().out


def test_the_setup_command_runs_the_program_of_the_lab(monkeypatch):
    seen = []
    monkeypatch.setattr("subprocess.call", lambda command: seen.append(command) or 7)

    assert llmchaos(["setup", "--backend", "sim", "--backend", "ollama"]) == 7
    assert llmchaos(["setup", "--agents"]) == 7

    program = str(lab_subject("sim").bootstrap)
    assert [command[1:] for command in seen] == [
        [program, "all", "--backend", "sim", "--backend", "ollama"],
        [program, "all", "--backend", "ollama", "--agents"],
    ]
