"""The package as users install it: wheel, sdist, extras, and the starter project."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from support import wheels

SHIPPED = {"stack": "_stack", "dashboards": "_dashboards", "scenarios": "_scenarios"}
WHERE = "import pytest_llmchaos, sys; print(pytest_llmchaos.__file__)"
# Tags of the lab's images, which follow from the files of the build contexts.
TAGS = """
import json, sys
from pytest_llmchaos.subject.lab import stack_dir
sys.path.insert(0, str(stack_dir()))
from offline.recipes import RECIPES, built_tag
print(json.dumps({one.name: built_tag(one, base="base", arch="amd64") for one in RECIPES}))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The wheel of this tree."""
    return wheels.build(tmp_path_factory.mktemp("dist"), "wheel")


@pytest.fixture(scope="module")
def full(built, tmp_path_factory):
    """Python of an environment with the wheel and both extras."""
    return wheels.environment(tmp_path_factory.mktemp("full") / "venv", built, "local", "generate")


@pytest.fixture(scope="module")
def core(built, tmp_path_factory):
    """Python of an environment with the wheel without extras."""
    return wheels.environment(tmp_path_factory.mktemp("core") / "venv", built)


def run(python, *words, cwd, status=0, **env):
    """Run a program of the environment and return its output."""
    program = python.parent / words[0]
    done = subprocess.run(
        [str(program), *words[1:]],
        cwd=cwd,
        env={**wheels.clean_environment(), **env},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_sdist_builds_the_same_wheel(built, tmp_path):
    tree = wheels.unpack(wheels.build(tmp_path / "sdist", "sdist"), tmp_path / "tree")

    again = wheels.contents(wheels.build(tmp_path / "again", "wheel", tree))

    first = wheels.contents(built)
    assert sorted(again) == sorted(first)
    assert [name for name in first if again[name] != first[name]] == []


def test_the_wheel_ships_the_lab_the_scenarios_and_the_dashboards(built):
    names = set(wheels.contents(built))
    listed = subprocess.run(["git", "ls-files", *SHIPPED], cwd=wheels.ROOT, capture_output=True, text=True, check=True)

    wanted = set()
    for path in listed.stdout.split():
        folder, _, rest = path.partition("/")
        wanted.add(f"pytest_llmchaos/{SHIPPED[folder]}/{rest}")
    assert wanted <= names
    assert [name for name in names if "__pycache__" in name or name.startswith(("tests/", "docs/"))] == []


def test_the_package_is_imported_from_the_wheel(full, tmp_path):
    place = run(full, "python", "-c", WHERE, cwd=tmp_path).strip()

    assert Path(place).is_relative_to(full.parents[1])
    assert not Path(place).is_symlink()


def test_the_wheel_builds_the_same_images_as_the_checkout(full, tmp_path):
    installed = json.loads(run(full, "python", "-c", TAGS, cwd=tmp_path))

    assert installed == json.loads(run(full, "python", "-c", TAGS, cwd=tmp_path, PYTHONPATH=str(wheels.ROOT)))
    assert len(installed) >= 6


def test_the_starter_project_is_planned_from_the_wheel(full, tmp_path):
    out = run(full, "llmchaos", "init", "demo", "--runtime", "local", "--backend", "sim", cwd=tmp_path)
    planned = run(full, "pytest", "--chaos-plan", "-p", "no:cacheprovider", cwd=tmp_path / "demo")

    assert "  cd demo\n" in out
    assert "3 trials planned with" in planned
    assert not (tmp_path / "demo" / "reports").exists()


def test_all_shipped_scenarios_are_planned_from_the_wheel_without_extras(core, tmp_path):
    run(core, "llmchaos", "init", "demo", "--runtime", "compose", "--backend", "sim", "--scenario=all", cwd=tmp_path)

    planned = run(core, "pytest", "--chaos-plan", "-p", "no:cacheprovider", cwd=tmp_path / "demo")

    shipped = {path.relative_to(wheels.ROOT) for path in (wheels.ROOT / "scenarios").rglob("test_*.py")}
    demo = tmp_path / "demo"
    assert {path.relative_to(demo) for path in (demo / "scenarios").rglob("*.py")} == shipped
    assert {one.stem.removeprefix("test_") for one in shipped} <= {
        re.split("[:,]", line)[0] for line in planned.split("\n")
    }


def test_a_missing_extra_is_one_message_with_the_command(core, tmp_path):
    local, generate = (f"pip install 'pytest-llmchaos[{name}]'" for name in ("local", "generate"))
    run(core, "llmchaos", "init", "demo", "--runtime", "local", "--backend", "sim", cwd=tmp_path)
    (tmp_path / "slo.yaml").write_bytes((wheels.ROOT / "stack" / "slo.yaml").read_bytes())

    performed = run(core, "pytest", "-p", "no:cacheprovider", cwd=tmp_path / "demo", status=4)
    generated = run(core, "llmchaos", "generate", "--slo", "slo.yaml", "--out", "out", cwd=tmp_path)
    checked = run(core, "python", "-c", "from pytest_llmchaos.cli import commands; commands.doctor()", cwd=tmp_path)

    assert performed.count(local) == 1
    assert generated.count(generate) == 1
    assert [checked.count(one) for one in (local, generate)] == [1, 1]


def test_the_extras_bring_what_the_lab_and_the_dashboards_import(full, tmp_path):
    check = "from pytest_llmchaos.runtime.local import prerequisites; prerequisites.require_packages('llamacpp')"

    run(full, "python", "-c", check, cwd=tmp_path)
    run(full, "python", "-c", "import pytest_llmchaos.generate.grafana", cwd=tmp_path)


def test_the_command_has_the_version_of_the_package(core, tmp_path):
    version = tomllib.loads((wheels.ROOT / "pyproject.toml").read_text())["project"]["version"]

    assert run(core, "llmchaos", "--version", cwd=tmp_path) == f"pytest-llmchaos {version}\n"
