"""The ini file as `llmchaos doctor` checks it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from pytest_llmchaos.cli import commands
from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.session import ini_check


def test_the_nearest_file_with_a_key_of_the_plugin_is_checked(tmp_path: Path) -> None:
    inner = tmp_path / "project" / "tests"
    inner.mkdir(parents=True)
    (inner / "setup.cfg").write_text("[tool:pytest]\naddopts = -q\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\nllmchaos_runtime = local\n")
    mine = tmp_path / "project" / "pyproject.toml"
    mine.write_text('[tool.pytest.ini_options]\n"llm-chaos_runtime" = "local"\n')

    assert ini_check.find(inner) == mine
    assert ini_check.find(tmp_path) == tmp_path / "pytest.ini"


def test_a_file_that_only_names_the_package_has_no_key(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "x"\n[project.entry-points]\nllmchaos = "pytest_llmchaos"\n'
    )

    assert ini_check.find(tmp_path) is None


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ("llmchaos_runtime = local", None),
        ("llmchaos_atach = true", "llmchaos_atach is not an ini key of pytest-llmchaos; did you mean llmchaos_attach?"),
        ("llmchaos_runtime = k8s", "llmchaos_runtime must be one of auto, compose, local, got 'k8s'"),
        ("llmchaos_api = web", "llmchaos_api needs llmchaos_compose, the path of your compose file: add it"),
    ],
)
def test_wrong_keys_are_reported_and_no_test_is_imported(tmp_path: Path, keys: str, problem: str | None) -> None:
    ini = tmp_path / "pytest.ini"
    ini.write_text(f"[pytest]\n{keys}\n")
    (tmp_path / "test_it.py").write_text("raise SystemExit('imported')")

    assert ini_check.problem(ini) == problem
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pytest.ini", "test_it.py"]


def test_keys_in_a_file_that_pytest_does_not_read_are_reported(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    ini = tmp_path / "pyproject.toml"
    ini.write_text('[tool.pytest.ini_options]\nllmchaos_runtime = "local"\n')

    assert (
        ini_check.problem(ini) == "pytest reads pytest.ini instead, so its keys have no effect: move them to pytest.ini"
    )


def test_a_pytest_that_does_not_start_is_reported_with_its_last_words(tmp_path: Path) -> None:
    ini = tmp_path / "pytest.ini"
    ini.write_text("[pytest]\naddopts = --nothing-of-the-sort\nllmchaos_runtime = local\n")

    problem = ini_check.problem(ini)

    assert problem is not None
    assert "unrecognized arguments: --nothing-of-the-sort" in problem


class TestDoctor:
    """Lines of `llmchaos doctor` on the project and the machine."""

    @pytest.fixture
    def lines(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.chdir(tmp_path)
        return lambda: list(commands._of_project())

    def test_a_folder_without_keys_tests_the_lab(self, lines: Any, tmp_path: Path) -> None:
        ini, ports, disk, *_ = lines()

        assert ini == "ok    no ini file here has a key of this plugin, so runs test the lab"
        assert ports == "ok    ports on 127.0.0.1 are free"
        assert disk.endswith(f" GB are free in {tmp_path}")

    def test_the_ini_file_is_named_with_its_problem(self, lines: Any, tmp_path: Path) -> None:
        (tmp_path / "pytest.ini").write_text("[pytest]\nllmchaos_atach = true\n")
        assert lines()[0].startswith(f"bad   {tmp_path}/pytest.ini: llmchaos_atach is not an ini key")

        (tmp_path / "pytest.ini").write_text("[pytest]\nllmchaos_runtime = local\n")
        assert lines()[0] == f"ok    the keys of {tmp_path}/pytest.ini"

    def test_a_full_disk_and_taken_ports_are_reported(self, lines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        def taken(_: object) -> int:
            raise NotReady("no free port from 1 to 2: stop the programs that use them")

        monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1_900_000_000))
        monkeypatch.setattr(commands.Ports, "reserve", taken)

        _, ports, disk, *_ = lines()

        assert ports == "bad   no free port from 1 to 2: stop the programs that use them"
        assert disk.startswith("note  1.9 GB are free in ")
        assert disk.endswith(": a run writes samples, logs and a stack's data, so free 2 GB")


def test_a_target_that_the_stack_lacks_is_reported_as_the_plan_does(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("services: {web: {image: x, ports: ['80']}}\n")
    ini = tmp_path / "pytest.ini"
    keys = [f"compose = {tmp_path}/compose.yaml", "api = web", "targets = webb"]
    ini.write_text("\n".join(["[pytest]", *(f"llmchaos_{key}" for key in keys)]) + "\n")

    problem = ini_check.problem(ini)

    assert problem is not None
    assert "llmchaos_targets names 'webb', which the compose file lacks; did you mean 'web'?" in problem


def test_a_variable_that_a_header_needs_is_reported_as_the_plan_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SHOP_KEY", raising=False)
    (tmp_path / "compose.yaml").write_text("services: {web: {image: x, ports: ['80']}}\n")
    ini = tmp_path / "pytest.ini"
    keys = ["compose = compose.yaml", "api = web", "targets = web", "headers = Authorization: $SHOP_KEY"]
    ini.write_text("\n".join(["[pytest]", *(f"llmchaos_{key}" for key in keys)]) + "\n")

    said = ini_check.problem(ini)

    assert said is not None
    assert "llmchaos_headers: Authorization needs the environment variable SHOP_KEY, which is not set" in said
